#include "worker/backend/cpu_state/kernels.h"

// SSSE3 and AVX3_DL would add code without a gain; vectors here have a size known to the compiler.
#include <hwy/detect_targets.h>
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/backend/cpu_state/kernels.cc"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace accrue::cpu_state {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Kernels that widen run on as many lanes as a vector of 64-bit values has; the others on all binary32 lanes.
using F64 = hn::ScalableTag<double>;
using I64 = hn::ScalableTag<int64_t>;
using U64 = hn::ScalableTag<uint64_t>;
using Half = hn::Rebind<float, F64>;
using HalfI = hn::Rebind<int32_t, F64>;
using F32 = hn::ScalableTag<float>;
using I32 = hn::ScalableTag<int32_t>;
constexpr F64 f64;
constexpr I64 i64;
constexpr U64 u64;
constexpr Half half;
constexpr HalfI half_i;
constexpr F32 f32;
constexpr I32 i32;
constexpr size_t kWide = hn::MaxLanes(f64);
constexpr size_t kNarrow = hn::MaxLanes(f32);
static_assert(kKernelStep % kNarrow == 0 && kKernelStep % kWide == 0);

// Round to nearest even; what int64 cannot hold, and NaN, gives -2^63.
HWY_INLINE hn::Vec<I64> RoundToInt64(hn::Vec<F64> x) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  return hn::Vec<I64>{_mm512_cvtpd_epi64(x.raw)};
#else
  // x = high * 2^32 + low without error (x has 24 significant bits); each is rounded by adding 1.5 * 2^52,
  // which leaves the integer in the low bits of the pattern. high * 2^32 is even, so rounding low rounds x.
  const auto magic = hn::Set(f64, 6755399441055744.0);
  const auto high = hn::Sub(hn::Add(hn::Mul(x, hn::Set(f64, 0x1p-32)), magic), magic);
  const auto low = hn::Sub(x, hn::Mul(high, hn::Set(f64, 0x1p32)));
  const auto magic_bits = hn::BitCast(i64, magic);
  const auto high_int = hn::Sub(hn::BitCast(i64, hn::Add(high, magic)), magic_bits);
  const auto low_int = hn::Sub(hn::BitCast(i64, hn::Add(low, magic)), magic_bits);
  const auto rounded = hn::Add(hn::ShiftLeft<32>(high_int), low_int);
  const auto fits = hn::RebindMask(i64, hn::Lt(hn::Abs(x), hn::Set(f64, 0x1p63)));
  return hn::IfThenElse(fits, rounded, hn::Set(i64, INT64_MIN));
#endif
}

// One rounding.
HWY_INLINE hn::Vec<Half> ToFloatOnce(hn::Vec<I64> value) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  return hn::Vec<Half>{_mm512_cvtepi64_ps(value.raw)};
#else
  // From 2^53 on, the low 11 bits become one sticky bit, far below those that binary32 rounds at: binary64
  // then holds the value exactly and the second conversion alone rounds.
  const auto low = hn::Set(i64, 0x7ff);
  const auto sticky = hn::AndNot(low, hn::Or(value, hn::Add(hn::And(value, low), low)));
  const auto size = hn::BitCast(u64, hn::Xor(value, hn::BroadcastSignBit(value)));
  const auto small = hn::Eq(hn::ShiftRight<53>(size), hn::Zero(u64));
  const auto exact = hn::IfThenElse(hn::RebindMask(i64, small), value, sticky);
  return hn::DemoteTo(half, hn::ConvertTo(f64, exact));
#endif
}

// a * b modulo 2^64
HWY_INLINE hn::Vec<U64> MultiplyLow(hn::Vec<U64> a, hn::Vec<U64> b) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  return hn::Vec<U64>{_mm512_mullo_epi64(a.raw, b.raw)};
#elif HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
  HWY_ALIGN uint64_t left[kWide], right[kWide];
  hn::Store(a, u64, left);
  hn::Store(b, u64, right);
  for (size_t i = 0; i < kWide; ++i) left[i] *= right[i];
  return hn::Load(u64, left);
#else
  const hn::Repartition<uint32_t, U64> u32;
  const auto even = [&](hn::Vec<U64> x, hn::Vec<U64> y) {
    return hn::MulEven(hn::BitCast(u32, x), hn::BitCast(u32, y));
  };
  const auto cross = hn::Add(even(hn::ShiftRight<32>(a), b), even(a, hn::ShiftRight<32>(b)));
  return hn::Add(even(a, b), hn::ShiftLeft<32>(cross));
