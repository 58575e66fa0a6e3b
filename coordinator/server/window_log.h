// DIR/windows.jsonl, one JSON object for each committed window, and DIR/evaluations.jsonl, one for each evaluation:
// once and in order, whatever ended the run before.
//
// Not thread-safe. The journal is what is durable at a commit; these files follow it and are mended from it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/file_system.h"
#include "coordinator/journal/journal.h"

namespace accrue {

// One line, without the newline. Doubles have all their digits; what is not finite is null.
std::string WindowLine(const CommitRecord& commit);
std::string EvaluationLine(const EvaluationRecord& evaluation);

class WindowLog {
 public:
  // Makes the files end just before `next_window`: a torn last line and windows from there on are cut, windows that
  // are missing are taken from `journaled` (in order); evaluations likewise, up to the newest of `evaluated`, or of the
  // state at next_window. `warnings` takes what cannot be mended.
  static absl::StatusOr<std::unique_ptr<WindowLog>> Open(FileSystem& file_system, const std::string& directory,
                                                         Window next_window,
                                                         const std::vector<CommitRecord>& journaled,
                                                         const std::vector<EvaluationRecord>& evaluated,
                                                         std::vector<std::string>& warnings);

  // A window or evaluation that is there already is passed over. RESOURCE_EXHAUSTED when the disk is full.
  absl::Status Append(const CommitRecord& commit);
  absl::Status Append(const EvaluationRecord& evaluation);
  // Lines written so far survive the machine.
  absl::Status Sync();

  // The last line's values, 0 and empty without one: what a job resumed from a checkpoint shows before its first commit.
  struct Last {
    double loss = 0;
    std::string digest;
  };
  const Last& last() const { return last_; }

 private:
  WindowLog() = default;
  std::unique_ptr<WritableFile> windows_;
  std::unique_ptr<WritableFile> evaluations_;
  int64_t next_window_ = 0;
  int64_t next_evaluation_ = 0;  // the least number of windows applied that was not evaluated yet
  Last last_;
};

}  // namespace accrue
