// From a submitted spec to a job that can be run: checked, with its defaults, its data pinned.
//
// Thread-safe: the functions share nothing but the journal's cache of hashes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "accrue/v1/client.pb.h"
#include "accrue/v1/job.pb.h"
#include "common/data/dataset.h"
#include "common/file_system.h"
#include "coordinator/core/types.h"
#include "coordinator/journal/journal.h"
#include "coordinator/server/data_pins.h"

namespace accrue {

struct ResolvedSubmission {
  v1::ResolvedJob job;  // job_id and, where the request has none, output_directory are still empty
  std::unique_ptr<Dataset> data;
  int64_t until_window = 0;
  std::vector<std::string> warnings;
};

// INVALID_ARGUMENT for a spec, an `until` or data that cannot be used; NOT_FOUND for weights or data that are not there;
// the other codes of PinData.
absl::StatusOr<ResolvedSubmission> ResolveSubmission(FileSystem& file_system, Journal& journal,
                                                     const std::vector<std::string>& data_roots,
                                                     const v1::SubmitRequest& request);

// What the core needs to know of the job.
core::JobConfig ConfigOf(const v1::ResolvedJob& job, int64_t until_window);

// The job as text, for DIR/job.json and the journal, and back. DATA_LOSS when it is no such text.
std::string ResolvedJobToJson(const v1::ResolvedJob& job);
absl::StatusOr<v1::ResolvedJob> ResolvedJobFromJson(const std::string& text);

}  // namespace accrue
