// Operations on whole-model state: accumulate, check, reduce to a norm, step, hash. docs/numerics.md, sections 5-9.
//
// Pointers are the backend's memory unless called host. All work by chunks of kChunkElements from a tensor's first
// element, so that results do not depend on threads, buckets or who holds what. Arrays are aligned to 4 bytes a
// binary32 and 8 an int64, and nothing beyond `elements` is read or written.
#pragma once

#include <cstdint>
#include <vector>

#include "common/hash.h"

namespace accrue {

// Of one chunk of one unit's quantised gradient; host memory.
struct ChunkStats {
  float max_abs = 0;       // of the finite elements
  bool non_finite = false;
  int64_t vanished = 0;    // not zero, but rounded to zero
  uint64_t weighted_sum = 0;  // sum of r_j * q_j modulo 2^64
};

enum class OptimizerKind { kAdamW, kSgd };

struct UpdateArgs {
  OptimizerKind kind = OptimizerKind::kAdamW;
  float learning_rate = 0, beta1 = 0, beta2 = 0, one_minus_beta1 = 0, one_minus_beta2 = 0;
  float epsilon = 0, weight_decay = 0, bias_correction1 = 1, bias_correction2 = 1, momentum = 0;
  float scale = 0;  // fl32(coefficient / valid tokens)
};

class StateOps {
 public:
  virtual ~StateOps() = default;

  // accumulator[i] = (first ? 0 : accumulator[i]) + round_to_nearest_even(gradient[i] * 2^k), wrapping, for a whole
  // tensor of `elements`. What int64 cannot hold (NaN too) counts as -2^63: such a unit never enters a seal. stats:
  // one per chunk of the tensor, written. k is from -kMaxExponent - kMostInitialLossScale to kMaxExponent. A null accumulator: nothing is added, the stats are the same.
  virtual void QuantizeAdd(const float* gradient, int64_t elements, int k, bool first, int64_t* accumulator,
                           ChunkStats* host_stats) = 0;
  // As above without an accumulator: the maxima only (for the probe). weighted_sum and vanished are zero.
  virtual void Inspect(const float* gradient, int64_t elements, ChunkStats* host_stats) = 0;
  // Fast mode: accumulator[i] = (first ? 0 : accumulator[i]) + gradient[i], with the maxima.
  virtual void FloatAdd(const float* gradient, int64_t elements, bool first, float* accumulator,
                        ChunkStats* host_stats) = 0;

  // sum of r_j * q_j modulo 2^64 for each chunk of `elements` starting at a chunk's start; host_sums per chunk.
  virtual void WeightedSums(const int64_t* values, int64_t elements, uint64_t* host_sums) = 0;

  // Per chunk: sum of fl64(fl32(A) * 2^-k)^2 (section 7, item 2); host_sums per chunk of the tensor.
  virtual void SquareSums(const int64_t* sums, int64_t elements, int k, double* host_sums) = 0;
  virtual void SquareSums(const float* sums, int64_t elements, double* host_sums) = 0;

  // Section 7, items 4-6, for a whole tensor, and the hashes of p, m and v of every chunk: host_hashes holds those of
  // p for all chunks, then of m, then of v (AdamW only), which is the digest's order; null: none. v is null for SGD.
  // The second form takes fast mode's sums.
  virtual void Update(const int64_t* sums, int64_t elements, int k, const UpdateArgs& args, float* p, float* m, float* v,
                      Hash128* host_hashes) = 0;
  virtual void Update(const float* sums, int64_t elements, const UpdateArgs& args, float* p, float* m, float* v,
                      Hash128* host_hashes) = 0;

  // XXH3-128 of each chunk's little-endian bytes; element_bytes 4 (f32) or 2 (bf16). host_hashes per chunk.
  virtual void HashChunks(const void* values, int64_t elements, int element_bytes, Hash128* host_hashes) = 0;
};

}  // namespace accrue
