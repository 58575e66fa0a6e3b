#include "worker/accumulate/accumulator.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/loss_scale.h"
#include "common/status.h"

namespace accrue {
namespace {

// T: int64_t for exact, float for fast.
template <typename T>
class AccumulatorOf : public Accumulator {
 public:
  static constexpr bool kExactSums = std::is_same_v<T, int64_t>;
  static constexpr size_t kUsualUnits = 1024;  // of a window on one worker: more take memory as they come

  AccumulatorOf(const ParameterLayout& layout, Backend& backend, std::unique_ptr<DeviceBuffer> buffer)
      : layout_(layout),
        backend_(backend),
        buffer_(std::move(buffer)),
        chunk_stats_(LongestTensor(layout)),
        chunk_weighted_sums_(chunk_stats_.size()),
        chunk_square_sums_(chunk_stats_.size()),
        added_(layout.tensors().size()),
        max_abs_(layout.tensors().size()) {
    if (kExactSums) exponents_.assign(layout.tensors().size(), 0);
    units_.reserve(kUsualUnits);
  }

  void Reset(const std::vector<int>& exponents) override {
    if (kExactSums) {
      ACCRUE_CHECK(exponents.size() == layout_.tensors().size());
      exponents_ = exponents;
    }
    units_.clear();
    final_buckets_ = 0;
    phase_ = Phase::kBetween;
    defined_ = false;
  }

  void SetLossScale(int exponent) override {
    ACCRUE_CHECK(phase_ == Phase::kBetween && exponent >= kLeastLossScale && exponent <= kMostInitialLossScale);
    loss_scale_ = exponent;
  }
  int loss_scale_exponent() const override { return loss_scale_; }

  void BeginUnit(int64_t unit) override { Begin(Phase::kUnit, unit); }
  void BeginAudit(int64_t unit) override { Begin(Phase::kAudit, unit); }
  void BeginProbe() override { Begin(Phase::kProbe, 0); }

  void Add(int tensor, const float* gradient) override {
    ACCRUE_CHECK(phase_ != Phase::kBetween && !added_[tensor]);
    added_[tensor] = true;
    if (phase_ == Phase::kProbe) {
      const int64_t elements = layout_.tensors()[tensor].elements;
      backend_.state_ops().Inspect(gradient, elements, chunk_stats_.data());
      TakeExtremes(tensor, layout_.tensors()[tensor].chunks);
      return;
    }
    // A tensor may span buckets.
    const TensorInfo& info = layout_.tensors()[tensor];
    ForEachRun(info.first_chunk, info.chunks, [&](const Run& run) {
      AddRun(tensor, run, gradient + (run.arena_offset - info.arena_offset));
    });
  }

  const UnitStats& FinishUnit() override {
    ACCRUE_CHECK(phase_ != Phase::kBetween);
    ACCRUE_CHECK(std::find(added_.begin(), added_.end(), false) == added_.end());
    if (phase_ == Phase::kUnit) {
      units_.push_back(unit_stats_.unit);
      defined_ = true;
    }
    phase_ = Phase::kBetween;
    for (float max_abs : max_abs_) {
      unit_stats_.max_exponents.push_back(max_abs == 0 ? kZeroExponent : CeilLog2(max_abs) - loss_scale_);
    }
    return unit_stats_;
  }

  const std::vector<int64_t>& units() const override { return units_; }
  int final_buckets() const override { return final_buckets_; }

  int64_t* ExactBucket(int bucket) override {
    if constexpr (kExactSums) return Sums() + layout_.buckets()[bucket].arena_offset;
    ACCRUE_CHECK(false);
  }
  float* FastBucket(int bucket) override {
    if constexpr (!kExactSums) return Sums() + layout_.buckets()[bucket].arena_offset;
    ACCRUE_CHECK(false);
  }

  void MarkFinal(int bucket) override {
    ACCRUE_CHECK(phase_ == Phase::kBetween && defined_ && bucket == final_buckets_);
    ++final_buckets_;
  }

  uint64_t BucketChecksum(int bucket) override { return StagingChecksum(bucket, ExactBucket(bucket)); }

