#include "worker/backend/cpu_state/cpu_state_ops.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/check.h"
#include "common/exponents.h"
#include "common/loss_scale.h"
#include "worker/backend/cpu_state/kernels.h"

namespace accrue {
namespace {

using cpu_state::GradientScan;
using cpu_state::Kernels;
using cpu_state::kKernelStep;

static_assert(std::endian::native == std::endian::little, "hashes are of little-endian bytes");

// Elements converted to binary32 at a time: their copy stays in the first cache.
constexpr int64_t kBlockElements = 1024;

const uint64_t* Weights() {
  static const std::array<uint64_t, kChunkElements>* const weights = [] {
    auto* table = new std::array<uint64_t, kChunkElements>;
    for (int64_t i = 0; i < kChunkElements; ++i) (*table)[i] = ElementWeight(i);
    return table;
  }();
  return weights->data();
}

int64_t ChunkCount(int64_t elements) { return (elements + kChunkElements - 1) / kChunkElements; }

// Kernels take whole steps: the elements after the last whole one are computed in zero-padded copies.
int64_t WholeSteps(int64_t elements) { return elements / kKernelStep * kKernelStep; }

template <typename T>
class PaddedTail {
 public:
  PaddedTail(const T* from, int64_t elements) : elements_(elements) { std::copy_n(from, elements, values_); }
  T* data() { return values_; }
  void CopyTo(T* to) const { std::copy_n(values_, elements_, to); }

 private:
  const int64_t elements_;
  alignas(64) T values_[kKernelStep] = {};
};

void Merge(const GradientScan& tail, GradientScan& scan) {
  scan.max_bits = std::max(scan.max_bits, tail.max_bits);
  scan.vanished += tail.vanished;
  scan.weighted_sum += tail.weighted_sum;
}

ChunkStats StatsOf(const GradientScan& scan, const float* gradient, int64_t elements) {
  ChunkStats stats{.vanished = scan.vanished, .weighted_sum = scan.weighted_sum};
  if (scan.max_bits < 0x7f800000) {
    stats.max_abs = std::bit_cast<float>(scan.max_bits);
    return stats;
  }
  stats.non_finite = true;
  for (int64_t i = 0; i < elements; ++i) {
    if (std::isfinite(gradient[i])) stats.max_abs = std::max(stats.max_abs, std::fabs(gradient[i]));
  }
  return stats;
}

class CpuStateOps : public StateOps {
 public:
  explicit CpuStateOps(ThreadPool& pool)
      : pool_(pool), kernels_(cpu_state::BestKernels()), weights_(Weights()) {}

  void QuantizeAdd(const float* gradient, int64_t elements, int k, bool first, int64_t* accumulator,
                   ChunkStats* host_stats) override {
    ACCRUE_CHECK(k <= kMaxExponent && k >= -kMaxExponent - kMostInitialLossScale);
    const double scale = std::ldexp(1.0, k);
    ForEachChunk(elements, [&](int64_t chunk, int64_t begin, int64_t count) {
      const int64_t whole = WholeSteps(count);
      const float* g = gradient + begin;
      int64_t* sums = accumulator == nullptr ? nullptr : accumulator + begin;
      GradientScan scan = kernels_.quantize_add(g, whole, scale, first, weights_, sums);
      if (whole < count) {
        PaddedTail<float> tail(g + whole, count - whole);
        PaddedTail<int64_t> tail_sums(sums + whole, first || sums == nullptr ? 0 : count - whole);
        Merge(
            kernels_.quantize_add(tail.data(), kKernelStep, scale, first, weights_ + whole, tail_sums.data()),
            scan);
        if (sums != nullptr) std::copy_n(tail_sums.data(), count - whole, sums + whole);
      }
      host_stats[chunk] = StatsOf(scan, g, count);
    });
  }

