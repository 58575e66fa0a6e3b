// What the coordinator must not forget: jobs, commits, the ledger. An interface, so that another store can take the
// place of the embedded one (sqlite_journal.h).
//
// Thread-safe: the event loop writes, any thread reads. Every call that writes is one transaction: after an error
// nothing of it is there. Errors, unless said otherwise: RESOURCE_EXHAUSTED (full disk), DATA_LOSS (damaged store),
// INTERNAL; each names the store and what to do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/ids.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/types.h"

namespace accrue {

struct JobRecord {
  JobId id;
  std::string name;
  std::string resolved_json;  // proto ResolvedJob; the journal does not look inside
  std::string output_directory;
  core::JobState state = core::JobState::kWaiting;
  std::string reason;
  int64_t submitted_unix_ns = 0;
  int64_t until_window = 0;
  Timeline timeline;  // the highest on record
  Window start_window;  // that StartTimeline, or AddJob, gave
  bool paused = false;  // people asked for it, whatever the state is meanwhile
};

struct CommitRecord {
  core::WindowRecord window;
  int64_t committed_unix_ns = 0;
  std::optional<double> validation_loss;  // of the parameters after this window
};

struct LedgerRecord {
  int64_t sequence = 0;  // from 1, without gaps within a job
  int64_t unix_ns = 0;
  core::LedgerEntry entry;
};

struct EvaluationRecord {
  Window window;  // windows applied to the parameters that were evaluated
  double loss = 0;
  int64_t tokens = 0;
};

struct CheckpointRecord {
  Window window;
  std::string digest;
  int64_t written_unix_ns = 0;
};

// A file's hash, good as long as path, size and time of change are the same.
struct FileHash {
  std::string path;
  uint64_t size_bytes = 0;
  int64_t modified_unix_ns = 0;
  std::string xxh3_128;
};

class Journal {
 public:
  virtual ~Journal() = default;

  // Durable when it returns; higher than any term before, also after the store was lost.
  virtual absl::StatusOr<Term> RaiseTerm() = 0;
  // The highest that any record names; 0 without one.
  virtual absl::StatusOr<Incarnation> HighestIncarnation() = 0;

  // NAME-N with an N that no job had.
  virtual absl::StatusOr<JobId> NewJobId(const std::string& name) = 0;
  // ALREADY_EXISTS for a known id.
  virtual absl::Status AddJob(const JobRecord& job) = 0;
  // In order of submission.
  virtual absl::StatusOr<std::vector<JobRecord>> Jobs() = 0;
  // The job goes on from start_window: later commits and evaluations stay on record, but Commits and Evaluations no
  // longer show them.
  virtual absl::Status StartTimeline(const JobId& job, Timeline timeline, Window start_window) = 0;

  virtual absl::Status SetPaused(const JobId& job, bool paused) = 0;

  // The Persist effects among `effects`, all or none.
  virtual absl::Status Record(absl::Span<const core::Effect> effects, int64_t now_unix_ns) = 0;

  // Of the job's present history, in order, at most `limit` from `first_window` on.
  virtual absl::StatusOr<std::vector<CommitRecord>> Commits(const JobId& job, Window first_window, int64_t limit) = 0;
  // The newest one; nothing before the first commit.
  virtual absl::StatusOr<std::optional<CommitRecord>> LastCommit(const JobId& job) = 0;
  // Who held what when the last coordinator ended; nothing where no member of the present timeline is on record.
  virtual absl::StatusOr<std::optional<core::LiveState>> Live(const JobId& job) = 0;
  // What the job's members last agreed on; nothing before there were any.
  virtual absl::StatusOr<std::optional<core::Layout>> LayoutOf(const JobId& job) = 0;
  // What a former timeline committed for this window; empty without one.
  virtual absl::StatusOr<std::string> SupersededDigest(const JobId& job, Window window) = 0;
  virtual absl::StatusOr<std::vector<EvaluationRecord>> Evaluations(const JobId& job, Window first_window) = 0;
  virtual absl::StatusOr<std::vector<CheckpointRecord>> Checkpoints(const JobId& job) = 0;
  virtual absl::StatusOr<std::vector<LedgerRecord>> Ledger(const JobId& job, int64_t first_sequence,
                                                           int64_t limit) = 0;

  // Empty when the file has changed or is not known.
  virtual absl::StatusOr<std::string> FindFileHash(const FileHash& file) = 0;
  virtual absl::Status PutFileHash(const FileHash& file) = 0;

  // Copies the store aside, for the day when it is found damaged. Slow; does not hold up other calls.
  virtual absl::Status BackUp() = 0;
};

}  // namespace accrue
