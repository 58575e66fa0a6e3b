#include "worker/synthetic/synthetic_engine.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/check.h"
#include "common/philox.h"
#include "common/status.h"
#include "common/synthetic.h"

namespace accrue {
namespace {

constexpr double kMostMilliseconds = 3'600'000;
constexpr float kCoupling = 1.0f / 16;
// The upper 24 bits of a word, as a signed integer, times this.
constexpr float kNoiseStep = 1.0f / (1 << 29);

// Uniform in [-2^-6, 2^-6).
float Noise(uint64_t key, int64_t element) {
  const uint64_t bits = SplitMix64(key ^ static_cast<uint64_t>(element));
  return static_cast<float>(static_cast<int64_t>(bits >> 40) - (int64_t{1} << 23)) * kNoiseStep;
}

uint64_t KeyOf(uint64_t seed, int64_t window, int64_t unit) {
  return SplitMix64(SplitMix64(SplitMix64(seed) ^ static_cast<uint64_t>(window)) ^ static_cast<uint64_t>(unit));
}

class SyntheticEngine : public Engine {
 public:
  SyntheticEngine(const SyntheticOptions& options, const Clock& clock, ParameterLayout layout)
      : options_(options), clock_(clock), layout_(std::move(layout)) {
    int64_t longest = 0;
    for (const TensorInfo& tensor : layout_.tensors()) longest = std::max(longest, tensor.elements);
    gradient_.resize(static_cast<size_t>(longest));
  }

  const ParameterLayout& layout() const override { return layout_; }
  void BindParameters(const float* parameters) override { parameters_ = parameters; }
  void ParametersChanged() override {}

  void InitializeParameters(uint64_t seed, float* host_arena) const override {
    std::fill_n(host_arena, layout_.arena_elements(), 0.0f);
    const uint64_t key = SplitMix64(seed ^ 0x5EED);
    for (const TensorInfo& tensor : layout_.tensors()) {
      for (int64_t i = tensor.arena_offset; i < tensor.arena_offset + tensor.elements; ++i) host_arena[i] = Noise(key, i);
    }
  }

  absl::StatusOr<UnitLoss> ComputeUnit(const UnitInput& input, GradientSink& sink) override {
    const int64_t end_ns = clock_.SteadyNowNs() + options_.unit_ns;
    const UnitLoss loss = LossOf(input);
    const uint64_t key = KeyOf(options_.seed, input.window, input.unit);
    const float scale = static_cast<float>(loss.valid_tokens);
    for (size_t t = 0; t < layout_.tensors().size(); ++t) {
      const TensorInfo& tensor = layout_.tensors()[t];
      for (int64_t i = 0; i < tensor.elements; ++i) {
        const int64_t element = tensor.arena_offset + i;
        gradient_[i] = scale * (parameters_[element] * kCoupling + Noise(key, element));
      }
      sink.Add(static_cast<int>(t), gradient_.data());
    }
    clock_.WaitUntilNs(end_ns);
    return loss;
  }

  absl::StatusOr<UnitLoss> EvaluateUnit(const UnitInput& input) override {
    const int64_t end_ns = clock_.SteadyNowNs() + options_.unit_ns;
    const UnitLoss loss = LossOf(input);
    clock_.WaitUntilNs(end_ns);
    return loss;
  }

  absl::Status NextTokenLogits(const int32_t*, int64_t, float*) override {
    return absl::UnimplementedError("a synthetic job has no model to sample from");
  }
  int64_t vocabulary() const override { return options_.vocabulary; }
  int64_t WorkspaceBytes() const override { return static_cast<int64_t>(gradient_.size() * sizeof(float)); }

 private:
  UnitLoss LossOf(const UnitInput& input) const {
    ACCRUE_CHECK(parameters_ != nullptr);
    UnitLoss loss;
    const int64_t targets = input.rows * input.sequence_length;
    loss.valid_tokens = targets - std::count(input.targets, input.targets + targets, -1);
    double squares = 0;
    for (const TensorInfo& tensor : layout_.tensors()) {
      for (int64_t i = tensor.arena_offset; i < tensor.arena_offset + tensor.elements; ++i) {
        squares += static_cast<double>(parameters_[i]) * parameters_[i];
      }
    }
    loss.loss_sum = static_cast<double>(loss.valid_tokens) * (1 + squares / static_cast<double>(layout_.parameters()));
    return loss;
  }

  const SyntheticOptions options_;
  const Clock& clock_;
  const ParameterLayout layout_;
  std::vector<float> gradient_;         // of one tensor
  const float* parameters_ = nullptr;  // the caller's
};

}  // namespace

absl::StatusOr<SyntheticOptions> ParseSynthetic(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ',');
  SyntheticOptions options;
  double milliseconds = 0;
  const bool timed = absl::SimpleAtod(parts[0], &milliseconds) && milliseconds >= 0 && milliseconds <= kMostMilliseconds;
  const bool sized = parts.size() == 1 ||
                     (parts.size() == 2 && absl::SimpleAtoi(parts[1], &options.parameters) &&
                      options.parameters >= SyntheticOptions::kLeastParameters &&
                      options.parameters <= SyntheticOptions::kMostParameters);
  if (!timed || !sized) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", text, "\": expected MILLISECONDS or MILLISECONDS,PARAMETERS: a time of 0 to ", kMostMilliseconds,
        " ms for a unit, and ", SyntheticOptions::kLeastParameters, " to ", SyntheticOptions::kMostParameters,
        " parameters"));
  }
  options.unit_ns = static_cast<int64_t>(milliseconds * 1e6);
  return options;
}

absl::StatusOr<std::unique_ptr<Engine>> CreateSyntheticEngine(const SyntheticOptions& options, const Clock& clock) {
  // Two tensors, of which one decays, as a model has them.
  const int64_t bias = std::max<int64_t>(1, options.parameters / 16);
  ACCRUE_ASSIGN_OR_RETURN(ParameterLayout layout,
                          ParameterLayout::Build({{absl::StrCat(kSyntheticPrefix, "weight"), {options.parameters - bias, 1}},
                                                  {absl::StrCat(kSyntheticPrefix, "bias"), {bias}}}));
  return std::make_unique<SyntheticEngine>(options, clock, std::move(layout));
}

}  // namespace accrue
