// Single-threaded matrix products by oneDNN, one call per output tile.
//
// oneDNN's own threading splits K by the number of threads, so results would depend on it. Here a product is cut
// into output tiles by its shape alone and each tile is one single-threaded call over the whole of K
// (docs/numerics.md, section 4).
//
// Thread-safety: Get belongs to the thread that drives the operations. Run may be called by all threads of the pool
// at once, each with its own number.
#pragma once

#include <dnnl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "worker/backend/model_ops.h"

namespace accrue::cpu {

// c[m, n] = a[m, k] b[k, n] (+ c) (+ bias[n]). Element (i, j) of a is at i * a_row + j * a_column; b likewise; c's
// columns are contiguous.
struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
  int64_t a_row = 0, a_column = 0;
  int64_t b_row = 0, b_column = 0;
  int64_t c_row = 0;
  DType input = DType::kF32;   // of a and b
  DType output = DType::kF32;  // of c
  DType bias_type = DType::kF32;
  bool bias = false;
  bool accumulate = false;

  bool operator==(const GemmShape&) const = default;
};

struct GemmShapeHash {
  size_t operator()(const GemmShape& shape) const;
};

// The compiled product of one shape.
class GemmPlan {
 public:
  GemmPlan(const GemmShape& shape, dnnl_engine_t engine, dnnl_stream_t stream, int threads);
  ~GemmPlan();
  GemmPlan(const GemmPlan&) = delete;
  GemmPlan& operator=(const GemmPlan&) = delete;

  size_t scratch_bytes() const { return scratch_bytes_; }
  // scratch: scratch_bytes(), aligned to 64 bytes, this thread's own.
  void Run(int thread, const void* a, const void* b, void* c, const void* bias, void* scratch) const;

 private:
  // What a call mutates: one set per thread.
  struct Memories {
    dnnl_memory_t a = nullptr, b = nullptr, c = nullptr, bias = nullptr, scratch = nullptr;
  };

  dnnl_stream_t stream_;
  dnnl_primitive_t primitive_ = nullptr;
  size_t scratch_bytes_ = 0;
  std::vector<Memories> memories_;
};

class Gemm {
 public:
  explicit Gemm(int threads);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  // The plan of a shape, compiled at its first use. Valid until Clear.
  const GemmPlan& Get(const GemmShape& shape);
  void Clear() { plans_.clear(); }
  size_t plans() const { return plans_.size(); }

  // Scratch for the largest plan so far.
  size_t scratch_bytes() const { return scratch_bytes_; }

 private:
  const int threads_;
  dnnl_engine_t engine_ = nullptr;
  dnnl_stream_t stream_ = nullptr;
  size_t scratch_bytes_ = 0;
  std::unordered_map<GemmShape, std::unique_ptr<GemmPlan>, GemmShapeHash> plans_;
};

// "onednn-2.6.3-avx512_core": the library and the instruction set that it takes here.
std::string GemmLibraryName(DType precision);
// Whether it multiplies bf16 with the processor's own instructions.
bool GemmSupportsBf16();

}  // namespace accrue::cpu
