// Elements of either compute precision, and the functions of them that the model's elementwise operations
// share. Arithmetic is in binary32; a bf16 element is rounded to nearest even where it is stored:
// docs/numerics.md, section 4.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/arithmetic.h"
#include "worker/backend/cuda/kernels/memory.h"
#include "worker/backend/model_ops.h"

namespace accrue::cuda {

struct Bf16 {
  uint16_t bits;
};

ACCRUE_BODY float ToFloat(float x) { return x; }
ACCRUE_BODY float ToFloat(Bf16 x) { return FloatOf(static_cast<uint32_t>(x.bits) << 16); }

template <typename T>
ACCRUE_BODY T FromFloat(float x);
template <>
ACCRUE_BODY float FromFloat<float>(float x) {
  return x;
}
// A NaN stays one, made quiet.
template <>
ACCRUE_BODY Bf16 FromFloat<Bf16>(float x) {
  const uint32_t bits = BitsOf(x);
  const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  const uint32_t chosen = is_nan ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
  return {static_cast<uint16_t>(chosen >> 16)};
}

// e^x within 2 ulp, in the CPU kernels' steps (worker/backend/cpu/simd-inl.h): 0 below 2^-126, infinity above
// 2^127.5.
ACCRUE_BODY float Exp(float x) {
  const float shift = 12582912.0f;  // adding 1.5 * 2^23 leaves the nearest integer in the low bits
  const float shifted = Fma(x, 1.44269504f, shift);
  const float n = Sub(shifted, shift);
  float r = Fma(-n, 0.693359375f, x);
  r = Fma(-n, -2.12194440e-4f, r);
  float p = Fma(1.9875691500e-4f, r, 1.3981999507e-3f);
  p = Fma(p, r, 8.3334519073e-3f);
  p = Fma(p, r, 4.1665795894e-2f);
  p = Fma(p, r, 1.6666665459e-1f);
  p = Fma(p, r, 5.0000001201e-1f);
  p = Add(Fma(p, Mul(r, r), r), 1.0f);
  const float result = Mul(p, FloatOf((BitsOf(shifted) + 127) << 23));
  if (x > 88.37626f) return FloatOf(0x7f800000);
  return x < -87.33654f ? 0.0f : result;
}

// 1 / (1 + e^-x)
ACCRUE_BODY float Sigmoid(float x) { return Div(1.0f, Add(1.0f, Exp(-x))); }

}  // namespace accrue::cuda
