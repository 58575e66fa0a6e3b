#include "worker/backend/cpu/linear.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "common/check.h"

namespace accrue::cpu {
namespace {

// What the parts of both inputs cost a tile beside its products: as much as this many more rows or columns.
constexpr double kRightRows = 6, kRightTransposedRows = 12;
constexpr double kLeftColumns = 20, kLeftCopiedColumns = 48;
// The same by the processor's tiles, whose products are so fast that inputs weigh more; and the most sums
// that stay in the second-level cache.
constexpr double kAmxRightRows = 250, kAmxLeftColumns = 120, kAmxLeftTransposedColumns = 300;
constexpr int64_t kAmxMostArea = 512 * 384;
constexpr int64_t kLeastTile = 64;
// Tiles come in multiples of this where they can, so that as many threads end together.
constexpr int64_t kTilesAtOnce = 4;
constexpr int64_t kMostTileFlops = int64_t{1} << 28;  // about two milliseconds
constexpr int64_t kRowStep = 16, kAmxRowStep = 32, kColumnStep = 64;
// Keeps the rows of a copy from falling on the same lines of the cache.
constexpr int64_t kCopyPadding = 32;
constexpr int64_t kBiasColumnsPerTask = 128;
constexpr int64_t kGeluRowsPerTask = 16;
// Prompts of every length bring new shapes: beyond this many products all are forgotten.
constexpr size_t kMostPlans = 512;

// The size of even parts, in whole steps.
int64_t PartSize(int64_t total, int64_t parts, int64_t step) {
  const int64_t size = (total + parts - 1) / parts;
  return std::min(total, (size + step - 1) / step * step);
}

const void* At(const Tensor& tensor, int64_t element) {
  return static_cast<const char*>(tensor.data) + element * SizeOf(tensor.dtype);
}

// A left matrix that lies transposed is read along its rows, so each tile takes a part of every row of it;
// where these are far apart they fall on the same lines of the cache, and copying them first is cheaper.
bool CopiesLeft(const GemmShape& shape) { return shape.a_column != 1 && shape.m > shape.n; }

// Where both matrices lie as they are multiplied, and enough rows share what is gathered of b, the own kernel
// is the faster: docs/performance.md.
constexpr int64_t kOwnKernelRows = 512;

bool UsesOwnKernel(const GemmShape& shape) {
  const bool plain = shape.a_column == 1 && shape.b_column == 1 && !(shape.bias && shape.accumulate);
  return plain && shape.input == DType::kF32 && shape.output == DType::kF32 && shape.m >= kOwnKernelRows;
}

// The processor's tiles take every product of bf16 where there are any.
bool UsesAmx(const GemmShape& shape) { return shape.input == DType::kBF16 && HasAmx(); }

// What bounds a tile, and what its inputs cost it.
struct TileCosts {
  double right_rows, left_columns;
  int64_t most_flops, most_area;
  int64_t row_step;  // tiles have a multiple of as many rows
};
TileCosts CostsOf(const GemmShape& shape) {
  if (UsesAmx(shape)) {
    return {kAmxRightRows, shape.a_column == 1 ? kAmxLeftColumns : kAmxLeftTransposedColumns,
            std::numeric_limits<int64_t>::max(), kAmxMostArea, kAmxRowStep};
  }
  return {shape.b_column == 1 ? kRightRows : kRightTransposedRows,
          CopiesLeft(shape) ? kLeftCopiedColumns : kLeftColumns, kMostTileFlops,
          std::numeric_limits<int64_t>::max(), kRowStep};
}

}  // namespace

Tiling ChooseTiling(const GemmShape& shape) {
  const int64_t rows = shape.m, columns = shape.n;
  const TileCosts costs = CostsOf(shape);
  Tiling best{.rows = rows, .columns = columns, .tile_rows = rows, .tile_columns = columns};
  double best_cost = std::numeric_limits<double>::infinity();
  for (int64_t row_parts = 1; row_parts <= std::max<int64_t>(1, rows / kLeastTile); ++row_parts) {
    for (int64_t column_parts = 1; column_parts <= std::max<int64_t>(1, columns / kLeastTile);
         ++column_parts) {
      Tiling tiling{.rows = rows, .columns = columns};
      tiling.tile_rows = PartSize(rows, row_parts, costs.row_step);
      tiling.tile_columns = PartSize(columns, column_parts, kColumnStep);
      const int64_t area = tiling.tile_rows * tiling.tile_columns;
      const bool too_large = 2 * area * shape.k > costs.most_flops || area > costs.most_area;
      if (too_large && area > 16 * kLeastTile * kLeastTile) continue;
      const int64_t rounds = (tiling.row_tiles() * tiling.column_tiles() + kTilesAtOnce - 1) / kTilesAtOnce;
      const double inputs = costs.right_rows / tiling.tile_rows + costs.left_columns / tiling.tile_columns;
      const double cost = static_cast<double>(rounds * area) * (1 + inputs);
      if (cost < best_cost) {
        best_cost = cost;
        best = tiling;
      }
    }
  }
  return best;
}

// The whole product: `shape` with m and n of the output.
struct Linear::Product {
  GemmShape shape;
  Tensor a, b, c, bias;
};

AmxTileArgs Linear::TileArgs(const Product& product, const Rectangle& where) {
  const GemmShape& shape = product.shape;
  const auto at = [](const Tensor& tensor, int64_t element) {
    return tensor ? Tensor{const_cast<void*>(At(tensor, element)), tensor.dtype} : tensor;
  };
  const int64_t row = where.first_row, column = where.first_column;
  return {.m = where.rows,
          .n = where.columns,
          .k = shape.k,
          .a = static_cast<const Bf16*>(at(product.a, row * shape.a_row).data),
          .a_row = shape.a_row,
          .a_column = shape.a_column,
          .b = static_cast<const Bf16*>(at(product.b, column * shape.b_column).data),
          .b_row = shape.b_row,
          .b_column = shape.b_column,
          .c = at({product.c.data, shape.output}, row * shape.c_row + column),
          .c_row = shape.c_row,
          .bias = at(product.bias, column),
          .accumulate = shape.accumulate};
}

const Linear::Plan& Linear::PlanFor(const GemmShape& shape) {
  const auto found = plans_.find(shape);
  if (found != plans_.end()) {
    if (found->second.by_amx == UsesAmx(shape)) return found->second;
    plans_.erase(found);  // a test has chosen another instruction set
  }
  if (plans_.size() > kMostPlans) {
    plans_.clear();
    gemm_.Clear();
  }
  Plan plan{.tiling = ChooseTiling(shape)};
  const Tiling& tiling = plan.tiling;
  if (UsesOwnKernel(shape)) {
    plan.own_kernel = true;
    scratch_.Reserve(GemmTileScratch(tiling.tile_rows) * sizeof(float));
    return plans_.emplace(shape, plan).first->second;
  }
  if (UsesAmx(shape)) {
    plan.by_amx = true;
    // The last rows, fewer than the others, may need more: a left matrix of odd height is packed.
    int64_t scratch_bytes = 0;
    for (const int64_t rows : {tiling.tile_rows, tiling.LastRows()}) {
      for (const int64_t columns : {tiling.tile_columns, tiling.LastColumns()}) {
        const Rectangle where{.rows = rows, .columns = columns};
        scratch_bytes = std::max(scratch_bytes, AmxTileScratch(TileArgs({.shape = shape}, where)));
      }
    }
    scratch_.Reserve(scratch_bytes);
    return plans_.emplace(shape, plan).first->second;
  }
  GemmShape tile = shape;
  if (CopiesLeft(shape)) {
    plan.copied_a_stride = tile.a_column = tiling.tile_rows + kCopyPadding;
    plan.copied_a_bytes = shape.k * plan.copied_a_stride * SizeOf(shape.input);
  }
  for (int low = 0; low < 2; ++low) {
    for (int narrow = 0; narrow < 2; ++narrow) {
      const bool present = (low || tiling.row_tiles() > 1) && (narrow || tiling.column_tiles() > 1);
      if (!present) continue;
      tile.m = low ? tiling.LastRows() : tiling.tile_rows;
      tile.n = narrow ? tiling.LastColumns() : tiling.tile_columns;
      plan.tiles[low][narrow] = &gemm_.Get(tile);
    }
  }
  scratch_.Reserve(gemm_.scratch_bytes() + plan.copied_a_bytes);
  return plans_.emplace(shape, plan).first->second;
}

Rectangle Linear::RunTile(const Product& product, const Plan& plan, int64_t task) {
  const GemmShape& shape = product.shape;
  const Tiling& tiling = plan.tiling;
  const int64_t row_tile = task / tiling.column_tiles(), column_tile = task % tiling.column_tiles();
  const int64_t row = row_tile * tiling.tile_rows, column = column_tile * tiling.tile_columns;
  const Rectangle where{.first_row = row,
                        .rows = std::min(tiling.tile_rows, tiling.rows - row),
                        .first_column = column,
                        .columns = std::min(tiling.tile_columns, tiling.columns - column),
                        .stride = tiling.columns};
  char* scratch = static_cast<char*>(scratch_.OfThisThread());
  if (plan.by_amx) {
    const AmxTileArgs tile = TileArgs(product, where);
    ACCRUE_CHECK(AmxTileScratch(tile) <= static_cast<int64_t>(scratch_.size_bytes()));
    AmxTile(tile, scratch);
    return where;
  }
  if (plan.own_kernel) {
    GemmTile({.m = where.rows,
              .n = where.columns,
              .k = shape.k,
              .a = product.a.f32() + row * shape.a_row,
              .a_row = shape.a_row,
              .b = product.b.f32() + column,
              .b_row = shape.b_row,
              .c = product.c.f32() + row * shape.c_row + column,
              .c_row = shape.c_row,
              .bias = shape.bias ? product.bias.f32() + column : nullptr,
              .accumulate = shape.accumulate},
             reinterpret_cast<float*>(scratch));
    return where;
  }
  const void* a = At(product.a, row * shape.a_row);
  if (plan.copied_a_stride != 0) {
    const int64_t size = SizeOf(shape.input);
    for (int64_t l = 0; l < shape.k; ++l) {
      std::memcpy(scratch + l * plan.copied_a_stride * size, At(product.a, l * shape.a_column + row),
                  where.rows * size);
    }
    a = scratch;
    scratch += plan.copied_a_bytes;
  }
  const GemmPlan& gemm =
      *plan.tiles[row_tile == tiling.row_tiles() - 1][column_tile == tiling.column_tiles() - 1];
  gemm.Run(ThreadPool::CurrentThread(), a, At(product.b, column * shape.b_column),
           const_cast<void*>(At(product.c, row * shape.c_row + column)),
           shape.bias ? At(product.bias, column) : nullptr, scratch);
  return where;
}

void Linear::Forward(const LinearForwardArgs& args) {
  ACCRUE_CHECK(!args.tf32);
  if (args.again) return GeluAgain(args);
  if (args.x.dtype == DType::kF16) return ForwardF16(args);
  const bool out_in = args.layout == WeightLayout::kOutIn;
  ACCRUE_CHECK(args.x.dtype == args.weight.dtype);
  const Tensor& product_output = args.gelu_input ? args.gelu_input : args.y;
  const Product product{.shape = {.m = args.rows,
                                  .n = args.out,
                                  .k = args.in,
                                  .a_row = args.in,
                                  .a_column = 1,
                                  .b_row = out_in ? 1 : args.out,
                                  .b_column = out_in ? args.in : 1,
                                  .c_row = args.out,
                                  .input = args.x.dtype,
                                  .output = product_output.dtype,
                                  .bias_type = args.bias.dtype,
                                  .bias = static_cast<bool>(args.bias)},
                        .a = args.x,
                        .b = args.weight,
                        .c = product_output,
                        .bias = args.bias};
  const Plan& plan = PlanFor(product.shape);
  pool_.ParallelFor(plan.count(), [&](int64_t task) {
    const Rectangle tile = RunTile(product, plan, task);
    if (args.gelu_input) GeluForward(args.gelu_input, args.y, tile);
  });
}

void Linear::GeluAgain(const LinearForwardArgs& args) {
  ACCRUE_CHECK(static_cast<bool>(args.gelu_input));
  pool_.ParallelFor((args.rows + kGeluRowsPerTask - 1) / kGeluRowsPerTask, [&](int64_t task) {
    const int64_t row = task * kGeluRowsPerTask;
    GeluForward(args.gelu_input, args.y,
                {.first_row = row,
                 .rows = std::min(kGeluRowsPerTask, args.rows - row),
                 .columns = args.out,
                 .stride = args.out});
  });
}

void Linear::BackwardInput(const LinearBackwardInputArgs& args) {
  ACCRUE_CHECK(!args.tf32);
  if (args.dy.dtype == DType::kF16) return BackwardInputF16(args);
  const bool out_in = args.layout == WeightLayout::kOutIn;
  ACCRUE_CHECK(args.dy.dtype == args.weight.dtype && !(args.accumulate && args.gelu_input));
  const Product product{.shape = {.m = args.rows,
                                  .n = args.in,
                                  .k = args.out,
                                  .a_row = args.out,
                                  .a_column = 1,
                                  .b_row = out_in ? args.in : 1,
                                  .b_column = out_in ? 1 : args.out,
                                  .c_row = args.in,
                                  .input = args.dy.dtype,
                                  .output = args.dx.dtype,
                                  .accumulate = args.accumulate},
                        .a = args.dy,
                        .b = args.weight,
                        .c = args.dx};
  const Plan& plan = PlanFor(product.shape);
  pool_.ParallelFor(plan.count(), [&](int64_t task) {
    const Rectangle tile = RunTile(product, plan, task);
    if (args.gelu_input) GeluBackward(args.gelu_input, args.dx, tile);
  });
}

void Linear::BackwardWeight(const LinearBackwardWeightArgs& args) {
  ACCRUE_CHECK(!args.tf32);
  if (args.x.dtype == DType::kF16) return BackwardWeightF16(args);
  // dweight[out, in] = dy^T x, or dweight[in, out] = x^T dy.
  const bool out_in = args.layout == WeightLayout::kOutIn;
  ACCRUE_CHECK(args.x.dtype == args.dy.dtype);
  const int64_t m = out_in ? args.out : args.in, n = out_in ? args.in : args.out;
  const Product product{.shape = {.m = m,
                                  .n = n,
                                  .k = args.rows,
                                  .a_row = 1,
                                  .a_column = m,
                                  .b_row = n,
                                  .b_column = 1,
                                  .c_row = n,
                                  .input = args.x.dtype,
                                  .output = DType::kF32,
                                  .accumulate = args.accumulate},
                        .a = out_in ? args.dy : args.x,
                        .b = out_in ? args.x : args.dy,
                        .c = {args.dweight, DType::kF32}};
  const Plan& plan = PlanFor(product.shape);
  const int64_t tiles = plan.count();
  const int64_t slices =
      args.dbias != nullptr ? (args.out + kBiasColumnsPerTask - 1) / kBiasColumnsPerTask : 0;
  pool_.ParallelFor(tiles + slices, [&](int64_t task) {
    if (task < tiles) {
      RunTile(product, plan, task);
      return;
    }
    const int64_t column = (task - tiles) * kBiasColumnsPerTask;
    ColumnSums(args.dy,
               {.rows = args.rows,
                .first_column = column,
                .columns = std::min(kBiasColumnsPerTask, args.out - column),
                .stride = args.out},
               args.dbias);
  });
}

}  // namespace accrue::cpu
