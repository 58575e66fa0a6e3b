// The passes over a unit's gradient: quantise and add, inspect, add in binary32; and the checksums of int64
// values. docs/numerics.md, sections 5 and 6.
//
// One block a chunk. Maxima and integer sums are the same in any order, so a thread takes every 256th pack.
#pragma once

#include <cstdint>

#include "common/exponents.h"
#include "worker/backend/cuda/kernels/arithmetic.h"
#include "worker/backend/cuda/kernels/memory.h"

namespace accrue::cuda {

inline constexpr int kScanThreads = 256;
inline constexpr int kScanPack = 4;
// Threads' results are folded in two steps of this width.
inline constexpr int kScanFold = 16;
static_assert(kScanFold * kScanFold == kScanThreads);

// What a chunk's scan writes to device memory.
struct ScanResult {
  uint64_t weighted_sum;
  int64_t vanished;
  uint32_t max_bits;  // of the finite elements, without sign
  uint32_t non_finite;
};

ACCRUE_BODY void Merge(const ScanResult& from, ScanResult& into) {
  into.weighted_sum += from.weighted_sum;
  into.vanished += from.vanished;
  into.max_bits = from.max_bits > into.max_bits ? from.max_bits : into.max_bits;
  into.non_finite |= from.non_finite;
}

ACCRUE_BODY void TakeExtremes(float g, ScanResult& result) {
  const uint32_t bits = BitsOf(g) & 0x7fffffff;
  if (bits >= 0x7f800000) {
    result.non_finite = 1;
  } else if (bits > result.max_bits) {
    result.max_bits = bits;
  }
}

struct ScanShared {
  ScanResult threads[kScanThreads];
  ScanResult folded[kScanFold];
};

ACCRUE_BODY int64_t ChunkLength(int64_t elements, int64_t chunk) {
  const int64_t left = elements - chunk * kChunkElements;
  return left < kChunkElements ? left : kChunkElements;
}

// The phases common to all scans. Scan has Args with `elements` and `results` (one a chunk), and
// Packs(args, chunk): an object whose Take<kCount>(j, result) works on elements j .. j + kCount - 1 of the
// chunk.
template <typename Scan>
struct ScanBody {
  using Args = typename Scan::Args;
  using Shared = ScanShared;
  static constexpr int kThreads = kScanThreads;
  static constexpr int kPhases = 3;

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared& shared) {
    if constexpr (kPhase == 0) {
      shared.threads[thread] = ScanChunk(args, block, thread);
    } else if constexpr (kPhase == 1) {
      if (thread < kScanFold) shared.folded[thread] = Fold(shared.threads + thread * kScanFold);
    } else {
      if (thread == 0) args.results[block] = Fold(shared.folded);
    }
  }

 private:
  ACCRUE_BODY static ScanResult ScanChunk(const Args& args, int64_t block, int thread) {
    const Scan scan(args, block * kChunkElements);
    const int count = static_cast<int>(ChunkLength(args.elements, block));
    const int whole = count / kScanPack * kScanPack;
    ScanResult result = {};
    for (int j = thread * kScanPack; j < whole; j += kThreads * kScanPack)
      scan.template Take<kScanPack>(j, result);
    if (whole + thread < count) scan.template Take<1>(whole + thread, result);
    return result;
  }

  ACCRUE_BODY static ScanResult Fold(const ScanResult* results) {
    ScanResult sum = results[0];
    for (int i = 1; i < kScanFold; ++i) Merge(results[i], sum);
    return sum;
  }
};

struct QuantizeArgs {
  const float* gradient;
  int64_t elements;
  double scale;  // 2^k
  bool first;
  int64_t* accumulator;  // null: nothing is added
  ScanResult* results;
};

class QuantizeScan {
 public:
  using Args = QuantizeArgs;
  ACCRUE_BODY QuantizeScan(const Args& args, int64_t begin)
      : args_(args),
        gradient_(args.gradient + begin),
        sums_(args.accumulator == nullptr ? nullptr : args.accumulator + begin),
        gradient_aligned_(PacksAligned<kScanPack>(gradient_)),
        sums_aligned_(PacksAligned<kScanPack>(sums_)) {}

