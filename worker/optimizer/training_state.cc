#include "worker/optimizer/training_state.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace accrue {
namespace {

class TrainingStateImpl : public TrainingState {
 public:
  using Buffers = std::vector<std::unique_ptr<DeviceBuffer>>;

  TrainingStateImpl(const OptimizerConfig& config, AccumulationMode mode, const ParameterLayout& layout,
                    Backend& backend, Buffers buffers)
      : config_(config),
        mode_(mode),
        layout_(layout),
        backend_(backend),
        buffers_(std::move(buffers)),
        hashes_(layout.chunks().size() * buffers_.size()) {
    for (const TensorInfo& tensor : layout.tensors()) {
      for (size_t array = 0; array < buffers_.size(); ++array) {
        arrays_.push_back({tensor.name, "pmv"[array], tensor.shape, tensor.elements});
      }
    }
  }

  float* parameters() override { return Array(0); }
  const ParameterLayout& layout() const override { return layout_; }
  AccumulationMode mode() const override { return mode_; }
  int64_t window() const override { return window_; }
  int64_t steps() const override { return steps_; }
  const std::vector<int>& exponents() const override { return exponents_; }

  void Start(const float* host_arena) override {
    backend_.CopyToDevice(buffers_[0]->data(), host_arena, buffers_[0]->size_bytes());
    for (size_t array = 1; array < buffers_.size(); ++array) {
      backend_.Zero(buffers_[array]->data(), buffers_[array]->size_bytes());
    }
    hashes_are_current_ = false;
    SetProgress(0, 0, {});
    loss_scale_.reset();
  }

  const std::optional<LossScale>& loss_scale() const override { return loss_scale_; }
  void SetLossScale(const std::optional<LossScale>& loss_scale) override { loss_scale_ = loss_scale; }

  void SetExponents(const std::vector<int>& exponents) override {
    CheckExponents(exponents);
    exponents_ = exponents;
  }

  StepOutcome Step(Accumulator& accumulator, const StepInput& input) override {
    ACCRUE_CHECK(input.valid_tokens > 0 && accumulator.mode() == mode_);
    CheckExponents(input.next_exponents);
    for (size_t b = 0; b < layout_.buckets().size(); ++b)
      ACCRUE_CHECK(accumulator.final(static_cast<int>(b)));

    StepOutcome outcome;
    outcome.gradient_norm = accumulator.Norm(input.valid_tokens);
    if (config_.clip_norm > 0) {
      outcome.clip_coefficient = std::min(1.0, config_.clip_norm / (outcome.gradient_norm + 1e-6));
    }
    UpdateArgs args = Scalars(input);
    // Fast sums are still of the scaled loss.
    const int scaled_by = mode_ == AccumulationMode::kFast ? accumulator.loss_scale_exponent() : 0;
    args.scale = ScaleOf(std::ldexp(outcome.clip_coefficient, -scaled_by), input);
    for (size_t t = 0; t < layout_.tensors().size(); ++t)
      UpdateTensor(accumulator, static_cast<int>(t), args);

    hashes_are_current_ = true;
    window_ += 1;
    steps_ += 1;
    exponents_ = input.next_exponents;
    loss_scale_ = input.next_loss_scale;
    outcome.digest = DigestOfHashes();
    return outcome;
  }

  StepOutcome Skip() override {
    window_ += 1;
    return {.digest = Digest()};
  }

  Hash128 Digest() override {
    for (size_t t = 0; t < layout_.tensors().size(); ++t) {
      const TensorInfo& tensor = layout_.tensors()[t];
      Hash128* hashes = HashesOf(tensor);
      for (size_t array = 0; array < buffers_.size(); ++array, hashes += tensor.chunks) {
        backend_.state_ops().HashChunks(Array(array) + tensor.arena_offset, tensor.elements, sizeof(float),
                                        hashes);
      }
    }
    hashes_are_current_ = true;
    return DigestOfHashes();
  }

  Hash128 ParameterHash(const void* compute_copy) override {
    return HashParameters(compute_copy, [this](const TensorInfo& tensor) {
      return HashOf(buffers_[0]->data(), tensor, sizeof(float));
    });
  }

  Hash128 HeldParameterHash(const void* compute_copy) override {
    if (!hashes_are_current_) return ParameterHash(compute_copy);
    return HashParameters(compute_copy, [this](const TensorInfo& tensor) {
      return absl::MakeConstSpan(HashesOf(tensor), tensor.chunks);  // those of p come first
    });
  }

