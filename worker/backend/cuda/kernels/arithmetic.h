// The arithmetic that docs/numerics.md names, one rounding each, in the device's words and in the host's.
//
// The device's forms are never fused or flushed, whatever the compiler's flags. These few lines are all that
// differs between a kernel on the device and its body on the CPU.
#pragma once

#include <cmath>
#include <cstdint>

#include "worker/backend/cuda/kernels/body.h"

namespace accrue::cuda {

#ifdef __CUDA_ARCH__

ACCRUE_BODY float Add(float a, float b) { return __fadd_rn(a, b); }
ACCRUE_BODY float Sub(float a, float b) { return __fsub_rn(a, b); }
ACCRUE_BODY float Mul(float a, float b) { return __fmul_rn(a, b); }
ACCRUE_BODY float Div(float a, float b) { return __fdiv_rn(a, b); }
ACCRUE_BODY float Sqrt(float a) { return __fsqrt_rn(a); }
ACCRUE_BODY float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
ACCRUE_BODY double Add(double a, double b) { return __dadd_rn(a, b); }
ACCRUE_BODY double Mul(double a, double b) { return __dmul_rn(a, b); }
ACCRUE_BODY float ToFloat(int64_t a) { return __ll2float_rn(a); }
ACCRUE_BODY uint32_t BitsOf(float a) { return __float_as_uint(a); }
ACCRUE_BODY float FloatOf(uint32_t bits) { return __uint_as_float(bits); }
// Requires |a| < 2^63.
ACCRUE_BODY int64_t RoundInRange(double a) { return __double2ll_rn(a); }

#else

ACCRUE_BODY float Add(float a, float b) { return a + b; }
ACCRUE_BODY float Sub(float a, float b) { return a - b; }
ACCRUE_BODY float Mul(float a, float b) { return a * b; }
ACCRUE_BODY float Div(float a, float b) { return a / b; }
ACCRUE_BODY float Sqrt(float a) { return std::sqrt(a); }
ACCRUE_BODY float Fma(float a, float b, float c) { return std::fma(a, b, c); }
ACCRUE_BODY double Add(double a, double b) { return a + b; }
ACCRUE_BODY double Mul(double a, double b) { return a * b; }
ACCRUE_BODY float ToFloat(int64_t a) { return static_cast<float>(a); }
ACCRUE_BODY uint32_t BitsOf(float a) {
  uint32_t bits;
  __builtin_memcpy(&bits, &a, sizeof(bits));
  return bits;
}
ACCRUE_BODY float FloatOf(uint32_t bits) {
  float a;
  __builtin_memcpy(&a, &bits, sizeof(a));
  return a;
}
ACCRUE_BODY int64_t RoundInRange(double a) { return static_cast<int64_t>(std::nearbyint(a)); }

#endif

// Round to nearest even; what int64 cannot hold, NaN too, gives -2^63: docs/numerics.md, section 5.
ACCRUE_BODY int64_t RoundToInt64(double a) { return a > -0x1p63 && a < 0x1p63 ? RoundInRange(a) : INT64_MIN; }

}  // namespace accrue::cuda
