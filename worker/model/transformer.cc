#include "worker/model/transformer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/binary16.h"
#include "common/status.h"
#include "worker/model/activations.h"
#include "worker/model/parameters.h"
#include "worker/model/passes.h"

namespace accrue {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 30;  // of a unit: rows fit an int32 with room

class Transformer : public Engine {
 public:
  Transformer(const TransformerOptions& options, TransformerTensors tensors, ParameterLayout layout,
              Backend& backend)
      : options_(options),
        model_(options_.model),
        tensors_(std::move(tensors)),
        layout_(std::move(layout)),
        backend_(backend),
        passes_(model_, options_.precision, options_.tf32, options_.seed, tensors_, layout_, backend),
        training_plan_(PlanTraining(model_, options_.precision, options_.rows, options_.sequence_length,
                                    options_.recompute)),
        host_losses_(training_plan_.Rows()),
        host_logits_(SizeOf(options_.precision) * model_.vocabulary) {}

  absl::Status Allocate() {
    const int64_t forward_bytes = ForwardPlan(options_.rows, options_.sequence_length).size_bytes;
    ACCRUE_ASSIGN_OR_RETURN(arena_, backend_.Allocate(std::max(training_plan_.size_bytes, forward_bytes)));
    return passes_.Allocate(options_.sequence_length);
  }

  const ParameterLayout& layout() const override { return layout_; }
  void BindParameters(const float* parameters) override { passes_.BindParameters(parameters); }
  void ParametersChanged() override { passes_.ParametersChanged(); }
  const void* ComputeCopy() const override { return passes_.ComputeCopy(); }
  void InitializeParameters(uint64_t seed, float* host_arena) const override {
    InitializeArena(layout_, tensors_.initial, seed, host_arena);
  }
  int64_t vocabulary() const override { return model_.vocabulary; }

  absl::StatusOr<UnitLoss> ComputeUnit(const UnitInput& input, GradientSink& sink) override {
    if (input.rows != options_.rows) return WrongShape(input, absl::StrCat(options_.rows));
    ACCRUE_RETURN_IF_ERROR(CheckInput(input));
    const Pass pass{training_plan_, arena_->as<std::byte>(), static_cast<float>(model_.dropout), input.window,
                    input.unit, std::ldexp(1.0f, input.loss_scale_exponent)};
    CopyInput(pass, input);
    passes_.Forward(pass);
    passes_.Head(pass, /*backward=*/true);
    passes_.Backward(pass, sink);
    return Loss(pass, input);
  }

  absl::StatusOr<UnitLoss> EvaluateUnit(const UnitInput& input) override {
    if (input.rows < 1 || input.rows > options_.rows) {
      return WrongShape(input, absl::StrCat("1 to ", options_.rows));
    }
    ACCRUE_RETURN_IF_ERROR(CheckInput(input));
    const ActivationPlan plan = ForwardPlan(input.rows, input.sequence_length);
    const Pass pass{plan, arena_->as<std::byte>(), 0, 0, 0};
    CopyInput(pass, input);
    passes_.Forward(pass);
    passes_.Head(pass, /*backward=*/false);
    return Loss(pass, input);
  }

  absl::Status NextTokenLogits(const int32_t* tokens, int64_t count, float* host_logits) override {
    if (count < 1 || count > model_.context) {
      return absl::InvalidArgumentError(absl::StrCat("a prompt of ", count, " tokens; expected 1 to ",
                                                     model_.context, ", the model's context"));
    }
    ACCRUE_RETURN_IF_ERROR(CheckRange("token", tokens, count, count, 0));
    ACCRUE_RETURN_IF_ERROR(passes_.PrepareRope(count));
    const ActivationPlan plan = ForwardPlan(1, count);
    std::unique_ptr<DeviceBuffer> own;  // a prompt may be longer than a unit
    if (plan.size_bytes > static_cast<int64_t>(arena_->size_bytes())) {
      ACCRUE_ASSIGN_OR_RETURN(own, backend_.Allocate(plan.size_bytes));
    }
    const Pass pass{plan, (own ? own : arena_)->as<std::byte>(), 0, 0, 0};
    backend_.CopyToDevice(pass.At(plan.tokens), tokens, count * sizeof(int32_t));
    passes_.Forward(pass);
    passes_.HeadForward(pass, count - 1, 1);
    backend_.CopyToHost(host_logits_.data(), pass.At(plan.logits), host_logits_.size());
    ReadLogits(host_logits);
    return absl::OkStatus();
  }

  int64_t WorkspaceBytes() const override {
    return static_cast<int64_t>(arena_->size_bytes()) + passes_.SizeBytes();
  }

 private:
  ActivationPlan ForwardPlan(int64_t rows, int64_t sequence_length) const {
    return PlanForward(model_, options_.precision, rows, sequence_length);
  }

