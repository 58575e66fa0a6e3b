// Dropout's factors: docs/numerics.md, section 4. Pure functions of the element's number.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/body.h"
#include "worker/backend/model_ops.h"

namespace accrue::cuda {

// A Dropout with what follows from it worked out on the host.
struct DropoutKey {
  uint64_t seed;
  uint32_t window, unit, site;
  uint32_t threshold;  // keeps words below it
  float scale;
  bool on;         // false: every factor is 1
  bool keeps_all;  // a probability too small to drop any word
};

inline DropoutKey KeyOf(const Dropout& dropout) {
  const uint64_t threshold = DropoutThreshold(dropout);
  return {dropout.seed,
          static_cast<uint32_t>(dropout.window),
          static_cast<uint32_t>(dropout.unit),
          dropout.site,
          static_cast<uint32_t>(threshold),
          DropoutScale(dropout),
          dropout.probability > 0,
          threshold > 0xffffffff};
}

ACCRUE_BODY float FactorOfWord(const DropoutKey& key, uint32_t word) {
  return key.keeps_all || word < key.threshold ? key.scale : 0.0f;
}

ACCRUE_BODY PhiloxBlock WordsOf(const DropoutKey& key, uint64_t block) {
  return Philox4x32(
      {static_cast<uint32_t>(block), key.window, key.unit, key.site ^ static_cast<uint32_t>(block >> 32)}, key.seed);
}

// values[n] *= the factor of element first + n. Requires key.on.
template <int kCount>
ACCRUE_BODY void Drop(const DropoutKey& key, int64_t first, float (&values)[kCount]) {
  constexpr int kBlock = 4;
  if (kCount % kBlock == 0 && first % kBlock == 0) {
    ACCRUE_UNROLL
    for (int n = 0; n < kCount; n += kBlock) {
      const PhiloxBlock words = WordsOf(key, static_cast<uint64_t>(first + n) / kBlock);
      ACCRUE_UNROLL
      for (int i = 0; i < kBlock && n + i < kCount; ++i) {
        values[n + i] = Mul(values[n + i], FactorOfWord(key, words[i]));
      }
    }
    return;
  }
  if (kCount == 2 && first % 2 == 0) {
    const PhiloxBlock words = WordsOf(key, static_cast<uint64_t>(first) / kBlock);
    const bool upper = first % kBlock != 0;
    values[0] = Mul(values[0], FactorOfWord(key, upper ? words[2] : words[0]));
    values[kCount - 1] = Mul(values[kCount - 1], FactorOfWord(key, upper ? words[3] : words[1]));
    return;
  }
  for (int n = 0; n < kCount; ++n) {
    const uint64_t e = static_cast<uint64_t>(first + n);
    const PhiloxBlock words = WordsOf(key, e / kBlock);
    const int at = static_cast<int>(e % kBlock);
    const uint32_t word = at == 0 ? words[0] : at == 1 ? words[1] : at == 2 ? words[2] : words[3];
    values[n] = Mul(values[n], FactorOfWord(key, word));
  }
}

}  // namespace accrue::cuda
