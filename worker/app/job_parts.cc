#include "worker/app/job_parts.h"

#include "common/status.h"
#include "worker/model/spec/model_spec.h"
#include "worker/model/transformer.h"

namespace accrue {
namespace {

AccumulationMode ModeOf(const v1::JobSpec& spec) {
  return spec.accumulation().mode() == "fast" ? AccumulationMode::kFast : AccumulationMode::kExact;
}

OptimizerConfig OptimizerOf(const v1::JobSpec& spec) {
  const v1::OptimizerSpec& optimizer = spec.optimizer();
  OptimizerConfig config;
  config.kind = optimizer.name() == "sgd" ? OptimizerKind::kSgd : OptimizerKind::kAdamW;
  if (optimizer.betas_size() == 2) {
    config.beta1 = optimizer.betas(0);
    config.beta2 = optimizer.betas(1);
  }
  if (optimizer.has_epsilon()) config.epsilon = optimizer.epsilon();
  if (optimizer.has_weight_decay()) config.weight_decay = optimizer.weight_decay();
  if (optimizer.has_momentum()) config.momentum = optimizer.momentum();
  if (spec.has_clip_norm()) config.clip_norm = spec.clip_norm();
  return config;
}

}  // namespace

const char* RecomputeName(Recompute recompute) {
  switch (recompute) {
    case Recompute::kNone:
      return "none";
    case Recompute::kNorms:
      return "norms";
    case Recompute::kAttention:
      return "attention";
    case Recompute::kBlock:
      return "block";
  }
  return "";
}

Recompute RecomputeOf(const v1::JobSpec& spec) {
  for (const Recompute recompute : kRecomputeLevels) {
    if (spec.recompute() == RecomputeName(recompute)) return recompute;
  }
  return Recompute::kNone;
}

DType StoredAs(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
    case Precision::kTf32:
      return DType::kF32;
    case Precision::kBf16:
      return DType::kBF16;
    case Precision::kFp16:
      return DType::kF16;
  }
  return DType::kF32;
}

absl::StatusOr<std::unique_ptr<Engine>> MakeTransformer(const v1::JobSpec& spec, Backend& backend) {
  ACCRUE_ASSIGN_OR_RETURN(const ModelConfig model, ModelConfigFromSpec(spec.model()));
  return CreateTransformer({.model = model,
                            .precision = StoredAs(PrecisionOf(spec.precision())),
                            .tf32 = PrecisionOf(spec.precision()) == Precision::kTf32,
                            .rows = spec.batch().micro_batch(),
                            .sequence_length = spec.batch().sequence_length(),
                            .seed = spec.seed(),
                            .recompute = RecomputeOf(spec)},
                           backend);
}

absl::StatusOr<std::unique_ptr<TrainingState>> MakeState(const v1::JobSpec& spec, const ParameterLayout& layout,
                                                         Backend& backend) {
  return TrainingState::Create(OptimizerOf(spec), ModeOf(spec), layout, backend);
}

absl::StatusOr<std::unique_ptr<Accumulator>> MakeAccumulator(const v1::JobSpec& spec, const ParameterLayout& layout,
                                                             Backend& backend) {
  return Accumulator::Create(ModeOf(spec), layout, backend);
}

}  // namespace accrue
