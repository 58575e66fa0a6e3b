#include "worker/backend/cuda/kernel_state_ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "common/check.h"
#include "common/exponents.h"
#include "common/loss_scale.h"

namespace accrue::cuda {
namespace {

static_assert(std::endian::native == std::endian::little, "hashes are of little-endian bytes");
static_assert(sizeof(Hash128) == sizeof(xxh3::Canonical), "a device hash is copied as it lies");

static_assert(sizeof(ScanResult) <= StateDevice::kChunkResultBytes);

int64_t ChunkCount(int64_t elements) { return (elements + kChunkElements - 1) / kChunkElements; }

double PowerOfTwo(int k) {
  ACCRUE_CHECK(std::abs(k) <= kMaxExponent);
  return std::ldexp(1.0, k);
}

// 2^-k is a normal binary32 number for all k that are allowed.
Sums ExactSums(const int64_t* sums, int k) {
  return {.exact = sums, .fast = nullptr, .scale = static_cast<float>(PowerOfTwo(-k))};
}
Sums FastSums(const float* sums) { return {.exact = nullptr, .fast = sums, .scale = 1}; }
Sums From(const Sums& sums, int64_t begin) {
  return {.exact = sums.exact == nullptr ? nullptr : sums.exact + begin,
          .fast = sums.fast == nullptr ? nullptr : sums.fast + begin,
          .scale = sums.scale};
}

StepScalars ScalarsOf(const UpdateArgs& args) {
  return {.learning_rate = args.learning_rate,
          .beta1 = args.beta1,
          .beta2 = args.beta2,
          .one_minus_beta1 = args.one_minus_beta1,
          .one_minus_beta2 = args.one_minus_beta2,
          .epsilon = args.epsilon,
          .weight_decay = args.weight_decay,
          .bias_correction1 = args.bias_correction1,
          .bias_correction2 = args.bias_correction2,
          .momentum = args.momentum,
          .scale = args.scale};
}

ChunkStats StatsOf(const ScanResult& result) {
  return {.max_abs = std::bit_cast<float>(result.max_bits),
          .non_finite = result.non_finite != 0,
          .vanished = result.vanished,
          .weighted_sum = result.weighted_sum};
}

void CopyHashes(const xxh3::Canonical* from, int64_t count, Hash128* to) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(to[i].bytes.data(), &from[i], sizeof(from[i]));
}

class KernelStateOps : public StateOps {
 public:
  explicit KernelStateOps(StateDevice& device)
      : device_(device),
        max_chunks_(static_cast<int64_t>(device.result_bytes() / StateDevice::kChunkResultBytes)) {
    ACCRUE_CHECK(max_chunks_ >= 1);
  }

  void QuantizeAdd(const float* gradient, int64_t elements, int k, bool first, int64_t* accumulator,
                   ChunkStats* host_stats) override {
    ACCRUE_CHECK(k <= kMaxExponent && k >= -kMaxExponent - kMostInitialLossScale);
    const double scale = std::ldexp(1.0, k);
    Scan(elements, host_stats, [&](const Slice& slice) {
      return QuantizeArgs{.gradient = gradient + slice.begin,
                          .elements = slice.elements,
                          .scale = scale,
                          .first = first,
                          .accumulator = accumulator == nullptr ? nullptr : accumulator + slice.begin,
                          .results = Results<ScanResult>()};
    });
  }

  void Inspect(const float* gradient, int64_t elements, ChunkStats* host_stats) override {
    Scan(elements, host_stats, [&](const Slice& slice) {
      return InspectArgs{
          .gradient = gradient + slice.begin, .elements = slice.elements, .results = Results<ScanResult>()};
    });
  }

  void FloatAdd(const float* gradient, int64_t elements, bool first, float* accumulator,
                ChunkStats* host_stats) override {
    Scan(elements, host_stats, [&](const Slice& slice) {
      return FloatAddArgs{.gradient = gradient + slice.begin,
                          .elements = slice.elements,
                          .first = first,
                          .accumulator = accumulator + slice.begin,
                          .results = Results<ScanResult>()};
    });
  }

  void WeightedSums(const int64_t* values, int64_t elements, uint64_t* host_sums) override {
    ForEachSlice(elements, [&](const Slice& slice) {
      device_.Launch(
          WeightedSumArgs{
              .values = values + slice.begin, .elements = slice.elements, .results = Results<ScanResult>()},
          slice.chunks);
      const ScanResult* read = Read<ScanResult>(slice.chunks);
      for (int64_t i = 0; i < slice.chunks; ++i) host_sums[slice.first_chunk + i] = read[i].weighted_sum;
    });
  }