#endif
}

template <typename Tag>
HWY_INLINE hn::Vec<hn::RebindToSigned<Tag>> AbsBits(Tag tag, hn::Vec<Tag> x) {
  return hn::BitCast(hn::RebindToSigned<Tag>(), hn::Abs(x));
}

uint64_t Sum(hn::Vec<U64> x) {
  HWY_ALIGN uint64_t lanes[kWide];
  hn::Store(x, u64, lanes);
  uint64_t sum = 0;
  for (uint64_t lane : lanes) sum += lane;
  return sum;
}

template <typename Tag>
uint32_t Largest(Tag tag, hn::Vec<Tag> x) {
  HWY_ALIGN int32_t lanes[hn::MaxLanes(Tag())];
  hn::Store(x, tag, lanes);
  int32_t largest = 0;
  for (int32_t lane : lanes) largest = lane > largest ? lane : largest;
  return static_cast<uint32_t>(largest);
}

enum class Sums { kStore, kAdd, kNone };

template <Sums kSums>
HWY_INLINE GradientScan QuantizeAddLoop(const float* gradient, int64_t count, double scale,
                                        const uint64_t* weights, int64_t* accumulator) {
  const auto factor = hn::Set(f64, scale);
  auto largest = hn::Zero(half_i);
  auto vanished = hn::Zero(u64), sum = hn::Zero(u64);
  for (int64_t i = 0; i < count; i += kWide) {
    const auto g = hn::LoadU(half, gradient + i);
    largest = hn::Max(largest, AbsBits(half, g));
    const auto wide = hn::PromoteTo(f64, g);
    const auto q = RoundToInt64(hn::Mul(wide, factor));
    const auto nonzero = hn::VecFromMask(i64, hn::RebindMask(i64, hn::Ne(wide, hn::Zero(f64))));
    const auto lost = hn::And(nonzero, hn::VecFromMask(i64, hn::Eq(q, hn::Zero(i64))));
    vanished = hn::Sub(vanished, hn::BitCast(u64, lost));  // the mask is -1
    sum = hn::Add(sum, MultiplyLow(hn::BitCast(u64, q), hn::LoadU(u64, weights + i)));
    if constexpr (kSums == Sums::kStore) hn::StoreU(q, i64, accumulator + i);
    if constexpr (kSums == Sums::kAdd) {
      hn::StoreU(hn::Add(hn::LoadU(i64, accumulator + i), q), i64, accumulator + i);
    }
  }
  return {Largest(half_i, largest), static_cast<int64_t>(Sum(vanished)), Sum(sum)};
}

GradientScan QuantizeAdd(const float* gradient, int64_t count, double scale, bool first,
                         const uint64_t* weights, int64_t* accumulator) {
  if (accumulator == nullptr) return QuantizeAddLoop<Sums::kNone>(gradient, count, scale, weights, nullptr);
  return first ? QuantizeAddLoop<Sums::kStore>(gradient, count, scale, weights, accumulator)
               : QuantizeAddLoop<Sums::kAdd>(gradient, count, scale, weights, accumulator);
}

GradientScan Inspect(const float* gradient, int64_t count) {
  auto largest = hn::Zero(i32);
  for (int64_t i = 0; i < count; i += kNarrow)
    largest = hn::Max(largest, AbsBits(f32, hn::LoadU(f32, gradient + i)));
  return {Largest(i32, largest), 0, 0};
}

template <bool kFirst>
HWY_INLINE GradientScan FloatAddLoop(const float* gradient, int64_t count, float* accumulator) {
  auto largest = hn::Zero(i32);
  for (int64_t i = 0; i < count; i += kNarrow) {
    const auto g = hn::LoadU(f32, gradient + i);
    largest = hn::Max(largest, AbsBits(f32, g));
    hn::StoreU(kFirst ? g : hn::Add(hn::LoadU(f32, accumulator + i), g), f32, accumulator + i);
  }
  return {Largest(i32, largest), 0, 0};
}

GradientScan FloatAdd(const float* gradient, int64_t count, bool first, float* accumulator) {
  return first ? FloatAddLoop<true>(gradient, count, accumulator)
               : FloatAddLoop<false>(gradient, count, accumulator);
}