  const std::vector<StateArray>& arrays() const override { return arrays_; }

  void ReadArray(int index, float* host) const override {
    backend_.CopyToHost(host, ArrayAt(index), SizeBytes(index));
  }
  void WriteArray(int index, const float* host) override {
    backend_.CopyToDevice(ArrayAt(index), host, SizeBytes(index));
    hashes_are_current_ = false;
  }

  void ReadRun(const StateRun& run, float* host) const override {
    for (size_t array = 0; array < buffers_.size(); ++array, host += run.elements) {
      backend_.CopyToHost(host, RunAt(array, run), RunBytes(run));
    }
  }
  void WriteRun(const StateRun& run, const float* host) override {
    for (size_t array = 0; array < buffers_.size(); ++array, host += run.elements) {
      backend_.CopyToDevice(RunAt(array, run), host, RunBytes(run));
    }
    hashes_are_current_ = false;
  }
  void StepRun(const StateRun& run, const int64_t* sums, int exponent, double clip_coefficient,
               const StepInput& input) override {
    ACCRUE_CHECK(mode_ == AccumulationMode::kExact && run.first % kChunkElements == 0);
    const TensorInfo& tensor = layout_.tensors()[run.tensor];
    UpdateArgs args = Scalars(input);
    args.scale = ScaleOf(clip_coefficient, input);
    args.weight_decay = tensor.decays ? static_cast<float>(config_.weight_decay) : 0.0f;
    backend_.state_ops().Update(sums, run.elements, exponent, args, RunAt(0, run), RunAt(1, run),
                                buffers_.size() > 2 ? RunAt(2, run) : nullptr, nullptr);
    hashes_are_current_ = false;
  }

  const float* ArrayData(int index) const override { return ArrayAt(index); }
  float* MutableArrayData(int index) override {
    hashes_are_current_ = false;
    return ArrayAt(index);
  }

  void SetProgress(int64_t window, int64_t steps, const std::vector<int>& exponents) override {
    if (!exponents.empty()) CheckExponents(exponents);
    window_ = window;
    steps_ = steps;
    exponents_ = exponents;
  }

 private:
  static_assert(sizeof(Hash128) == 16, "hashes are hashed as they lie");

  float* Array(size_t array) const { return buffers_[array]->as<float>(); }
  float* ArrayAt(int index) const {
    const size_t count = buffers_.size();
    return Array(index % count) + layout_.tensors()[index / count].arena_offset;
  }
  float* RunAt(size_t array, const StateRun& run) const {
    return Array(array) + layout_.tensors()[run.tensor].arena_offset + run.first;
  }
  static size_t RunBytes(const StateRun& run) { return static_cast<size_t>(run.elements) * sizeof(float); }
  static float ScaleOf(double clip_coefficient, const StepInput& input) {
    return static_cast<float>(clip_coefficient / static_cast<double>(input.valid_tokens));
  }
  size_t SizeBytes(int index) const { return static_cast<size_t>(arrays_[index].elements) * sizeof(float); }
  Hash128* HashesOf(const TensorInfo& tensor) { return &hashes_[tensor.first_chunk * buffers_.size()]; }

  // Of the tensor's chunks in `values`, which is laid out as the arena. Valid until the next call.
  absl::Span<const Hash128> HashOf(const void* values, const TensorInfo& tensor, int element_bytes) {
    chunk_hashes_.resize(tensor.chunks);
    backend_.state_ops().HashChunks(static_cast<const char*>(values) + tensor.arena_offset * element_bytes,
                                    tensor.elements, element_bytes, chunk_hashes_.data());
    return chunk_hashes_;
  }

  template <typename HashesOfTensor>
  Hash128 HashParameters(const void* compute_copy, HashesOfTensor hashes_of) {
    constexpr int kCopyElementBytes = 2;  // bf16 or fp16
    Hasher hasher;
    hasher.Update("accrue-parameters-1\n");
    const auto add = [&hasher](absl::Span<const Hash128> hashes) {
      hasher.Update(hashes.data(), hashes.size() * sizeof(Hash128));
    };
    for (const TensorInfo& tensor : layout_.tensors()) {
      add(hashes_of(tensor));
      if (compute_copy != nullptr) add(HashOf(compute_copy, tensor, kCopyElementBytes));
    }
    return hasher.Finish();
  }

