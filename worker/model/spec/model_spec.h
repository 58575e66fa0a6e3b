// The job file's model as the engine takes it.
#pragma once

#include "absl/status/statusor.h"
#include "accrue/v1/job.pb.h"
#include "worker/model/config.h"

namespace accrue {

// Requires a spec whose shape fields are filled in (defaults, or CompleteModel for model.from).
// INVALID_ARGUMENT for an unknown architecture, or sizes that cannot be.
absl::StatusOr<ModelConfig> ModelConfigFromSpec(const v1::ModelSpec& spec);

}  // namespace accrue
