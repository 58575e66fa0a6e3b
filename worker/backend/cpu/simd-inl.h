// Vector helpers that every kernel file shares; included once per instruction set (Highway's foreach_target).
//
// Invariant: a row's result depends on its length and the instruction set alone. Tails are loaded with zeros and
// enter the same lanes, whatever the task they are in.
#if defined(ACCRUE_WORKER_BACKEND_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ACCRUE_WORKER_BACKEND_CPU_SIMD_INL_H_
#undef ACCRUE_WORKER_BACKEND_CPU_SIMD_INL_H_
#else
#define ACCRUE_WORKER_BACKEND_CPU_SIMD_INL_H_
#endif

#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "worker/backend/cpu/bf16.h"

HWY_BEFORE_NAMESPACE();
namespace accrue::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DU = hn::ScalableTag<uint32_t>;
using DI = hn::ScalableTag<int32_t>;
using VF = hn::Vec<DF>;
using VU = hn::Vec<DU>;

constexpr int64_t kLanes = HWY_LANES(float);

HWY_INLINE VF Load(const float* p) { return hn::LoadU(DF(), p); }
HWY_INLINE VF Load(const Bf16* p) {
  const hn::Rebind<uint16_t, DF> half;
  const auto bits = hn::LoadU(half, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(DF(), hn::ShiftLeft<16>(hn::PromoteTo(DU(), bits)));
}

HWY_INLINE void Store(VF v, float* p) { hn::StoreU(v, DF(), p); }
// Round to nearest even; NaN stays NaN (quiet).
HWY_INLINE void Store(VF v, Bf16* p) {
  const hn::Rebind<uint16_t, DF> half;
  const VU bits = hn::BitCast(DU(), v);
  const VU odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(DU(), 1));
  const VU rounded = hn::Add(hn::Add(bits, hn::Set(DU(), 0x7FFF)), odd);
  const VU quiet = hn::Or(bits, hn::Set(DU(), 0x400000));
  const VU chosen = hn::IfThenElse(hn::RebindMask(DU(), hn::IsNaN(v)), quiet, rounded);
  const auto high = hn::BitCast(DI(), hn::ShiftRight<16>(chosen));
  hn::StoreU(hn::DemoteTo(half, high), half, reinterpret_cast<uint16_t*>(p));
}

// Whether the instruction set converts binary16 itself: the bits are the same.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
#define ACCRUE_CPU_CONVERTS_F16 1
#else
#define ACCRUE_CPU_CONVERTS_F16 0
#endif

// Exact; NaN becomes quiet.
HWY_INLINE VF LoadByArithmetic(const F16* p) {
  const hn::Rebind<uint16_t, DF> half;
  const VU bits = hn::PromoteTo(DU(), hn::LoadU(half, reinterpret_cast<const uint16_t*>(p)));
  const VU magnitude = hn::And(bits, hn::Set(DU(), 0x7FFF));
  // Read as a binary32 its exponent is 112 too small, a subnormal's too.
  const VF scaled = hn::Mul(hn::BitCast(DF(), hn::ShiftLeft<13>(magnitude)), hn::Set(DF(), 0x1p112f));
  const DI d;
  const auto signed_magnitude = hn::BitCast(d, magnitude);
  const VU special = hn::VecFromMask(DU(), hn::RebindMask(DU(), hn::Gt(signed_magnitude, hn::Set(d, 0x7BFF))));
  const VU nan = hn::VecFromMask(DU(), hn::RebindMask(DU(), hn::Gt(signed_magnitude, hn::Set(d, 0x7C00))));
  VU result = hn::Or(hn::BitCast(DU(), scaled), hn::And(special, hn::Set(DU(), 0x7F800000)));
  result = hn::Or(result, hn::And(nan, hn::Set(DU(), 0x400000)));
  return hn::BitCast(DF(), hn::Or(result, hn::ShiftLeft<16>(hn::And(bits, hn::Set(DU(), 0x8000)))));
}
// Round to nearest even, subnormals included; beyond 65504 infinity; NaN stays NaN (quiet).
HWY_INLINE void StoreByArithmetic(VF v, F16* p) {
  const hn::Rebind<uint16_t, DF> half;
  const DI d;
  const VU bits = hn::BitCast(DU(), v);
  const VU magnitude = hn::And(bits, hn::Set(DU(), 0x7FFFFFFF));
  const auto signed_magnitude = hn::BitCast(d, magnitude);
  const VU odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(DU(), 1));
  const VU normal = hn::Sub(hn::ShiftRight<13>(hn::Add(hn::Add(magnitude, hn::Set(DU(), 0xFFF)), odd)),
                            hn::Set(DU(), 112 << 10));
  // The spacing of binary32 from 1/2 on is 2^-24, that of binary16's subnormals.
  const VF half_more = hn::Add(hn::BitCast(DF(), magnitude), hn::Set(DF(), 0.5f));
  const VU subnormal = hn::Sub(hn::BitCast(DU(), half_more), hn::Set(DU(), 0x3F000000));
  const VU nan = hn::Or(hn::And(hn::ShiftRight<13>(magnitude), hn::Set(DU(), 0x3FF)), hn::Set(DU(), 0x7E00));
  const auto choose = [&](auto mask, VU yes, VU no) HWY_ATTR {
    return hn::IfThenElse(hn::RebindMask(DU(), mask), yes, no);
  };
  VU result = choose(hn::Lt(signed_magnitude, hn::Set(d, 0x38800000)), subnormal, normal);
  result = choose(hn::Gt(signed_magnitude, hn::Set(d, 0x477FFFFF)), hn::Set(DU(), 0x7C00), result);
  result = choose(hn::Gt(signed_magnitude, hn::Set(d, 0x7F800000)), nan, result);
  result = hn::Or(result, hn::And(hn::ShiftRight<16>(bits), hn::Set(DU(), 0x8000)));
  hn::StoreU(hn::DemoteTo(half, hn::BitCast(d, result)), half, reinterpret_cast<uint16_t*>(p));
}

