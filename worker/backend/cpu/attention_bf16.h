// Attention in bf16 by the processor's matrix tiles or by AVX-512's dot product of bf16 pairs; arguments and tasks are those of kernels.h, which calls
// these for bf16 where HasBf16Dot() says so. docs/numerics.md, section 4, says where it rounds.
#pragma once

#include <cstdint>

#include "worker/backend/cpu/kernels.h"

namespace accrue::cpu {

int64_t AttentionForwardScratchBf16(const AttentionArgs& args);   // floats
int64_t AttentionBackwardScratchBf16(const AttentionArgs& args);  // floats
void AttentionForwardBlockBf16(const AttentionArgs& args, int64_t sequence, int64_t head, int64_t block,
                               float* scratch);
void AttentionBackwardHeadBf16(const AttentionArgs& args, int64_t sequence, int64_t head, float* group_gradients,
                               float* scratch);

// What they borrow from attention_kernels.cc.

// Where a block of keys meets a block of queries.
struct AttentionSquare {
  int64_t first_query = 0, queries = 0;
  int64_t first_key = 0, keys = 0;
};
// What dropout multiplies the square's probabilities by, transposed: factors[key * kAttentionBlock + query]; elements
// beyond its queries and keys are left as they are. scratch: AttentionFactorScratch floats.
void AttentionFactors(const AttentionArgs& args, int64_t sequence, int64_t head, const AttentionSquare& square,
                      float* factors, float* scratch);
constexpr int64_t AttentionFactorScratch() {
  return DropoutScratch(kAttentionBlock) + kAttentionBlock * kAttentionBlock;
}
// to[i] = maximum[i] log(2) + log(sum[i]). count is at most kAttentionBlock.
void LogSumExpOfBase2(const float* maximum, const float* sum, int64_t count, float* to);

}  // namespace accrue::cpu