  void Inspect(const float* gradient, int64_t elements, ChunkStats* host_stats) override {
    ForEachChunk(elements, [&](int64_t chunk, int64_t begin, int64_t count) {
      const int64_t whole = WholeSteps(count);
      const float* g = gradient + begin;
      GradientScan scan = kernels_.inspect(g, whole);
      if (whole < count) {
        PaddedTail<float> tail(g + whole, count - whole);
        Merge(kernels_.inspect(tail.data(), kKernelStep), scan);
      }
      host_stats[chunk] = StatsOf(scan, g, count);
    });
  }

  void FloatAdd(const float* gradient, int64_t elements, bool first, float* accumulator,
                ChunkStats* host_stats) override {
    ForEachChunk(elements, [&](int64_t chunk, int64_t begin, int64_t count) {
      const int64_t whole = WholeSteps(count);
      const float* g = gradient + begin;
      float* sums = accumulator + begin;
      GradientScan scan = kernels_.float_add(g, whole, first, sums);
      if (whole < count) {
        PaddedTail<float> tail(g + whole, count - whole);
        PaddedTail<float> tail_sums(sums + whole, first ? 0 : count - whole);
        Merge(kernels_.float_add(tail.data(), kKernelStep, first, tail_sums.data()), scan);
        std::copy_n(tail_sums.data(), count - whole, sums + whole);
      }
      host_stats[chunk] = StatsOf(scan, g, count);
    });
  }

  void WeightedSums(const int64_t* values, int64_t elements, uint64_t* host_sums) override {
    ForEachChunk(elements, [&](int64_t chunk, int64_t begin, int64_t count) {
      const int64_t whole = WholeSteps(count);
      uint64_t sum = kernels_.weighted_sum(values + begin, whole, weights_);
      if (whole < count) {
        PaddedTail<int64_t> tail(values + begin + whole, count - whole);
        sum += kernels_.weighted_sum(tail.data(), kKernelStep, weights_ + whole);
      }
      host_sums[chunk] = sum;
    });
  }

  void SquareSums(const int64_t* sums, int64_t elements, int k, double* host_sums) override {
    const ExactSource source(*this, sums, k);
    SquareSumsOf(source, elements, host_sums);
  }
  void SquareSums(const float* sums, int64_t elements, double* host_sums) override {
    SquareSumsOf(FloatSource(sums), elements, host_sums);
  }

  void Update(const int64_t* sums, int64_t elements, int k, const UpdateArgs& args, float* p, float* m,
              float* v, Hash128* host_hashes) override {
    const ExactSource source(*this, sums, k);
    UpdateFrom(source, elements, args, p, m, v, host_hashes);
  }
  void Update(const float* sums, int64_t elements, const UpdateArgs& args, float* p, float* m, float* v,
              Hash128* host_hashes) override {
    UpdateFrom(FloatSource(sums), elements, args, p, m, v, host_hashes);
  }

  void HashChunks(const void* values, int64_t elements, int element_bytes, Hash128* host_hashes) override {
    ForEachChunk(elements, [&](int64_t chunk, int64_t begin, int64_t count) {
      host_hashes[chunk] =
          HashBytes(static_cast<const char*>(values) + begin * element_bytes, count * element_bytes);
    });
  }

 private:
  // Where the update's s comes from: `Block` returns s of up to kBlockElements elements, padded with zeros to
  // whole steps, in `buffer` if need be.
  class ExactSource {
   public:
    ExactSource(const CpuStateOps& ops, const int64_t* sums, int k)
        : kernels_(ops.kernels_), sums_(sums), scale_(std::ldexp(1.0f, -k)) {
      ACCRUE_CHECK(std::abs(k) <= kMaxExponent);
    }
    const float* Block(int64_t begin, int64_t count, float* buffer) const {
      const int64_t whole = WholeSteps(count);
      kernels_.to_float(sums_ + begin, whole, scale_, buffer);
      if (whole < count) {
        PaddedTail<int64_t> tail(sums_ + begin + whole, count - whole);
        kernels_.to_float(tail.data(), kKernelStep, scale_, buffer + whole);
      }
      return buffer;
    }

   private:
    const Kernels& kernels_;
    const int64_t* const sums_;
    const float scale_;
  };

