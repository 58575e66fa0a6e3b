#include "worker/app/memory_estimate.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"
#include "worker/app/job_parts.h"
#include "worker/backend/measuring_backend.h"
#include "worker/core/state_copy.h"
#include "worker/model/activations.h"
#include "worker/model/spec/model_spec.h"

namespace accrue {
namespace {

// What a valid spec allows (common/spec/validate.cc), and an engine (worker/model/transformer.cc).
constexpr int64_t kMostMicroBatch = 65536;
constexpr int64_t kMostUnitTokens = int64_t{1} << 30;

// The reduce's (worker/core/reducer.cc): 8 bytes an element of the largest bucket.
int64_t StagingBytes(const ParameterLayout& layout) {
  int64_t largest = 0;
  for (const Bucket& bucket : layout.buckets()) largest = std::max(largest, bucket.elements);
  return largest * static_cast<int64_t>(sizeof(int64_t));
}

// The engine's arena: units are computed and evaluated in the same one.
int64_t ActivationBytes(const v1::JobSpec& spec, const ModelConfig& model, Recompute recompute,
                        int64_t micro_batch) {
  const DType precision = StoredAs(PrecisionOf(spec.precision()));
  const int64_t T = spec.batch().sequence_length();
  return std::max(PlanTraining(model, precision, micro_batch, T, recompute).size_bytes,
                  PlanForward(model, precision, micro_batch, T).size_bytes);
}

// Of batch.sequences, those that a micro_batch may be; descending.
std::vector<int64_t> Divisors(const v1::JobSpec& spec) {
  std::vector<int64_t> divisors;
  const int64_t most = std::min({spec.batch().sequences(), kMostMicroBatch,
                                 kMostUnitTokens / std::max<int64_t>(1, spec.batch().sequence_length())});
  for (int64_t candidate = most; candidate >= 1; --candidate) {
    if (spec.batch().sequences() % candidate == 0) divisors.push_back(candidate);
  }
  return divisors;
}

int64_t Mebibytes(int64_t bytes) { return (bytes >> 20) + (bytes % (1 << 20) != 0); }

std::string Taken(const MemoryEstimate& estimate, const Backend& backend) {
  return absl::StrCat("the job takes ", Mebibytes(estimate.total_bytes), " MiB on ", backend.DeviceName(),
                      ": parameters ", Mebibytes(estimate.parameter_bytes + estimate.compute_copy_bytes),
                      ", optimizer ", Mebibytes(estimate.optimizer_bytes), ", accumulator ",
                      Mebibytes(estimate.accumulator_bytes), ", activations ",
                      Mebibytes(estimate.activation_bytes), ", gradients ",
                      Mebibytes(estimate.gradient_bytes), ", staging ", Mebibytes(estimate.staging_bytes));
}

// Settings with which the job, too large as it is, would fit; or that there are none.
absl::StatusOr<std::string> WhatFits(const v1::JobSpec& spec, const MemoryEstimate& estimate,
                                     int64_t free_bytes) {
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<LevelEstimate> levels,
                          EstimateLevels(spec, estimate, free_bytes));
  const Recompute chosen = RecomputeOf(spec);
  std::vector<std::string> ways;
  for (const LevelEstimate& level : levels) {
    if (level.recompute <= chosen || level.total_bytes > free_bytes) continue;
    ways.push_back(absl::StrCat("recompute: ", RecomputeName(level.recompute), " (",
                                Mebibytes(level.total_bytes), " MiB; the same results, in more time)"));
    break;
  }
  const LevelEstimate& now = levels[static_cast<size_t>(chosen)];
  if (now.largest_micro_batch > 0) {
    ways.push_back(
        absl::StrCat("batch.micro_batch: ", now.largest_micro_batch, " (other units, so other results)"));
  }
  for (const LevelEstimate& level : levels) {
    if (!ways.empty() || level.largest_micro_batch == 0) continue;
    ways.push_back(absl::StrCat("recompute: ", RecomputeName(level.recompute), " and batch.micro_batch: ",
                                level.largest_micro_batch, " (other units, so other results)"));
  }
  if (!ways.empty()) return absl::StrCat("it would fit with ", absl::StrJoin(ways, ", or with "));
  const int64_t least = estimate.total_bytes - estimate.activation_bytes;
  return absl::StrCat("no recompute level and no micro_batch would fit: all but activations takes ",
                      Mebibytes(least), " MiB; take a smaller model, or a device with more memory");
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
  ACCRUE_ASSIGN_OR_RETURN(const ModelConfig model, ModelConfigFromSpec(spec.model()));
  estimate.activation_bytes = ActivationBytes(spec, model, RecomputeOf(spec), spec.batch().micro_batch());
  const DType stored = StoredAs(PrecisionOf(spec.precision()));
  if (stored != DType::kF32) estimate.compute_copy_bytes = layout.arena_elements() * SizeOf(stored);
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

absl::StatusOr<std::vector<LevelEstimate>> EstimateLevels(const v1::JobSpec& spec,
                                                          const MemoryEstimate& estimate,
                                                          int64_t memory_bytes) {
  ACCRUE_ASSIGN_OR_RETURN(const ModelConfig model, ModelConfigFromSpec(spec.model()));
  const int64_t others_bytes = estimate.total_bytes - estimate.activation_bytes;
  const std::vector<int64_t> divisors = Divisors(spec);
  std::vector<LevelEstimate> levels;
  for (const Recompute recompute : kRecomputeLevels) {
    LevelEstimate level{.recompute = recompute};
    level.activation_bytes = ActivationBytes(spec, model, recompute, spec.batch().micro_batch());
    level.total_bytes = others_bytes + level.activation_bytes;
    const auto fits = [&](int64_t micro_batch) {
      return others_bytes + ActivationBytes(spec, model, recompute, micro_batch) <= memory_bytes;
    };
    const auto largest = std::find_if(divisors.begin(), divisors.end(), fits);
    if (largest != divisors.end()) level.largest_micro_batch = *largest;
    levels.push_back(level);
  }
  return levels;
}

absl::Status ReserveMemory(const v1::JobSpec& spec, Backend& backend) {
  ACCRUE_ASSIGN_OR_RETURN(const MemoryEstimate estimate, EstimateMemory(spec));
  std::string short_of;
  if (backend.ReservesMemory()) {
    const absl::Status reserved =
        backend.Reserve(static_cast<size_t>(estimate.total_bytes), estimate.buffers);
    if (reserved.code() != absl::StatusCode::kResourceExhausted) return reserved;
    short_of = std::string(reserved.message());
  }
  const absl::optional<int64_t> free_bytes = backend.FreeBytes();
  if (short_of.empty()) {
    if (!free_bytes || estimate.total_bytes <= *free_bytes) return absl::OkStatus();
    short_of = absl::StrCat("available is ", *free_bytes >> 20, " MiB");
  }
  std::string error = absl::StrCat(Taken(estimate, backend), ": ", short_of);
  if (free_bytes) {
    // A device may refuse what is free only in pieces: less than this is needed in any case.
    const int64_t most_bytes = std::min(*free_bytes, estimate.total_bytes - 1);
    ACCRUE_ASSIGN_OR_RETURN(const std::string fits, WhatFits(spec, estimate, most_bytes));
    absl::StrAppend(&error, "; ", fits);
  }
  return absl::ResourceExhaustedError(error);
}

}  // namespace accrue