#if ACCRUE_CPU_CONVERTS_F16
HWY_INLINE VF Load(const F16* p) {
  const hn::Rebind<hwy::float16_t, DF> half;
  return hn::PromoteTo(DF(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
}
HWY_INLINE void Store(VF v, F16* p) {
  const hn::Rebind<hwy::float16_t, DF> half;
  hn::StoreU(hn::DemoteTo(half, v), half, reinterpret_cast<hwy::float16_t*>(p));
}
#else
HWY_INLINE VF Load(const F16* p) { return LoadByArithmetic(p); }
HWY_INLINE void Store(VF v, F16* p) { StoreByArithmetic(v, p); }
#endif
#undef ACCRUE_CPU_CONVERTS_F16

// The first `count` lanes, 1 to kLanes; the others are zero.
template <typename T>
HWY_INLINE VF LoadN(const T* p, int64_t count) {
  if (count == kLanes) return Load(p);
  HWY_ALIGN T lanes[kLanes] = {};
  std::memcpy(lanes, p, count * sizeof(T));
  return Load(lanes);
}
template <typename T>
HWY_INLINE void StoreN(VF v, T* p, int64_t count) {
  if (count == kLanes) return Store(v, p);
  HWY_ALIGN T lanes[kLanes];
  Store(v, lanes);
  std::memcpy(p, lanes, count * sizeof(T));
}

// f(i, count) for every vector of [0, n): count is kLanes but for the last.
template <typename F>
HWY_INLINE void ForVectors(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, n - i);
}

// Sum over [0, n) of f(i, count), which yields the vector at i. Four running vectors, then a fixed tree.
template <typename F>
HWY_INLINE float SumVectors(int64_t n, F f) {
  VF s0 = hn::Zero(DF()), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 = hn::Add(s0, f(i, kLanes));
    s1 = hn::Add(s1, f(i + kLanes, kLanes));
    s2 = hn::Add(s2, f(i + 2 * kLanes, kLanes));
    s3 = hn::Add(s3, f(i + 3 * kLanes, kLanes));
  }
  for (; i + kLanes <= n; i += kLanes) s0 = hn::Add(s0, f(i, kLanes));
  if (i < n) s1 = hn::Add(s1, hn::IfThenElseZero(hn::FirstN(DF(), n - i), f(i, n - i)));
  return hn::GetLane(hn::SumOfLanes(DF(), hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

// e^x within 2 ulp; 0 below 2^-126, infinity above 2^127.5; NaN stays NaN.
// Source: the range reduction and polynomial of Cephes' expf.
HWY_INLINE VF Exp(VF x) {
  const DF d;
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
  const VF shift = hn::Set(d, 12582912.0f);
  const VF shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), shift);
  const VF n = hn::Sub(shifted, shift);
  VF r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  VF p = hn::MulAdd(hn::Set(d, 1.9875691500e-4f), r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  // The shift's own bits fall out at the top; 127 is the exponent's bias.
  const VU exponent = hn::ShiftLeft<23>(hn::Add(hn::BitCast(DU(), shifted), hn::Set(DU(), 127)));
  const VF result = hn::Mul(p, hn::BitCast(d, exponent));
  const VF bounded = hn::IfThenElse(hn::Gt(x, hn::Set(d, 88.37626f)), hn::Inf(d), result);
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.33654f)), bounded);
}

// 1 / (1 + e^-x)
HWY_INLINE VF Sigmoid(VF x) {
  const VF one = hn::Set(DF(), 1.0f);
  return hn::Div(one, hn::Add(one, Exp(hn::Neg(x))));
}

}  // namespace accrue::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