  uint64_t StagingChecksum(int bucket, const int64_t* staging) override {
    ACCRUE_CHECK(kExactSums);
    const Bucket& info = layout_.buckets()[bucket];
    uint64_t checksum = 0;
    ForEachRun(info.first_chunk, info.chunks, [&](const Run& run) {
      backend_.state_ops().WeightedSums(staging + (run.arena_offset - info.arena_offset), run.elements,
                                        chunk_weighted_sums_.data());
      for (int64_t i = 0; i < run.chunks; ++i)
        checksum += ChunkWeight(run.first_chunk + i) * chunk_weighted_sums_[i];
    });
    return checksum;
  }

  double Norm(int64_t valid_tokens) override {
    if (valid_tokens == 0) return 0;
    const T* sums = Sums();
    double total = 0;
    for (size_t t = 0; t < layout_.tensors().size(); ++t) {
      const TensorInfo& tensor = layout_.tensors()[t];
      if constexpr (kExactSums) {
        backend_.state_ops().SquareSums(sums + tensor.arena_offset, tensor.elements, exponents_[t],
                                        chunk_square_sums_.data());
      } else {
        backend_.state_ops().SquareSums(sums + tensor.arena_offset, tensor.elements,
                                        chunk_square_sums_.data());
      }
      double sum = 0;
      for (int64_t i = 0; i < tensor.chunks; ++i) sum += chunk_square_sums_[i];
      total += sum;
    }
    const double norm = std::sqrt(total) / static_cast<double>(valid_tokens);
    return kExactSums ? norm : std::ldexp(norm, -loss_scale_);
  }

  std::unique_ptr<DeviceBuffer> TakeSums(std::unique_ptr<DeviceBuffer> replacement) override {
    ACCRUE_CHECK(phase_ == Phase::kBetween && final_buckets_ == static_cast<int>(layout_.buckets().size()));
    ACCRUE_CHECK(replacement->size_bytes() == buffer_->size_bytes());
    std::swap(buffer_, replacement);
    units_.clear();
    final_buckets_ = 0;
    defined_ = false;
    return replacement;
  }

  AccumulationMode mode() const override {
    return kExactSums ? AccumulationMode::kExact : AccumulationMode::kFast;
  }
  const std::vector<int>& exponents() const override { return exponents_; }

  const int64_t* ExactTensor(int tensor) const override {
    ACCRUE_CHECK(defined_);
    if constexpr (kExactSums) return buffer_->as<int64_t>() + layout_.tensors()[tensor].arena_offset;
    ACCRUE_CHECK(false);
  }
  const float* FastTensor(int tensor) const override {
    ACCRUE_CHECK(defined_);
    if constexpr (!kExactSums) return buffer_->as<float>() + layout_.tensors()[tensor].arena_offset;
    ACCRUE_CHECK(false);
  }

 private:
  enum class Phase { kBetween, kUnit, kAudit, kProbe };

  // Chunks in a row that lie in one tensor and one bucket.
  struct Run {
    int32_t bucket = 0;
    int64_t first_chunk = 0, chunks = 0, arena_offset = 0, elements = 0;
  };

  static size_t LongestTensor(const ParameterLayout& layout) {
    int64_t chunks = 0;
    for (const TensorInfo& tensor : layout.tensors()) chunks = std::max(chunks, tensor.chunks);
    return static_cast<size_t>(chunks);
  }

  template <typename Body>
  void ForEachRun(int64_t first_chunk, int64_t chunks, const Body& body) const {
    Run run;
    int32_t tensor = -1;
    for (int64_t c = first_chunk; c < first_chunk + chunks; ++c) {
      const Chunk& chunk = layout_.chunks()[c];
      if (run.chunks > 0 && (chunk.tensor != tensor || chunk.bucket != run.bucket)) {
        body(run);
        run.chunks = 0;
      }
      if (run.chunks == 0)
        run = {.bucket = chunk.bucket, .first_chunk = c, .arena_offset = chunk.arena_offset};
      tensor = chunk.tensor;
      run.chunks += 1;
      run.elements = chunk.arena_offset + chunk.elements - run.arena_offset;
    }
    if (run.chunks > 0) body(run);
  }

