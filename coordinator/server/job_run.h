// What the event loop keeps of a job beside the core: its files, its data's order, its pace.
//
// Not thread-safe: the event loop's, but for `resolved`, which never changes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "accrue/v1/client.pb.h"
#include "accrue/v1/job.pb.h"
#include "common/data/dataset.h"
#include "common/folder_lock.h"
#include "coordinator/core/core.h"
#include "coordinator/journal/journal.h"
#include "coordinator/server/window_log.h"

namespace accrue {

// Tokens per second and time to go, from the commits of one run: the first commit starts the watch, so that loading and
// the first window count for nothing; evaluation and checkpoints in between do count.
class Pace {
 public:
  void Committed(int64_t now_ns, int64_t tokens) {
    if (commits_++ == 0) {
      first_ns_ = now_ns;
    } else {
      tokens_ += tokens;
    }
    last_ns_ = now_ns;
  }
  double TokensPerSecond() const {
    return last_ns_ > first_ns_ ? static_cast<double>(tokens_) / (static_cast<double>(last_ns_ - first_ns_) * 1e-9) : 0;
  }
  // 0 while it cannot be told.
  double SecondsFor(int64_t windows) const {
    if (commits_ < 2 || windows <= 0) return 0;
    return static_cast<double>(last_ns_ - first_ns_) * 1e-9 / static_cast<double>(commits_ - 1) *
           static_cast<double>(windows);
  }

 private:
  int64_t commits_ = 0;
  int64_t first_ns_ = 0, last_ns_ = 0;
  int64_t tokens_ = 0;  // of all commits but the first
};

struct JobRun {
  JobRecord record;
  std::shared_ptr<const v1::ResolvedJob> resolved;
  bool in_core = false;                // else it was over before this coordinator started
  std::unique_ptr<Dataset> data;       // null once the job is over
  std::unique_ptr<FolderLock> folder;  // of the output folder; null once the job is over
  std::unique_ptr<WindowLog> log;      // null once the job is over
  std::vector<std::string> tensors;    // of the layout, in order; since there are members
  int64_t parameters = 0;
  std::string mixed;                   // why it is of no single numeric class; empty: it is of one
  std::string seal_communicator;       // the newest of each kind: the one before is dropped from the store
  std::string sync_communicator;
  std::string last_window_line;
  WindowLog::Last before;              // of the window before this run's first
  std::optional<CommitRecord> last_commit;
  std::optional<double> validation_loss;
  Pace pace;
  // Why the job failed for the server's part (a full disk, say), and whether the journal has that already.
  std::string failure;
  bool failure_unrecorded = false;

  void SetLayout(const core::Layout& layout);
};

// The status to show. `view` is the core's, null for a job that is not in it.
v1::JobStatus StatusOf(const JobRun& run, const core::JobView* view);

}  // namespace accrue