  template <int kCount>
  ACCRUE_BODY void Take(int j, ScanResult& result) const {
    const Pack<float, kCount> g = Load<kCount>(gradient_ + j, gradient_aligned_);
    Pack<int64_t, kCount> sums = {};
    const bool adds = sums_ != nullptr && !args_.first;
    if (adds) sums = Load<kCount>(sums_ + j, sums_aligned_);
    ACCRUE_UNROLL
    for (int i = 0; i < kCount; ++i) {
      TakeExtremes(g.at[i], result);
      const double wide = g.at[i];
      const int64_t q = RoundToInt64(Mul(wide, args_.scale));
      result.vanished += wide != 0 && q == 0;
      result.weighted_sum += ElementWeight(j + i) * static_cast<uint64_t>(q);
      sums.at[i] = static_cast<int64_t>(static_cast<uint64_t>(sums.at[i]) + static_cast<uint64_t>(q));
    }
    if (sums_ != nullptr) Store<kCount>(sums_ + j, sums, sums_aligned_);
  }

 private:
  const Args& args_;
  const float* const gradient_;
  int64_t* const sums_;
  const bool gradient_aligned_, sums_aligned_;
};

struct InspectArgs {
  const float* gradient;
  int64_t elements;
  ScanResult* results;
};

class InspectScan {
 public:
  using Args = InspectArgs;
  ACCRUE_BODY InspectScan(const Args& args, int64_t begin)
      : gradient_(args.gradient + begin), aligned_(PacksAligned<kScanPack>(gradient_)) {}

  template <int kCount>
  ACCRUE_BODY void Take(int j, ScanResult& result) const {
    const Pack<float, kCount> g = Load<kCount>(gradient_ + j, aligned_);
    ACCRUE_UNROLL
    for (int i = 0; i < kCount; ++i) TakeExtremes(g.at[i], result);
  }

 private:
  const float* const gradient_;
  const bool aligned_;
};

struct FloatAddArgs {
  const float* gradient;
  int64_t elements;
  bool first;
  float* accumulator;
  ScanResult* results;
};

class FloatAddScan {
 public:
  using Args = FloatAddArgs;
  ACCRUE_BODY FloatAddScan(const Args& args, int64_t begin)
      : first_(args.first),
        gradient_(args.gradient + begin),
        sums_(args.accumulator + begin),
        gradient_aligned_(PacksAligned<kScanPack>(gradient_)),
        sums_aligned_(PacksAligned<kScanPack>(sums_)) {}

  template <int kCount>
  ACCRUE_BODY void Take(int j, ScanResult& result) const {
    Pack<float, kCount> g = Load<kCount>(gradient_ + j, gradient_aligned_);
    ACCRUE_UNROLL
    for (int i = 0; i < kCount; ++i) TakeExtremes(g.at[i], result);
    if (!first_) {
      const Pack<float, kCount> sums = Load<kCount>(sums_ + j, sums_aligned_);
      ACCRUE_UNROLL
      for (int i = 0; i < kCount; ++i) g.at[i] = Add(sums.at[i], g.at[i]);
    }
    Store<kCount>(sums_ + j, g, sums_aligned_);
  }

 private:
  const bool first_;
  const float* const gradient_;
  float* const sums_;
  const bool gradient_aligned_, sums_aligned_;
};

struct WeightedSumArgs {
  const int64_t* values;
  int64_t elements;
  ScanResult* results;  // weighted_sum alone is not zero
};

class WeightedSumScan {
 public:
  using Args = WeightedSumArgs;
  ACCRUE_BODY WeightedSumScan(const Args& args, int64_t begin)
      : values_(args.values + begin), aligned_(PacksAligned<kScanPack>(values_)) {}

  template <int kCount>
  ACCRUE_BODY void Take(int j, ScanResult& result) const {
    const Pack<int64_t, kCount> values = Load<kCount>(values_ + j, aligned_);
    ACCRUE_UNROLL
    for (int i = 0; i < kCount; ++i) {
      result.weighted_sum += ElementWeight(j + i) * static_cast<uint64_t>(values.at[i]);
    }
  }

 private:
  const int64_t* const values_;
  const bool aligned_;
};

using QuantizeBody = ScanBody<QuantizeScan>;
using InspectBody = ScanBody<InspectScan>;
using FloatAddBody = ScanBody<FloatAddScan>;
using WeightedSumBody = ScanBody<WeightedSumScan>;

}  // namespace accrue::cuda
