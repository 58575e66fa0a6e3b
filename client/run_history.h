// What a run left on record, window by window: read from an output folder's windows.jsonl, or from the coordinator
// that has the job.
//
// Thread-safe: the function shares nothing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "accrue/v1/job.pb.h"
#include "client/commands.h"

namespace accrue {

struct RunWindow {
  std::optional<double> loss, gradient_norm;  // nothing where they were not finite
  std::string digest;
  bool skipped = false;
};

struct RunHistory {
  std::string source;                   // as a person named it
  std::optional<v1::ResolvedJob> job;   // nothing for a folder without job.json
  std::map<int64_t, RunWindow> windows;  // by the window's number, from 0
};

// `source` is a run's output folder, or a job's id or name. Of a run that is still at work, what is committed so far.
// NOT_FOUND when it is neither; DATA_LOSS, with the line, for a windows.jsonl that is not what it should be.
absl::StatusOr<RunHistory> ReadRunHistory(CommandContext& context, const std::string& source);

// The job that a run's folder belongs to, from its job.json. NOT_FOUND without one; DATA_LOSS.
absl::StatusOr<v1::ResolvedJob> ReadJobOfFolder(FileSystem& file_system, const std::string& folder);

}  // namespace accrue
