// How values of the core are written in the journal's text columns. Reading back what was written gives the same value;
// anything else is DATA_LOSS.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/core/types.h"

namespace accrue {

// "waiting", "starting", ... as JobState's enumerators.
const char* JobStateName(core::JobState state);
absl::StatusOr<core::JobState> ParseJobState(const std::string& name);

std::string ExponentsToText(const std::vector<int>& exponents);
absl::StatusOr<std::vector<int>> ExponentsFromText(const std::string& text);

// "15 3"; empty without one.
std::string LossScaleToText(const std::optional<LossScale>& scale);
absl::StatusOr<std::optional<LossScale>> LossScaleFromText(const std::string& text);

std::string MembersToText(const std::vector<Incarnation>& members);
absl::StatusOr<std::vector<Incarnation>> MembersFromText(const std::string& text);

// The vectors of a layout.
std::string NamesToText(const std::vector<std::string>& names);
absl::StatusOr<std::vector<std::string>> NamesFromText(const std::string& text);
std::string SizesToText(const std::vector<int64_t>& sizes);
absl::StatusOr<std::vector<int64_t>> SizesFromText(const std::string& text);

std::string WorkersToText(const std::vector<core::WorkerWindow>& workers);
absl::StatusOr<std::vector<core::WorkerWindow>> WorkersFromText(const std::string& text);

}  // namespace accrue
