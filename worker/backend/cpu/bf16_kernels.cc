#include "worker/backend/cpu/bf16_kernels.h"

#include <cmath>

#include "common/check.h"
#include "hwy/base.h"

#if HWY_ARCH_X86_64
#include "worker/backend/cpu/bf16_dot-inl.h"

HWY_PUSH_ATTRIBUTES(ACCRUE_BF16_DOT_TARGET)
namespace accrue::cpu {
namespace {

using namespace bf16_dot;  // NOLINT: the vocabulary of this file

constexpr float kLog2E = 1.44269504f;
constexpr int64_t kStep = 2 * kLanes;

// 32 elements in binary32.
struct Halves {
  __m512 low, high;
};

// The first `count` of 32 lanes.
HWY_INLINE uint32_t FirstOf32(int64_t count) {
  return count >= kStep ? ~uint32_t{0} : (uint32_t{1} << count) - 1;
}

HWY_INLINE __m512 Widen(__m256i halves) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
// The lanes that are not in the mask are zero.
HWY_INLINE Halves LoadHalves(const Bf16* from, uint32_t mask) {
  const __m512i bits = _mm512_maskz_loadu_epi16(mask, from);
  return {Widen(_mm512_castsi512_si256(bits)), Widen(_mm512_extracti64x4_epi64(bits, 1))};
}
HWY_INLINE void StoreHalves(const Halves& values, Bf16* to, uint32_t mask) {
  _mm512_mask_storeu_epi16(to, mask, RoundTwo(values.low, values.high));
}

// f(in, out, mask) for every 32 elements of the rectangle's rows. Rows are too short for the processor to
// foresee the next: it is fetched two rows ahead.
template <typename F>
HWY_INLINE void ForHalves(const Tensor& from, const Tensor& to, const Rectangle& where, F f) {
  for (int64_t r = 0; r < where.rows; ++r) {
    const int64_t start = (where.first_row + r) * where.stride + where.first_column;
    const Bf16* in = static_cast<const Bf16*>(from.data) + start;
    Bf16* out = static_cast<Bf16*>(to.data) + start;
    const int64_t ahead = r + 2 < where.rows ? 2 * where.stride : 0;
    for (int64_t i = 0; i < where.columns; i += kStep) {
      _mm_prefetch(reinterpret_cast<const char*>(in + i + ahead), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(out + i + ahead), _MM_HINT_T0);
      f(in + i, out + i, FirstOf32(where.columns - i));
    }
  }
}

// 1 / x for x from 1 to 2^126, within 2^-22: a linear guess by the bits, three times improved.
HWY_INLINE __m512 Reciprocal(__m512 x) {
  const __m512 two = _mm512_set1_ps(2.0f);
  __m512 y = _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_set1_epi32(0x7EF311C7), _mm512_castps_si512(x)));
  for (int i = 0; i < 3; ++i) y = _mm512_mul_ps(y, _mm512_fnmadd_ps(x, y, two));
  return y;
}

// With 2u = z (kGelu1 + kGelu3 z^2): gelu_tanh(z) = z sigmoid(2u).
constexpr float kGelu1 = 1.5957691216057308f;  // 2 sqrt(2 / pi)
constexpr float kGelu3 = 1.5957691216057308f * 0.044715f;

HWY_INLINE __m512 GeluSigmoid(__m512 z, __m512 z_squared) {
  const __m512 slope =
      _mm512_fmadd_ps(z_squared, _mm512_set1_ps(-kGelu3 * kLog2E), _mm512_set1_ps(-kGelu1 * kLog2E));
  // Of the minimum's operands NaN comes through as the second.
  const __m512 power = Exp2(_mm512_min_ps(_mm512_set1_ps(125.0f), _mm512_mul_ps(z, slope)));
  return Reciprocal(_mm512_add_ps(_mm512_set1_ps(1.0f), power));
}
HWY_INLINE __m512 Gelu(__m512 z) { return _mm512_mul_ps(z, GeluSigmoid(z, _mm512_mul_ps(z, z))); }
// s + z s (1 - s) d(2u)/dz
HWY_INLINE __m512 GeluSlope(__m512 z) {
  const __m512 z_squared = _mm512_mul_ps(z, z);
  const __m512 s = GeluSigmoid(z, z_squared);
  const __m512 slope = _mm512_fmadd_ps(z_squared, _mm512_set1_ps(3 * kGelu3), _mm512_set1_ps(kGelu1));
  return _mm512_fmadd_ps(_mm512_mul_ps(z, _mm512_fnmadd_ps(s, s, s)), slope, s);
}

void Forward(const Tensor& z, const Tensor& y, const Rectangle& where) {
  ForHalves(z, y, where, [](const Bf16* in, Bf16* out, uint32_t mask) ACCRUE_BF16_DOT_ATTR {
    const Halves x = LoadHalves(in, mask);
    StoreHalves({Gelu(x.low), Gelu(x.high)}, out, mask);
  });
}

