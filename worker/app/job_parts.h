// The parts of a job that hold memory, each built from the job's spec: by a worker that loads the job, and by the dry
// run that says how much it would take (memory_estimate.h).
//
// Thread-safe: the functions share nothing. The backend and the layout must outlive what is built.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "accrue/v1/job.pb.h"
#include "common/precision.h"
#include "worker/accumulate/accumulator.h"
#include "worker/backend/backend.h"
#include "worker/engine/engine.h"
#include "worker/model/activations.h"
#include "worker/optimizer/training_state.h"

namespace accrue {

// "none" of kNone, and so on: the job file's words.
const char* RecomputeName(Recompute recompute);
// What is no such word, such as that of a job from before there were any, is kNone.
Recompute RecomputeOf(const v1::JobSpec& spec);

// How activations and compute copies are stored.
DType StoredAs(Precision precision);

// The spec is valid, has its defaults, and its model's shape. Codes of CreateTransformer.
absl::StatusOr<std::unique_ptr<Engine>> MakeTransformer(const v1::JobSpec& spec, Backend& backend);

// RESOURCE_EXHAUSTED when memory is short.
absl::StatusOr<std::unique_ptr<TrainingState>> MakeState(const v1::JobSpec& spec, const ParameterLayout& layout,
                                                         Backend& backend);
absl::StatusOr<std::unique_ptr<Accumulator>> MakeAccumulator(const v1::JobSpec& spec, const ParameterLayout& layout,
                                                             Backend& backend);

}  // namespace accrue
