// Values that find wrong roundings, for tests of state operations.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/exponents.h"
#include "common/philox.h"
#include "worker/backend/state_ops.h"

namespace accrue {

// Values over many magnitudes, both signs, with zeros, ties and subnormals among them.
inline std::vector<float> Gradient(int64_t elements, uint64_t seed) {
  std::vector<float> values(elements);
  for (int64_t i = 0; i < elements; ++i) {
    const PhiloxBlock random = Philox4x32({static_cast<uint32_t>(i), 0, 0, 0}, seed);
    const float mantissa = static_cast<float>(random[0] >> 8) * 0x1p-24f;
    const int exponent = static_cast<int>(random[1] % 60) - 50;
    values[i] = std::ldexp(random[2] & 1 ? mantissa : -mantissa, exponent);
    if (random[3] % 16 == 0) values[i] = 0;
    if (random[3] % 16 == 1) values[i] = -0.0f;
    if (random[3] % 16 == 2) values[i] = std::ldexp(static_cast<float>(random[0] % 64) + 0.5f, -30);  // ties
    if (random[3] % 64 == 3) values[i] = std::bit_cast<float>(random[0] & 0x807fffff);  // subnormal
  }
  return values;
}

inline std::vector<int64_t> Sums(int64_t elements, uint64_t seed) {
  std::vector<int64_t> values(elements);
  for (int64_t i = 0; i < elements; ++i) {
    const uint64_t random = SplitMix64(seed + static_cast<uint64_t>(i));
    values[i] = static_cast<int64_t>(random) >> (SplitMix64(random) % 64);
    // The neighbourhood of binary32 ties and of 2^53, where two roundings would differ from one.
    if (i % 7 == 0) values[i] = (int64_t{1} << (54 + i % 9)) + (int64_t{1} << (30 + i % 9)) + (i % 3) - 1;
    if (i % 14 == 0) values[i] = -values[i];
    if (i % 31 == 0) values[i] = INT64_MIN + i % 2;
    if (i % 37 == 0) values[i] = INT64_MAX - i;
  }
  return values;
}

inline constexpr int64_t kSizes[] = {
    1, 7, 15, 16, 17, 1000, 1024, 1039, kChunkElements, kChunkElements + 1, 3 * kChunkElements + 333};

inline UpdateArgs Args(OptimizerKind kind) {
  return {.kind = kind,
          .learning_rate = 1e-3f,
          .beta1 = 0.9f,
          .beta2 = 0.95f,
          .one_minus_beta1 = 0.1f,
          .one_minus_beta2 = 0.05f,
          .epsilon = 1e-8f,
          .weight_decay = 0.1f,
          .bias_correction1 = 0.19f,
          .bias_correction2 = 0.0975f,
          .momentum = 0.9f,
          .scale = 0x1.8p-9f};
}

}  // namespace accrue