void Backward(const Tensor& z, const Tensor& dx, const Rectangle& where) {
  ForHalves(z, dx, where, [](const Bf16* in, Bf16* out, uint32_t mask) ACCRUE_BF16_DOT_ATTR {
    const Halves x = LoadHalves(in, mask), d = LoadHalves(out, mask);
    StoreHalves({_mm512_mul_ps(d.low, GeluSlope(x.low)), _mm512_mul_ps(d.high, GeluSlope(x.high))}, out,
                mask);
  });
}

float RowMaximum(const Bf16* row, int64_t count) {
  const __m512 least = _mm512_set1_ps(-HUGE_VALF);
  __m512 largest[2] = {least, least};
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    const Halves x = LoadHalves(row + i, ~uint32_t{0});
    largest[0] = _mm512_max_ps(largest[0], x.low);
    largest[1] = _mm512_max_ps(largest[1], x.high);
  }
  if (i < count) {
    const uint32_t mask = FirstOf32(count - i);
    const Halves x = LoadHalves(row + i, mask);
    largest[0] = _mm512_mask_max_ps(largest[0], static_cast<__mmask16>(mask), largest[0], x.low);
    largest[1] = _mm512_mask_max_ps(largest[1], static_cast<__mmask16>(mask >> 16), largest[1], x.high);
  }
  return _mm512_reduce_max_ps(_mm512_max_ps(largest[0], largest[1]));
}

HWY_INLINE __m512 Power(__m512 x, __m512 maximum) {
  return Exp2(_mm512_mul_ps(_mm512_sub_ps(x, maximum), _mm512_set1_ps(kLog2E)));
}

// Sum of e^(x - maximum): 16 at a time into four running vectors in turn.
float SumOfPowers(const Bf16* row, int64_t count, __m512 maximum) {
  __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  const auto add = [&](int64_t i, int at) ACCRUE_BF16_DOT_ATTR {
    const uint32_t mask = FirstOf32(count - i);
    const Halves x = LoadHalves(row + i, mask);
    sums[at] = _mm512_mask_add_ps(sums[at], static_cast<__mmask16>(mask), sums[at], Power(x.low, maximum));
    sums[at + 1] = _mm512_mask_add_ps(sums[at + 1], static_cast<__mmask16>(mask >> 16), sums[at + 1],
                                      Power(x.high, maximum));
  };
  int64_t i = 0;
  for (; i + 2 * kStep <= count; i += 2 * kStep) {
    add(i, 0);
    add(i + kStep, 2);
  }
  if (i < count) add(i, 0);
  if (i + kStep < count) add(i + kStep, 2);
  return SumOfLanes(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}

void CrossEntropy(const CrossEntropyArgs& args, int64_t r) {
  const int64_t width = args.vocabulary;
  Bf16* row = static_cast<Bf16*>(args.logits.data) + r * width;
  const int64_t target = args.targets[r];
  if (target < 0) {
    args.losses[r] = 0;
    if (args.write_gradient) __builtin_memset(row, 0, width * sizeof(Bf16));
    return;
  }
  const float target_logit = _mm512_cvtss_f32(LoadHalves(row + target, 1).low),
              largest = RowMaximum(row, width);
  const __m512 maximum = _mm512_set1_ps(largest);
  const float sum = SumOfPowers(row, width, maximum);
  args.losses[r] = std::log(double{sum}) + double{largest} - double{target_logit};
  if (!args.write_gradient) return;
  const __m512 inverse = _mm512_set1_ps(1.0f / sum);
  for (int64_t i = 0; i < width; i += kStep) {
    const uint32_t mask = FirstOf32(width - i);
    const Halves x = LoadHalves(row + i, mask);
    StoreHalves(
        {_mm512_mul_ps(Power(x.low, maximum), inverse), _mm512_mul_ps(Power(x.high, maximum), inverse)},
        row + i, mask);
  }
  const __m512 at_target = _mm512_mul_ps(Power(_mm512_set1_ps(target_logit), maximum), inverse);
  const __m512i rounded = RoundTwo(_mm512_sub_ps(at_target, _mm512_set1_ps(1.0f)), at_target);
  row[target].bits = static_cast<uint16_t>(_mm_extract_epi16(_mm512_castsi512_si128(rounded), 0));
}

}  // namespace
}  // namespace accrue::cpu
HWY_POP_ATTRIBUTES

namespace accrue::cpu {

void GeluForwardBf16(const Tensor& z, const Tensor& y, const Rectangle& where) { Forward(z, y, where); }
void GeluBackwardBf16(const Tensor& z, const Tensor& dx, const Rectangle& where) { Backward(z, dx, where); }
void CrossEntropyRowBf16(const CrossEntropyArgs& args, int64_t row) { CrossEntropy(args, row); }

}  // namespace accrue::cpu

#else

namespace accrue::cpu {

void GeluForwardBf16(const Tensor&, const Tensor&, const Rectangle&) { ACCRUE_CHECK(false); }
void GeluBackwardBf16(const Tensor&, const Tensor&, const Rectangle&) { ACCRUE_CHECK(false); }
void CrossEntropyRowBf16(const CrossEntropyArgs&, int64_t) { ACCRUE_CHECK(false); }

}  // namespace accrue::cpu
#endif
