// The inner loops of CpuStateOps, one table of them per instruction set.
//
// Pure functions on memory; thread-safe. Every count is a multiple of kKernelStep: the caller pads. All
// tables give the same bits: each operation is the IEEE one that docs/numerics.md names, none is fused,
// reordered or flushed.
#pragma once

#include <cstdint>

#include "worker/backend/state_ops.h"

namespace accrue::cpu_state {

inline constexpr int64_t kKernelStep = 16;

// What one pass over gradient elements finds. max_bits is the largest bit pattern without sign, so that a
// non-finite element shows as 0x7f800000 or more.
struct GradientScan {
  uint32_t max_bits = 0;
  int64_t vanished = 0;
  uint64_t weighted_sum = 0;
};

struct Kernels {
  // accumulator[i] (+)= rint(gradient[i] * scale); scans, with the weights of ElementWeight. Null: only scans.
  GradientScan (*quantize_add)(const float* gradient, int64_t count, double scale, bool first,
                               const uint64_t* weights, int64_t* accumulator);
  GradientScan (*inspect)(const float* gradient, int64_t count);
  GradientScan (*float_add)(const float* gradient, int64_t count, bool first, float* accumulator);
  uint64_t (*weighted_sum)(const int64_t* values, int64_t count, const uint64_t* weights);
  // out[i] = fl32(sums[i]) * scale
  void (*to_float)(const int64_t* sums, int64_t count, float scale, float* out);
  // partials[i mod 16] += fl64(values[i])^2, in order
  void (*square_sums)(const float* values, int64_t count, double partials[16]);
  // sums: s of docs/numerics.md, section 7, item 1
  void (*adamw)(const float* sums, int64_t count, const UpdateArgs& args, float* p, float* m, float* v);
  void (*sgd)(const float* sums, int64_t count, const UpdateArgs& args, float* p, float* m);
};

// Of the best instruction set that Highway finds here.
const Kernels& BestKernels();

}  // namespace accrue::cpu_state