  absl::Status WrongShape(const UnitInput& input, absl::string_view rows) const {
    return absl::InvalidArgumentError(
        absl::StrCat("unit ", input.unit, " of window ", input.window, " has ", input.rows, " sequences of ",
                     input.sequence_length, " tokens; expected ", rows, " of ", options_.sequence_length));
  }

  // `values` within [least, vocabulary); what: "token" or "target".
  absl::Status CheckRange(absl::string_view what, const int32_t* values, int64_t count,
                          int64_t sequence_length, int32_t least) const {
    for (int64_t i = 0; i < count; ++i) {
      if (values[i] >= least && values[i] < model_.vocabulary) continue;
      return absl::InvalidArgumentError(absl::StrCat(what, " ", values[i], " at sequence ",
                                                     i / sequence_length, ", position ", i % sequence_length,
                                                     "; expected ", least, " to ", model_.vocabulary - 1));
    }
    return absl::OkStatus();
  }

  absl::Status CheckInput(const UnitInput& input) const {
    if (input.sequence_length != options_.sequence_length)
      return WrongShape(input, absl::StrCat(options_.rows));
    const int64_t T = input.sequence_length, count = input.rows * T;
    absl::Status status = CheckRange("token", input.tokens, count, T, 0);
    if (status.ok()) status = CheckRange("target", input.targets, count, T, -1);
    if (status.ok()) return status;
    return Annotate(status, absl::StrCat("unit ", input.unit, " of window ", input.window));
  }

  void CopyInput(const Pass& pass, const UnitInput& input) {
    const size_t size_bytes = pass.plan.Rows() * sizeof(int32_t);
    backend_.CopyToDevice(pass.At(pass.plan.tokens), input.tokens, size_bytes);
    backend_.CopyToDevice(pass.At(pass.plan.targets), input.targets, size_bytes);
  }

  UnitLoss Loss(const Pass& pass, const UnitInput& input) {
    UnitLoss loss;
    backend_.CopyToHost(host_losses_.data(), pass.At(pass.plan.losses), pass.plan.Rows() * sizeof(double));
    for (int64_t r = 0; r < pass.plan.Rows(); ++r) {
      if (input.targets[r] < 0) continue;
      loss.loss_sum += host_losses_[r];
      ++loss.valid_tokens;
    }
    return loss;
  }

  void ReadLogits(float* logits) const {
    for (int64_t i = 0; i < model_.vocabulary; ++i) {
      if (options_.precision == DType::kF32) {
        logits[i] = reinterpret_cast<const float*>(host_logits_.data())[i];
        continue;
      }
      const uint16_t bits = reinterpret_cast<const uint16_t*>(host_logits_.data())[i];
      logits[i] = options_.precision == DType::kF16 ? Binary16ToFloat(bits) : std::bit_cast<float>(uint32_t{bits} << 16);
    }
  }

  const TransformerOptions options_;
  const ModelConfig& model_;
  const TransformerTensors tensors_;
  const ParameterLayout layout_;
  Backend& backend_;
  Passes passes_;
  const ActivationPlan training_plan_;
  std::unique_ptr<DeviceBuffer> arena_;
  std::vector<double> host_losses_;
  std::vector<std::byte> host_logits_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateTransformer(const TransformerOptions& options,
                                                          Backend& backend) {
  ACCRUE_RETURN_IF_ERROR(ValidateModelConfig(options.model));
  if (options.sequence_length < 1 || options.sequence_length > options.model.context) {
    return absl::InvalidArgumentError(absl::StrCat("sequence_length is ", options.sequence_length,
                                                   "; expected 1 to model.context, ", options.model.context));
  }
  if (options.rows < 1 || options.rows > kMostTokens / options.sequence_length) {
    return absl::InvalidArgumentError(absl::StrCat("micro_batch is ", options.rows, "; expected 1 to ",
                                                   kMostTokens / options.sequence_length));
  }
  const bool supported = options.tf32 ? !backend.Tf32NumericClass().empty() : backend.Supports(options.precision);
  if (!supported) {
    return absl::UnimplementedError(absl::StrCat(backend.DeviceName(), " does not compute in ",
                                                 options.tf32 ? "tf32" : NameOf(options.precision),
                                                 "; use another precision or device"));
  }
  if (options.model.HeadSize() > backend.LargestHeadSize()) {
    return absl::UnimplementedError(absl::StrCat("attention heads of ", options.model.HeadSize(), " elements; ",
                                                 backend.DeviceName(), " computes heads of up to ",
                                                 backend.LargestHeadSize()));
  }
  TransformerTensors tensors = DescribeTensors(options.model);
  ACCRUE_ASSIGN_OR_RETURN(ParameterLayout layout, ParameterLayout::Build(tensors.shapes));
  auto transformer = std::make_unique<Transformer>(options, std::move(tensors), std::move(layout), backend);
  ACCRUE_RETURN_IF_ERROR(Annotate(transformer->Allocate(), "memory for activations and scratch"));
  return std::unique_ptr<Engine>(std::move(transformer));
}

}  // namespace accrue
