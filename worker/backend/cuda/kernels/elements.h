// Elements of every compute precision, and the functions of them that the model's elementwise operations
// share. Arithmetic is in binary32; an element of 16 bits is rounded to nearest even where it is stored:
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

// IEEE binary16.
struct F16 {
  uint16_t bits;
};

ACCRUE_BODY float ToFloat(float x) { return x; }
ACCRUE_BODY float ToFloat(Bf16 x) { return FloatOf(static_cast<uint32_t>(x.bits) << 16); }

// Exact.
ACCRUE_BODY float ToFloat(F16 x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#else
  // Read as a binary32, what is finite has an exponent that is 112 too small, a subnormal too.
  const uint32_t magnitude = x.bits & 0x7fffu, sign = (x.bits & 0x8000u) << 16;
  const uint32_t bits = BitsOf(Mul(FloatOf(magnitude << 13), 0x1p112f));
  return FloatOf(bits | sign | (magnitude >= 0x7c00 ? 0x7f800000 : 0) | (magnitude > 0x7c00 ? 0x400000 : 0));
#endif
}

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

// Subnormals included; beyond 65504 infinity. A NaN stays one.
template <>
ACCRUE_BODY F16 FromFloat<F16>(float x) {
#ifdef __CUDA_ARCH__
  F16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  const uint32_t bits = BitsOf(x), magnitude = bits & 0x7fffffff;
  uint32_t half = 0;
  if (magnitude > 0x7f800000) {
    half = 0x7e00;
  } else if (magnitude >= 0x47800000) {
    half = 0x7c00;
  } else if (magnitude >= 0x38800000) {
    half = ((magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13) - (112 << 10);
  } else {  // the spacing of binary32 from 1/2 on is that of binary16's subnormals
    half = BitsOf(Add(FloatOf(magnitude), 0.5f)) - 0x3f000000;
  }
  return {static_cast<uint16_t>(half | (bits >> 16 & 0x8000))};
#endif
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
