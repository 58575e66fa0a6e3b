// A job's output folder before it starts: is it this job's, and from where does the job go on?
//
//   DIR/job.json         the resolved job; what the folder belongs to
//   DIR/windows.jsonl, DIR/evaluations.jsonl    window_log.h
//   DIR/checkpoints/     common/checkpoint/manifest.h
//
// Thread-safe: the functions share nothing. Two jobs must not use one folder at once: the caller sees to that.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "accrue/v1/job.pb.h"
#include "common/file_system.h"
#include "coordinator/core/types.h"

namespace accrue {

struct FolderRequest {
  bool fresh = false;                  // discard what the folder holds of this job
  std::optional<int64_t> resume_from;  // window of a checkpoint; absent: the newest good one
};

struct FolderStart {
  core::StartPoint start;
  std::vector<std::string> warnings;
};

// Makes the folder the job's and finds where it goes on. A damaged checkpoint is set aside with a warning, and the one
// before it used. FAILED_PRECONDITION: the folder holds another job (the message lists the differences);
// NOT_FOUND: no checkpoint at resume_from; DATA_LOSS: that one is damaged.
absl::StatusOr<FolderStart> PrepareFolder(FileSystem& file_system, const v1::ResolvedJob& job,
                                          const FolderRequest& request);

// Only the search for the newest good checkpoint, for a job that is known to own the folder.
absl::StatusOr<FolderStart> FindStart(FileSystem& file_system, const v1::ResolvedJob& job,
                                      std::optional<int64_t> resume_from);

}  // namespace accrue
