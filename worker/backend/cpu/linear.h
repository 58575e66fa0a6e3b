// Matrix products of a linear layer, forward and backward, cut into output tiles by shape alone, with what follows
// a product done while its tile is in cache.
//
// Not thread-safe; the pool and the scratch must outlive it.
#pragma once

#include "worker/backend/cpu/gemm.h"
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
};

Tiling ChooseTiling(int64_t rows, int64_t columns, int64_t depth);

class Linear {
 public:
  Linear(ThreadPool& pool, ThreadScratch& scratch) : pool_(pool), scratch_(scratch), gemm_(pool.threads()) {}

  void Forward(const LinearForwardArgs& args);
  void BackwardInput(const LinearBackwardInputArgs& args);
  void BackwardWeight(const LinearBackwardWeightArgs& args);

 private:
  struct Product;

  // The plans of a product's tiles: full, narrow (last column), low (last row), corner.
  struct Plans {
    const GemmPlan* of[2][2];
  };
  Plans PlansFor(const Product& product, const Tiling& tiling);
  void RunTile(const Product& product, const Tiling& tiling, const Plans& plans, int64_t row_tile,
               int64_t column_tile);

  ThreadPool& pool_;
  ThreadScratch& scratch_;
  Gemm gemm_;
};

}  // namespace accrue::cpu
