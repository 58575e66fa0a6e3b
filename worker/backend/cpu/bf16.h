// bfloat16 and binary16 as they lie in memory. Kernels compute in binary32 and round to nearest even when they store.
#pragma once

#include <cstdint>

#include "common/check.h"
#include "worker/backend/model_ops.h"

namespace accrue::cpu {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

// Calls f with a null pointer of the tensor type's element, so that one template serves all.
template <typename F>
auto WithElement(DType dtype, F f) {
  if (dtype == DType::kF32) return f(static_cast<float*>(nullptr));
  if (dtype == DType::kF16) return f(static_cast<F16*>(nullptr));
  return f(static_cast<Bf16*>(nullptr));
}

}  // namespace accrue::cpu
