// Workers as they are shown: their status, who is slow, and which one a person means.
//
// Thread-safe: pure functions.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "accrue/v1/client.pb.h"
#include "coordinator/core/core.h"

namespace accrue {

// In the order of their incarnations. A worker is measured against its job's others by its own compute per unit, so
// that one that waits for a slow one is not slow itself.
std::vector<v1::WorkerStatus> StatusOfWorkers(const std::vector<core::WorkerView>& workers);

// The one that has this number as its incarnation, else this name. NOT_FOUND without one; FAILED_PRECONDITION, with
// their incarnations, for a name that several have.
absl::StatusOr<core::WorkerView> FindWorker(const std::vector<core::WorkerView>& workers,
                                            const std::string& incarnation_or_name);

}  // namespace accrue