uint64_t WeightedSum(const int64_t* values, int64_t count, const uint64_t* weights) {
  auto sum = hn::Zero(u64);
  for (int64_t i = 0; i < count; i += kWide) {
    sum =
        hn::Add(sum, MultiplyLow(hn::BitCast(u64, hn::LoadU(i64, values + i)), hn::LoadU(u64, weights + i)));
  }
  return Sum(sum);
}

void ToFloat(const int64_t* sums, int64_t count, float scale, float* out) {
  const auto factor = hn::Set(half, scale);
  for (int64_t i = 0; i < count; i += kWide) {
    hn::StoreU(hn::Mul(ToFloatOnce(hn::LoadU(i64, sums + i)), factor), half, out + i);
  }
}

void SquareSums(const float* values, int64_t count, double partials[16]) {
  constexpr size_t kParts = kKernelStep / kWide;
  hn::Vec<F64> sums[kParts];
  for (size_t part = 0; part < kParts; ++part) sums[part] = hn::LoadU(f64, partials + part * kWide);
  for (int64_t i = 0; i < count; i += kKernelStep) {
    for (size_t part = 0; part < kParts; ++part) {
      const auto wide = hn::PromoteTo(f64, hn::LoadU(half, values + i + part * kWide));
      sums[part] = hn::Add(sums[part], hn::Mul(wide, wide));
    }
  }
  for (size_t part = 0; part < kParts; ++part) hn::StoreU(sums[part], f64, partials + part * kWide);
}

void AdamW(const float* sums, int64_t count, const UpdateArgs& args, float* p, float* m, float* v) {
  const auto scale = hn::Set(f32, args.scale);
  const auto b1 = hn::Set(f32, args.beta1), b2 = hn::Set(f32, args.beta2);
  const auto one_minus_b1 = hn::Set(f32, args.one_minus_beta1),
             one_minus_b2 = hn::Set(f32, args.one_minus_beta2);
  const auto c1 = hn::Set(f32, args.bias_correction1), c2 = hn::Set(f32, args.bias_correction2);
  const auto rate = hn::Set(f32, args.learning_rate), epsilon = hn::Set(f32, args.epsilon);
  const auto decay = hn::Set(f32, args.weight_decay);
  for (int64_t i = 0; i < count; i += kNarrow) {
    const auto g = hn::Mul(hn::LoadU(f32, sums + i), scale);
    const auto first = hn::Add(hn::Mul(b1, hn::LoadU(f32, m + i)), hn::Mul(one_minus_b1, g));
    const auto second = hn::Add(hn::Mul(b2, hn::LoadU(f32, v + i)), hn::Mul(hn::Mul(one_minus_b2, g), g));
    hn::StoreU(first, f32, m + i);
    hn::StoreU(second, f32, v + i);
    const auto root = hn::Sqrt(hn::Div(second, c2));
    const auto step = hn::Div(hn::Div(first, c1), hn::Add(root, epsilon));
    const auto old = hn::LoadU(f32, p + i);
    hn::StoreU(hn::Sub(old, hn::Mul(rate, hn::Add(step, hn::Mul(decay, old)))), f32, p + i);
  }
}

void Sgd(const float* sums, int64_t count, const UpdateArgs& args, float* p, float* m) {
  const auto scale = hn::Set(f32, args.scale), decay = hn::Set(f32, args.weight_decay);
  const auto momentum = hn::Set(f32, args.momentum), rate = hn::Set(f32, args.learning_rate);
  for (int64_t i = 0; i < count; i += kNarrow) {
    const auto old = hn::LoadU(f32, p + i);
    const auto g = hn::Mul(hn::LoadU(f32, sums + i), scale);
    const auto u = hn::Add(g, hn::Mul(decay, old));
    const auto moment = hn::Add(hn::Mul(momentum, hn::LoadU(f32, m + i)), u);
    hn::StoreU(moment, f32, m + i);
    hn::StoreU(hn::Sub(old, hn::Mul(rate, moment)), f32, p + i);
  }
}

const Kernels* Table() {
  static constexpr Kernels table = {QuantizeAdd, Inspect,    FloatAdd, WeightedSum,
                                    ToFloat,     SquareSums, AdamW,    Sgd};
  return &table;
}

}  // namespace HWY_NAMESPACE
}  // namespace accrue::cpu_state
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace accrue::cpu_state {

HWY_EXPORT(Table);

const Kernels& BestKernels() { return *HWY_DYNAMIC_DISPATCH(Table)(); }

}  // namespace accrue::cpu_state
#endif
