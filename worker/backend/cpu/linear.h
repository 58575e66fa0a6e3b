// Matrix products of a linear layer, forward and backward, cut into output tiles by shape alone, with what
// follows a product done while its tile is in cache.
//
// Not thread-safe; the pool and the scratch must outlive it.
#pragma once

#include <unordered_map>

#include "worker/backend/cpu/amx.h"
#include "worker/backend/cpu/gemm.h"
#include "worker/backend/cpu/kernels.h"
#include "worker/backend/cpu/scratch.h"
#include "worker/backend/cpu/thread_pool.h"
#include "worker/backend/model_ops.h"

namespace accrue::cpu {

// How an output is cut: all tiles but the last of a row or column have these sizes.
struct Tiling {
  int64_t rows = 0, columns = 0;            // of the output
  int64_t tile_rows = 0, tile_columns = 0;  // of a tile

  int64_t row_tiles() const { return (rows + tile_rows - 1) / tile_rows; }
  int64_t column_tiles() const { return (columns + tile_columns - 1) / tile_columns; }
  // Of the last row and the last column of tiles.
  int64_t LastRows() const { return rows - (row_tiles() - 1) * tile_rows; }
  int64_t LastColumns() const { return columns - (column_tiles() - 1) * tile_columns; }
};

// By shape alone.
Tiling ChooseTiling(const GemmShape& product);

class Linear {
 public:
  Linear(ThreadPool& pool, ThreadScratch& scratch) : pool_(pool), scratch_(scratch), gemm_(pool.threads()) {}

  void Forward(const LinearForwardArgs& args);
  void BackwardInput(const LinearBackwardInputArgs& args);
  void BackwardWeight(const LinearBackwardWeightArgs& args);

 private:
  // ---- linear_f16.cc: by fp32's products of the same shapes ----
  void ForwardF16(const LinearForwardArgs& args);
  void BackwardInputF16(const LinearBackwardInputArgs& args);
  void BackwardWeightF16(const LinearBackwardWeightArgs& args);
  // binary32 copies, in scratch `place`, valid until the next call with that place.
  enum Place { kLeft, kRight, kBias, kResult, kPlaces };
  Tensor WideScratch(int64_t elements, Place place);
  Tensor Widened(const Tensor& from, int64_t elements, Place place);
  void Narrow(const Tensor& from, const Tensor& to, int64_t elements);
  void ConvertAll(const Tensor& from, const Tensor& to, int64_t elements);

  struct Product;

  // How a whole product is computed.
  struct Plan {
    Tiling tiling;
    bool by_amx = false;      // AmxTile
    bool own_kernel = false;  // GemmTile; where neither, the library:
    // Of the tiles: [last row of tiles][last column of tiles]; null where there is no such tile.
    const GemmPlan* tiles[2][2] = {};
    // Where a's columns lie far apart, a tile's part of it is first copied to scratch, with this distance.
    int64_t copied_a_stride = 0;
    size_t copied_a_bytes = 0;

    int64_t count() const { return tiling.row_tiles() * tiling.column_tiles(); }
  };

  // y from the gelu_input that is there: the bits of the tiles of Forward, which go by elements alone.
  void GeluAgain(const LinearForwardArgs& args);
  // The part `where` of the product, for AmxTile.
  static AmxTileArgs TileArgs(const Product& product, const Rectangle& where);
  const Plan& PlanFor(const GemmShape& shape);
  // Tile `task` of the product; returns where it lies.
  Rectangle RunTile(const Product& product, const Plan& plan, int64_t task);

  ThreadPool& pool_;
  ThreadScratch& scratch_;
  Gemm gemm_;
  Scratch wide_[kPlaces];
  std::unordered_map<GemmShape, Plan, GemmShapeHash> plans_;  // by the shape of the whole product
};

}  // namespace accrue::cpu