  void SquareSums(const int64_t* sums, int64_t elements, int k, double* host_sums) override {
    SquareSumsOf(ExactSums(sums, k), elements, host_sums);
  }
  void SquareSums(const float* sums, int64_t elements, double* host_sums) override {
    SquareSumsOf(FastSums(sums), elements, host_sums);
  }

  void Update(const int64_t* sums, int64_t elements, int k, const UpdateArgs& args, float* p, float* m,
              float* v, Hash128* host_hashes) override {
    UpdateFrom(ExactSums(sums, k), elements, args, p, m, v, host_hashes);
  }
  void Update(const float* sums, int64_t elements, const UpdateArgs& args, float* p, float* m, float* v,
              Hash128* host_hashes) override {
    UpdateFrom(FastSums(sums), elements, args, p, m, v, host_hashes);
  }

  void HashChunks(const void* values, int64_t elements, int element_bytes, Hash128* host_hashes) override {
    ACCRUE_CHECK(element_bytes == 2 || element_bytes == 4);
    ForEachSlice(elements, [&](const Slice& slice) {
      device_.Launch(
          HashArgs{.values = static_cast<const unsigned char*>(values) + slice.begin * element_bytes,
                   .elements = slice.elements,
                   .element_bytes = element_bytes,
                   .hashes = Results<xxh3::Canonical>()},
          slice.chunks);
      CopyHashes(Read<xxh3::Canonical>(slice.chunks), slice.chunks, host_hashes + slice.first_chunk);
    });
  }

 private:
  // Whole chunks of a tensor, max_chunks_ at most.
  struct Slice {
    int64_t first_chunk, chunks, begin, elements;
  };

  template <typename Body>
  void ForEachSlice(int64_t elements, const Body& body) const {
    const int64_t chunks = ChunkCount(elements);
    for (int64_t first = 0; first < chunks; first += max_chunks_) {
      const int64_t begin = first * kChunkElements;
      body(Slice{.first_chunk = first,
                 .chunks = std::min(max_chunks_, chunks - first),
                 .begin = begin,
                 .elements = std::min(max_chunks_ * kChunkElements, elements - begin)});
    }
  }

  template <typename T>
  T* Results() {
    return static_cast<T*>(device_.results());
  }
  template <typename T>
  const T* Read(int64_t count) {
    return static_cast<const T*>(device_.ReadResults(count * sizeof(T)));
  }

  template <typename ArgsOf>
  void Scan(int64_t elements, ChunkStats* host_stats, const ArgsOf& args_of) {
    ForEachSlice(elements, [&](const Slice& slice) {
      device_.Launch(args_of(slice), slice.chunks);
      const ScanResult* read = Read<ScanResult>(slice.chunks);
      for (int64_t i = 0; i < slice.chunks; ++i) host_stats[slice.first_chunk + i] = StatsOf(read[i]);
    });
  }

  void SquareSumsOf(const Sums& sums, int64_t elements, double* host_sums) {
    ForEachSlice(elements, [&](const Slice& slice) {
      device_.Launch(
          SquareSumArgs{
              .sums = From(sums, slice.begin), .elements = slice.elements, .results = Results<double>()},
          slice.chunks);
      std::copy_n(Read<double>(slice.chunks), slice.chunks, host_sums + slice.first_chunk);
    });
  }

  void UpdateFrom(const Sums& sums, int64_t elements, const UpdateArgs& args, float* p, float* m, float* v,
                  Hash128* host_hashes) {
    const bool adamw = args.kind == OptimizerKind::kAdamW;
    const int arrays = adamw ? 3 : 2;
    const int64_t chunks = ChunkCount(elements);
    ForEachSlice(elements, [&](const Slice& slice) {
      device_.Launch(UpdateKernelArgs{.sums = From(sums, slice.begin),
                                      .elements = slice.elements,
                                      .scalars = ScalarsOf(args),
                                      .p = p + slice.begin,
                                      .m = m + slice.begin,
                                      .v = adamw ? v + slice.begin : nullptr,
                                      .hashes = host_hashes == nullptr ? nullptr : Results<xxh3::Canonical>(),
                                      .chunks = slice.chunks},
                     slice.chunks);
      if (host_hashes == nullptr) return;
      const xxh3::Canonical* read = Read<xxh3::Canonical>(arrays * slice.chunks);
      for (int array = 0; array < arrays; ++array) {
        CopyHashes(read + array * slice.chunks, slice.chunks,
                   host_hashes + array * chunks + slice.first_chunk);
      }
    });
  }

  StateDevice& device_;
  const int64_t max_chunks_;  // of a launch, so that its results fit
};

}  // namespace

std::unique_ptr<StateOps> CreateKernelStateOps(StateDevice& device) {
  return std::make_unique<KernelStateOps>(device);
}

}  // namespace accrue::cuda
