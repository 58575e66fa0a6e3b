#include "worker/app/memory_estimate.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "worker/app/job_parts.h"
#include "worker/backend/measuring_backend.h"
#include "worker/core/state_copy.h"
#include "worker/model/activations.h"
#include "worker/model/spec/model_spec.h"

namespace accrue {
namespace {

constexpr int64_t kBf16Bytes = 2;

// The reduce's (worker/core/reducer.cc): 8 bytes an element of the largest bucket.
int64_t StagingBytes(const ParameterLayout& layout) {
  int64_t largest = 0;
  for (const Bucket& bucket : layout.buckets()) largest = std::max(largest, bucket.elements);
  return largest * static_cast<int64_t>(sizeof(int64_t));
}

// The engine's arena: units are computed and evaluated in the same one.
absl::StatusOr<int64_t> ActivationBytes(const v1::JobSpec& spec) {
  ACCRUE_ASSIGN_OR_RETURN(const ModelConfig model, ModelConfigFromSpec(spec.model()));
  const DType precision = spec.precision() == "bf16" ? DType::kBF16 : DType::kF32;
  const int64_t rows = spec.batch().micro_batch(), T = spec.batch().sequence_length();
  return std::max(PlanTraining(model, precision, rows, T, RecomputeOf(spec)).size_bytes,
                  PlanForward(model, precision, rows, T).size_bytes);
}

}  // namespace

absl::StatusOr<MemoryEstimate> EstimateMemory(const v1::JobSpec& spec) {
  const std::unique_ptr<Backend> operations = CreateCpuBackend(1);
  MeasuringBackend backend(*operations);
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, MakeTransformer(spec, backend));
  const int64_t engine_bytes = backend.allocated_bytes();
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<TrainingState> state, MakeState(spec, engine->layout(), backend));
  const int64_t state_bytes = backend.allocated_bytes() - engine_bytes;
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<Accumulator> accumulator,
                          MakeAccumulator(spec, engine->layout(), backend));

  const ParameterLayout& layout = engine->layout();
  MemoryEstimate estimate;
  estimate.parameters = layout.parameters();
  estimate.parameter_bytes = layout.arena_elements() * static_cast<int64_t>(sizeof(float));
  estimate.optimizer_bytes = state_bytes - estimate.parameter_bytes;
  estimate.accumulator_bytes = backend.allocated_bytes() - engine_bytes - state_bytes;
  ACCRUE_ASSIGN_OR_RETURN(estimate.activation_bytes, ActivationBytes(spec));
  if (spec.precision() == "bf16") estimate.compute_copy_bytes = layout.arena_elements() * kBf16Bytes;
  estimate.gradient_bytes = engine_bytes - estimate.activation_bytes - estimate.compute_copy_bytes;
  estimate.staging_bytes = StagingBytes(layout);
  estimate.total_bytes = backend.allocated_bytes() + estimate.staging_bytes;
  if (accumulator->mode() == AccumulationMode::kExact) {
    estimate.joining_bytes = kSpareAccumulators * estimate.accumulator_bytes;
  }
  estimate.buffers = backend.buffers() + 1;
  for (const StateArray& array : state->arrays()) {
    estimate.checkpoint_bytes += array.elements * static_cast<int64_t>(sizeof(float));
  }
  return estimate;
}

absl::Status ReserveMemory(const v1::JobSpec& spec, Backend& backend) {
  if (!backend.ReservesMemory()) return absl::OkStatus();
  ACCRUE_ASSIGN_OR_RETURN(const MemoryEstimate estimate, EstimateMemory(spec));
  const auto mebibytes = [](int64_t bytes) { return (bytes >> 20) + (bytes % (1 << 20) != 0); };
  return Annotate(
      backend.Reserve(static_cast<size_t>(estimate.total_bytes), estimate.buffers),
      absl::StrCat("the job takes ", mebibytes(estimate.total_bytes), " MiB on ", backend.DeviceName(), ": parameters ",
                   mebibytes(estimate.parameter_bytes + estimate.compute_copy_bytes), ", optimizer ",
                   mebibytes(estimate.optimizer_bytes), ", accumulator ", mebibytes(estimate.accumulator_bytes),
                   ", activations ", mebibytes(estimate.activation_bytes), ", gradients ",
                   mebibytes(estimate.gradient_bytes), ", staging ", mebibytes(estimate.staging_bytes)));
}

}  // namespace accrue
