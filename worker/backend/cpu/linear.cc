#include "worker/backend/cpu/linear.h"

#include <algorithm>

#include "common/check.h"
#include "worker/backend/cpu/kernels.h"

namespace accrue::cpu {
namespace {

// Tiles are as large as keeps a product efficient; small outputs are cut further, down to kLeastTile, so that
// there is work for several threads.
constexpr int64_t kMostTileRows = 256;
constexpr int64_t kMostTileColumns = 512;
constexpr int64_t kLeastTile = 128;
constexpr int64_t kTileStep = 64;
constexpr int64_t kEnoughTiles = 8;
constexpr int64_t kBiasColumnsPerTask = 128;

// The size of even parts, none above `most`, in whole steps.
int64_t EvenPart(int64_t total, int64_t most) {
  const int64_t parts = (total + most - 1) / most;
  const int64_t part = (total + parts - 1) / parts;
  return std::min(total, (part + kTileStep - 1) / kTileStep * kTileStep);
}

const void* At(const Tensor& tensor, int64_t element) {
  return static_cast<const char*>(tensor.data) + element * SizeOf(tensor.dtype);
}

}  // namespace

Tiling ChooseTiling(int64_t rows, int64_t columns, int64_t depth) {
  int64_t most_rows = kMostTileRows, most_columns = kMostTileColumns;
  Tiling tiling{.rows = rows, .columns = columns};
  while (true) {
    tiling.tile_rows = EvenPart(rows, most_rows);
    tiling.tile_columns = EvenPart(columns, most_columns);
    if (tiling.row_tiles() * tiling.column_tiles() >= kEnoughTiles) return tiling;
    if (most_columns > most_rows) {
      most_columns /= 2;
    } else if (most_rows > kLeastTile) {
      most_rows /= 2;
    } else if (most_columns > kLeastTile) {
      most_columns /= 2;
    } else {
      return tiling;
    }
  }
}

// The whole product: `shape` with m and n of the output.
struct Linear::Product {
  GemmShape shape;
  Tensor a, b, c, bias;
};

Linear::Plans Linear::PlansFor(const Product& product, const Tiling& tiling) {
  gemm_.Trim();
  Plans plans;
  for (int low = 0; low < 2; ++low) {
    for (int narrow = 0; narrow < 2; ++narrow) {
      GemmShape shape = product.shape;
      shape.m = low ? tiling.rows - (tiling.row_tiles() - 1) * tiling.tile_rows : tiling.tile_rows;
      shape.n = narrow ? tiling.columns - (tiling.column_tiles() - 1) * tiling.tile_columns : tiling.tile_columns;
      const bool present = (low || tiling.row_tiles() > 1) && (narrow || tiling.column_tiles() > 1);
      plans.of[low][narrow] = present ? &gemm_.Get(shape) : nullptr;
    }
  }
  scratch_.Reserve(gemm_.scratch_bytes());
  return plans;
}

void Linear::RunTile(const Product& product, const Tiling& tiling, const Plans& plans, int64_t row_tile,
                     int64_t column_tile) {
  const GemmShape& shape = product.shape;
  const int64_t row = row_tile * tiling.tile_rows, column = column_tile * tiling.tile_columns;
  const GemmPlan& plan =
      *plans.of[row_tile == tiling.row_tiles() - 1][column_tile == tiling.column_tiles() - 1];
  plan.Run(ThreadPool::CurrentThread(), At(product.a, row * shape.a_row), At(product.b, column * shape.b_column),
           const_cast<void*>(At(product.c, row * shape.c_row + column)),
           shape.bias ? At(product.bias, column) : nullptr, scratch_.OfThisThread());
}

namespace {

Rectangle TileOf(const Tiling& tiling, int64_t row_tile, int64_t column_tile) {
  const int64_t row = row_tile * tiling.tile_rows, column = column_tile * tiling.tile_columns;
  return {.first_row = row,
          .rows = std::min(tiling.tile_rows, tiling.rows - row),
          .first_column = column,
          .columns = std::min(tiling.tile_columns, tiling.columns - column),
          .stride = tiling.columns};
}

}  // namespace

void Linear::Forward(const LinearForwardArgs& args) {
  const bool out_in = args.layout == WeightLayout::kOutIn;
  ACCRUE_CHECK(args.x.dtype == args.weight.dtype);
  const Tensor& product_output = args.gelu_input ? args.gelu_input : args.y;
  const Product product{.shape = {.m = args.rows, .n = args.out, .k = args.in,
                                  .a_row = args.in, .a_column = 1,
                                  .b_row = out_in ? 1 : args.out, .b_column = out_in ? args.in : 1,
                                  .c_row = args.out, .input = args.x.dtype, .output = product_output.dtype,
                                  .bias_type = args.bias.dtype, .bias = static_cast<bool>(args.bias)},
                        .a = args.x, .b = args.weight, .c = product_output, .bias = args.bias};
  const Tiling tiling = ChooseTiling(args.rows, args.out, args.in);
  const Plans plans = PlansFor(product, tiling);
  pool_.ParallelFor(tiling.row_tiles() * tiling.column_tiles(), [&](int64_t task) {
    const int64_t row_tile = task / tiling.column_tiles(), column_tile = task % tiling.column_tiles();
    RunTile(product, tiling, plans, row_tile, column_tile);
    if (args.gelu_input) GeluForward(args.gelu_input, args.y, TileOf(tiling, row_tile, column_tile));
  });
}

void Linear::BackwardInput(const LinearBackwardInputArgs& args) {
  const bool out_in = args.layout == WeightLayout::kOutIn;
  ACCRUE_CHECK(args.dy.dtype == args.weight.dtype && !(args.accumulate && args.gelu_input));
  const Product product{.shape = {.m = args.rows, .n = args.in, .k = args.out,
                                  .a_row = args.out, .a_column = 1,
                                  .b_row = out_in ? args.in : 1, .b_column = out_in ? 1 : args.out,
                                  .c_row = args.in, .input = args.dy.dtype, .output = args.dx.dtype,
                                  .accumulate = args.accumulate},
                        .a = args.dy, .b = args.weight, .c = args.dx};
  const Tiling tiling = ChooseTiling(args.rows, args.in, args.out);
  const Plans plans = PlansFor(product, tiling);
  pool_.ParallelFor(tiling.row_tiles() * tiling.column_tiles(), [&](int64_t task) {
    const int64_t row_tile = task / tiling.column_tiles(), column_tile = task % tiling.column_tiles();
    RunTile(product, tiling, plans, row_tile, column_tile);
    if (args.gelu_input) GeluBackward(args.gelu_input, args.dx, TileOf(tiling, row_tile, column_tile));
  });
}

void Linear::BackwardWeight(const LinearBackwardWeightArgs& args) {
  // dweight[out, in] = dy^T x, or dweight[in, out] = x^T dy.
  const bool out_in = args.layout == WeightLayout::kOutIn;
  ACCRUE_CHECK(args.x.dtype == args.dy.dtype);
  const int64_t m = out_in ? args.out : args.in, n = out_in ? args.in : args.out;
  const Product product{.shape = {.m = m, .n = n, .k = args.rows,
                                  .a_row = 1, .a_column = m,
                                  .b_row = n, .b_column = 1,
                                  .c_row = n, .input = args.x.dtype, .output = DType::kF32,
                                  .accumulate = args.accumulate},
                        .a = out_in ? args.dy : args.x, .b = out_in ? args.x : args.dy,
                        .c = {args.dweight, DType::kF32}};
  const Tiling tiling = ChooseTiling(m, n, args.rows);
  const Plans plans = PlansFor(product, tiling);
  const int64_t tiles = tiling.row_tiles() * tiling.column_tiles();
  const int64_t slices =
      args.dbias != nullptr ? (args.out + kBiasColumnsPerTask - 1) / kBiasColumnsPerTask : 0;
  pool_.ParallelFor(tiles + slices, [&](int64_t task) {
    if (task < tiles) {
      RunTile(product, tiling, plans, task / tiling.column_tiles(), task % tiling.column_tiles());
      return;
    }
    const int64_t column = (task - tiles) * kBiasColumnsPerTask;
    ColumnSums(args.dy, {.rows = args.rows, .first_column = column,
                         .columns = std::min(kBiasColumnsPerTask, args.out - column), .stride = args.out},
               args.dbias);
  });
}

}  // namespace accrue::cpu
