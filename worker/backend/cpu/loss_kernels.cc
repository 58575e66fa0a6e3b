#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/backend/cpu/loss_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target:
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "common/check.h"
#include "worker/backend/cpu/bf16_kernels.h"
#include "worker/backend/cpu/kernels.h"
#include "worker/backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace accrue::cpu::HWY_NAMESPACE {
namespace {

// A vector of partial maxima and one of partial sums hide the latency of one chain behind three others.
template <typename T>
float RowMaximum(const T* row, int64_t count) {
  VF m0 = Load(row), m1 = m0, m2 = m0, m3 = m0;
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    m0 = hn::Max(m0, Load(row + i));
    m1 = hn::Max(m1, Load(row + i + kLanes));
    m2 = hn::Max(m2, Load(row + i + 2 * kLanes));
    m3 = hn::Max(m3, Load(row + i + 3 * kLanes));
  }
  for (; i + kLanes <= count; i += kLanes) m0 = hn::Max(m0, Load(row + i));
  if (i < count) m0 = hn::Max(m0, Load(row + count - kLanes));
  return hn::GetLane(hn::MaxOfLanes(DF(), hn::Max(hn::Max(m0, m1), hn::Max(m2, m3))));
}

template <typename T>
float ShortRowMaximum(const T* row, int64_t count) {
  HWY_ALIGN float lanes[kLanes];
  Store(LoadN(row, count), lanes);
  return *std::max_element(lanes, lanes + count);
}

template <typename T>
void CrossEntropyOf(const CrossEntropyArgs& args, int64_t r) {
  const int64_t width = args.vocabulary;
  T* row = static_cast<T*>(args.logits.data) + r * width;
  const int64_t target = args.targets[r];
  if (target < 0) {
    args.losses[r] = 0;
    if (args.write_gradient) std::fill(row, row + width, T{});
    return;
  }
  const float maximum = width < kLanes ? ShortRowMaximum(row, width) : RowMaximum(row, width);
  const VF shift = hn::Set(DF(), maximum);
  HWY_ALIGN float lanes[kLanes];
  Store(LoadN(row + target, 1), lanes);
  const float target_logit = lanes[0];
  constexpr bool kKeepExponentials = std::is_same_v<T, float>;  // 16 bits would round them
  const float sum = SumVectors(width, [&](int64_t i, int64_t n) HWY_ATTR {
    const VF e = Exp(hn::Sub(LoadN(row + i, n), shift));
    if (kKeepExponentials && args.write_gradient) StoreN(e, row + i, n);
    return e;
  });
  args.losses[r] = std::log(static_cast<double>(sum)) + static_cast<double>(maximum) - static_cast<double>(target_logit);
  if (!args.write_gradient) return;
  const VF inverse = hn::Set(DF(), 1.0f / sum), scale = hn::Set(DF(), args.gradient_scale);
  ForVectors(width, [&](int64_t i, int64_t n) HWY_ATTR {
    VF e = LoadN(row + i, n);
    if (!kKeepExponentials) e = Exp(hn::Sub(e, shift));
    const VF probability = hn::Mul(e, inverse);
    const int64_t at = target - i;
    if (at < 0 || at >= n) return StoreN(hn::Mul(probability, scale), row + i, n);
    const auto is_target = hn::Eq(hn::Iota(DF(), 0), hn::Set(DF(), static_cast<float>(at)));
    const VF less = hn::Sub(probability, hn::Set(DF(), 1.0f));
    StoreN(hn::Mul(hn::IfThenElse(is_target, less, probability), scale), row + i, n);
  });
}

void CrossEntropyRow(const CrossEntropyArgs& args, int64_t row) {
  WithElement(args.logits.dtype, [&](auto* type) HWY_ATTR {
    CrossEntropyOf<std::remove_pointer_t<decltype(type)>>(args, row);
  });
}

}  // namespace
}  // namespace accrue::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace accrue::cpu {

HWY_EXPORT(CrossEntropyRow);

void CrossEntropyRow(const CrossEntropyArgs& args, int64_t row) {
  if (args.logits.dtype == DType::kBF16 && HasBf16Dot()) {
    ACCRUE_CHECK(args.gradient_scale == 1);  // bf16 has no loss scale
    return CrossEntropyRowBf16(args, row);
  }
  HWY_DYNAMIC_DISPATCH(CrossEntropyRow)(args, row);
}

}  // namespace accrue::cpu
#endif