  void Begin(Phase phase, int64_t unit) {
    ACCRUE_CHECK(phase_ == Phase::kBetween);
    phase_ = phase;
    unit_stats_.unit = unit;
    unit_stats_.non_finite = false;
    unit_stats_.vanished_elements = 0;
    const bool has_checksums = kExactSums && phase != Phase::kProbe;
    unit_stats_.bucket_checksums.assign(has_checksums ? layout_.buckets().size() : 0, 0);
    unit_stats_.max_exponents.clear();
    unit_stats_.max_exponents.reserve(layout_.tensors().size());
    std::fill(added_.begin(), added_.end(), false);
    std::fill(max_abs_.begin(), max_abs_.end(), 0.0f);
  }

  void AddRun(int tensor, const Run& run, const float* gradient) {
    StateOps& ops = backend_.state_ops();
    const bool adds = phase_ == Phase::kUnit && !final(run.bucket);
    // The first unit stores instead of adding: nothing need be zeroed at the window's begin.
    T* sums = adds ? buffer_->as<T>() + run.arena_offset : nullptr;
    if constexpr (kExactSums) {
      ops.QuantizeAdd(gradient, run.elements, exponents_[tensor] - loss_scale_, !defined_, sums,
                      chunk_stats_.data());
      for (int64_t i = 0; i < run.chunks; ++i) {
        unit_stats_.bucket_checksums[run.bucket] +=
            ChunkWeight(run.first_chunk + i) * chunk_stats_[i].weighted_sum;
        unit_stats_.vanished_elements += chunk_stats_[i].vanished;
      }
    } else if (adds) {
      ops.FloatAdd(gradient, run.elements, !defined_, sums, chunk_stats_.data());
    } else {
      ops.Inspect(gradient, run.elements, chunk_stats_.data());
    }
    TakeExtremes(tensor, run.chunks);
  }

  void TakeExtremes(int tensor, int64_t chunks) {
    for (int64_t i = 0; i < chunks; ++i) {
      max_abs_[tensor] = std::max(max_abs_[tensor], chunk_stats_[i].max_abs);
      unit_stats_.non_finite |= chunk_stats_[i].non_finite;
    }
  }

  // The sums, zeroed first if no unit has defined them.
  T* Sums() {
    ACCRUE_CHECK(phase_ == Phase::kBetween);
    if (!defined_) backend_.Zero(buffer_->data(), buffer_->size_bytes());
    defined_ = true;
    return buffer_->as<T>();
  }

  const ParameterLayout& layout_;
  Backend& backend_;
  std::unique_ptr<DeviceBuffer> buffer_;  // arena_elements; padding stays zero

  std::vector<int> exponents_;
  int loss_scale_ = 0;
  std::vector<int64_t> units_;
  // Per chunk of the run at hand.
  std::vector<ChunkStats> chunk_stats_;
  std::vector<uint64_t> chunk_weighted_sums_;
  std::vector<double> chunk_square_sums_;

  Phase phase_ = Phase::kBetween;
  UnitStats unit_stats_;        // of the unit at hand
  std::vector<bool> added_;     // per tensor, of the unit at hand
  std::vector<float> max_abs_;  // per tensor, of the unit at hand

  int final_buckets_ = 0;
  bool defined_ = false;  // the buffer holds sums, not what an earlier window left
};

template <typename T>
absl::StatusOr<std::unique_ptr<Accumulator>> CreateOf(const ParameterLayout& layout, Backend& backend) {
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> buffer =
      backend.Allocate(static_cast<size_t>(layout.arena_elements()) * sizeof(T));
  if (!buffer.ok()) {
    return Annotate(buffer.status(), absl::StrCat("accumulator of ", layout.parameters(), " parameters"));
  }
  return std::make_unique<AccumulatorOf<T>>(layout, backend, *std::move(buffer));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Accumulator>> Accumulator::Create(AccumulationMode mode,
                                                                 const ParameterLayout& layout,
                                                                 Backend& backend) {
  return mode == AccumulationMode::kExact ? CreateOf<int64_t>(layout, backend)
                                          : CreateOf<float>(layout, backend);
}

}  // namespace accrue