  class FloatSource {
   public:
    explicit FloatSource(const float* sums) : sums_(sums) {}
    const float* Block(int64_t begin, int64_t count, float* buffer) const {
      if (count % kKernelStep == 0) return sums_ + begin;
      std::copy_n(sums_ + begin, count, buffer);
      std::fill(buffer + count, buffer + WholeSteps(count) + kKernelStep, 0.0f);
      return buffer;
    }

   private:
    const float* const sums_;
  };

  // body(chunk, first element, elements), one task a chunk.
  template <typename Body>
  void ForEachChunk(int64_t elements, const Body& body) {
    pool_.ParallelFor(ChunkCount(elements), [&](int64_t chunk) {
      const int64_t begin = chunk * kChunkElements;
      body(chunk, begin, std::min(kChunkElements, elements - begin));
    });
  }

  template <typename Source>
  void SquareSumsOf(const Source& source, int64_t elements, double* host_sums) {
    ForEachChunk(elements, [&](int64_t chunk, int64_t begin, int64_t count) {
      alignas(64) float buffer[kBlockElements];
      alignas(64) double partials[16] = {};
      for (int64_t done = 0; done < count; done += kBlockElements) {
        const int64_t block = std::min(kBlockElements, count - done);
        const float* s = source.Block(begin + done, block, buffer);
        // Zeros of the padding leave a partial as it is: sums of squares are never -0.
        kernels_.square_sums(s, (block + kKernelStep - 1) / kKernelStep * kKernelStep, partials);
      }
      double sum = 0;
      for (double partial : partials) sum += partial;
      host_sums[chunk] = sum;
    });
  }

  template <typename Source>
  void UpdateFrom(const Source& source, int64_t elements, const UpdateArgs& args, float* p, float* m,
                  float* v, Hash128* host_hashes) {
    const int64_t chunks = ChunkCount(elements);
    ForEachChunk(elements, [&](int64_t chunk, int64_t begin, int64_t count) {
      alignas(64) float buffer[kBlockElements];
      for (int64_t done = 0; done < count; done += kBlockElements) {
        const int64_t block = std::min(kBlockElements, count - done);
        const float* s = source.Block(begin + done, block, buffer);
        UpdateBlock(s, begin + done, block, args, p, m, v);
      }
      if (host_hashes == nullptr) return;
      const size_t size_bytes = count * sizeof(float);
      host_hashes[chunk] = HashBytes(p + begin, size_bytes);
      host_hashes[chunks + chunk] = HashBytes(m + begin, size_bytes);
      if (args.kind == OptimizerKind::kAdamW)
        host_hashes[2 * chunks + chunk] = HashBytes(v + begin, size_bytes);
    });
  }

  void UpdateBlock(const float* s, int64_t begin, int64_t count, const UpdateArgs& args, float* p, float* m,
                   float* v) const {
    const bool adamw = args.kind == OptimizerKind::kAdamW;
    const int64_t whole = WholeSteps(count), end = begin + whole;
    Step(s, whole, args, p + begin, m + begin, adamw ? v + begin : nullptr);
    if (whole == count) return;
    PaddedTail<float> tail_p(p + end, count - whole), tail_m(m + end, count - whole);
    PaddedTail<float> tail_v(adamw ? v + end : p, adamw ? count - whole : 0);
    Step(s + whole, kKernelStep, args, tail_p.data(), tail_m.data(), tail_v.data());
    tail_p.CopyTo(p + end);
    tail_m.CopyTo(m + end);
    if (adamw) tail_v.CopyTo(v + end);
  }

  void Step(const float* s, int64_t count, const UpdateArgs& args, float* p, float* m, float* v) const {
    if (args.kind == OptimizerKind::kAdamW) {
      kernels_.adamw(s, count, args, p, m, v);
    } else {
      kernels_.sgd(s, count, args, p, m);
    }
  }

  ThreadPool& pool_;
  const Kernels& kernels_;
  const uint64_t* const weights_;
};

}  // namespace

std::unique_ptr<StateOps> CreateCpuStateOps(ThreadPool& pool) { return std::make_unique<CpuStateOps>(pool); }

}  // namespace accrue
