// Dropout's factors, a vector of blocks at a time; included once per instruction set.
#if defined(ACCRUE_WORKER_BACKEND_CPU_DROPOUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ACCRUE_WORKER_BACKEND_CPU_DROPOUT_INL_H_
#undef ACCRUE_WORKER_BACKEND_CPU_DROPOUT_INL_H_
#else
#define ACCRUE_WORKER_BACKEND_CPU_DROPOUT_INL_H_
#endif

#include "worker/backend/cpu/simd-inl.h"
#include "worker/backend/model_ops.h"

HWY_BEFORE_NAMESPACE();
namespace accrue::cpu::HWY_NAMESPACE {

// High and low words of the 64-bit products.
HWY_INLINE void MultiplyWide(VU a, VU b, VU& high, VU& low) {
  const hn::ScalableTag<uint64_t> wide;
  const auto even = hn::MulEven(a, b);
  const auto odd = hn::MulEven(hn::BitCast(DU(), hn::ShiftRight<32>(hn::BitCast(wide, a))),
                               hn::BitCast(DU(), hn::ShiftRight<32>(hn::BitCast(wide, b))));
  high = hn::OddEven(hn::BitCast(DU(), odd), hn::BitCast(DU(), hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(DU(), hn::ShiftLeft<32>(odd)), hn::BitCast(DU(), even));
}

// factors[i] = what element first + i is multiplied by, for i in [0, count); the return value points to it, in
// buffer, which has room for DropoutScratch(count). Probability must be above 0.
HWY_INLINE const float* DropoutFactors(const Dropout& dropout, int64_t first, int64_t count, float* buffer) {
  const uint64_t first_block = static_cast<uint64_t>(first) / 4;
  const int64_t offset = first % 4;
  const uint64_t threshold = DropoutThreshold(dropout);
  const VU limit = hn::Set(DU(), static_cast<uint32_t>(threshold));
  const VF scale = hn::Set(DF(), DropoutScale(dropout));
  for (int64_t done = 0; done < offset + count; done += 4 * kLanes) {
    const uint64_t block = first_block + done / 4;
    const VU start = hn::Set(DU(), static_cast<uint32_t>(block));
    VU c0 = hn::Add(start, hn::Iota(DU(), 0));
    const VU carry = hn::VecFromMask(DU(), hn::Lt(c0, start));  // all ones where the low half wrapped
    const VU upper = hn::Sub(hn::Set(DU(), static_cast<uint32_t>(block >> 32)), carry);
    VU c1 = hn::Set(DU(), static_cast<uint32_t>(dropout.window));
    VU c2 = hn::Set(DU(), static_cast<uint32_t>(dropout.unit));
    VU c3 = hn::Xor(hn::Set(DU(), dropout.site), upper);
    uint32_t key0 = static_cast<uint32_t>(dropout.seed), key1 = static_cast<uint32_t>(dropout.seed >> 32);
    for (int round = 0; round < 10; ++round) {
      VU high0, low0, high1, low1;
      MultiplyWide(hn::Set(DU(), 0xD2511F53), c0, high0, low0);
      MultiplyWide(hn::Set(DU(), 0xCD9E8D57), c2, high1, low1);
      c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(DU(), key0));
      c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(DU(), key1));
      c1 = low1;
      c3 = low0;
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    const auto factor = [&](VU word) HWY_ATTR {
      const VF kept = hn::IfThenElseZero(hn::RebindMask(DF(), hn::Lt(word, limit)), scale);
      return threshold > 0xFFFFFFFF ? scale : kept;
    };
    hn::StoreInterleaved4(factor(c0), factor(c1), factor(c2), factor(c3), DF(), buffer + done);
  }
  return buffer + offset;
}

}  // namespace accrue::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