  void CheckExponents(const std::vector<int>& exponents) const {
    ACCRUE_CHECK(exponents.size() == (mode_ == AccumulationMode::kExact ? layout_.tensors().size() : 0));
  }

  UpdateArgs Scalars(const StepInput& input) const {
    UpdateArgs args;
    args.kind = config_.kind;
    args.learning_rate = input.learning_rate;
    args.beta1 = static_cast<float>(config_.beta1);
    args.beta2 = static_cast<float>(config_.beta2);
    args.one_minus_beta1 = static_cast<float>(1 - config_.beta1);
    args.one_minus_beta2 = static_cast<float>(1 - config_.beta2);
    args.epsilon = static_cast<float>(config_.epsilon);
    args.bias_correction1 = input.bias_correction1;
    args.bias_correction2 = input.bias_correction2;
    args.momentum = static_cast<float>(config_.momentum);
    return args;
  }

  void UpdateTensor(const Accumulator& accumulator, int index, UpdateArgs args) {
    const TensorInfo& tensor = layout_.tensors()[index];
    args.weight_decay = tensor.decays ? static_cast<float>(config_.weight_decay) : 0.0f;
    float* p = Array(0) + tensor.arena_offset;
    float* m = Array(1) + tensor.arena_offset;
    float* v = buffers_.size() > 2 ? Array(2) + tensor.arena_offset : nullptr;
    if (mode_ == AccumulationMode::kExact) {
      backend_.state_ops().Update(accumulator.ExactTensor(index), tensor.elements,
                                  accumulator.exponents()[index], args, p, m, v, HashesOf(tensor));
    } else {
      backend_.state_ops().Update(accumulator.FastTensor(index), tensor.elements, args, p, m, v,
                                  HashesOf(tensor));
    }
  }

  // docs/numerics.md, section 9, from hashes_.
  Hash128 DigestOfHashes() const {
    Hasher hasher;
    hasher.Update(absl::StrCat("accrue-state-1\nwindow ", window_, "\nsteps ", steps_, "\noptimizer ",
                               config_.kind == OptimizerKind::kAdamW ? "adamw" : "sgd", "\n"));
    if (loss_scale_) {
      hasher.Update(absl::StrCat("loss_scale ", loss_scale_->exponent, " ", loss_scale_->good_windows, "\n"));
    }
    for (size_t t = 0; t < layout_.tensors().size(); ++t) {
      const TensorInfo& tensor = layout_.tensors()[t];
      hasher.Update(absl::StrCat("tensor ", tensor.name, " ", tensor.elements, " "));
      hasher.Update(exponents_.empty() ? std::string("-\n") : absl::StrCat(exponents_[t], "\n"));
    }
    hasher.Update(hashes_.data(), hashes_.size() * sizeof(Hash128));
    return hasher.Finish();
  }

  const OptimizerConfig config_;
  const AccumulationMode mode_;
  const ParameterLayout& layout_;
  Backend& backend_;
  const Buffers buffers_;  // p, m and, for AdamW, v: arena_elements each
  std::vector<StateArray> arrays_;

  int64_t window_ = 0;
  int64_t steps_ = 0;
  std::vector<int> exponents_;
  std::optional<LossScale> loss_scale_;
  // Per tensor those of its arrays' chunks, in the digest's order.
  std::vector<Hash128> hashes_;
  bool hashes_are_current_ = false;
  std::vector<Hash128> chunk_hashes_;  // of one array of one tensor
};

}  // namespace

absl::StatusOr<std::unique_ptr<TrainingState>> TrainingState::Create(const OptimizerConfig& config,
                                                                     AccumulationMode mode,
                                                                     const ParameterLayout& layout,
                                                                     Backend& backend) {
  const int arrays = config.kind == OptimizerKind::kAdamW ? 3 : 2;
  TrainingStateImpl::Buffers buffers;
  for (int array = 0; array < arrays; ++array) {
    absl::StatusOr<std::unique_ptr<DeviceBuffer>> buffer =
        backend.Allocate(static_cast<size_t>(layout.arena_elements()) * sizeof(float));
    if (!buffer.ok()) {
      return Annotate(buffer.status(),
                      absl::StrCat("training state of ", layout.parameters(), " parameters"));
    }
    buffers.push_back(*std::move(buffer));
  }
  return std::make_unique<TrainingStateImpl>(config, mode, layout, backend, std::move(buffers));
}

}  // namespace accrue
