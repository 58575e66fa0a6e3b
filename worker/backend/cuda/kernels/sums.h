// Where a norm or an update takes its s from: the reduced int64 sums, or fast mode's binary32 sums.
// docs/numerics.md, section 7, item 1.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/arithmetic.h"

namespace accrue::cuda {

struct Sums {
  const int64_t* exact;  // null: fast mode
  const float* fast;     // null: exact mode
  float scale;           // exact mode: 2^-k
};

template <bool kExact>
ACCRUE_BODY float ScaledSum(const Sums& sums, int64_t i) {
  if constexpr (kExact) return Mul(ToFloat(sums.exact[i]), sums.scale);
  return sums.fast[i];
}

}  // namespace accrue::cuda
