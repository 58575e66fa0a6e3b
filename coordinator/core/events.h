// What happens to the coordinator: the only input of Core::Apply.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "coordinator/core/types.h"

namespace accrue::core {

// ---- from people ----
struct JobSubmitted {
  JobConfig config;
  StartPoint start;
};
struct JobCancelled {
  JobId job;
  std::string reason;
  bool checkpoint = false;  // write one first; the state afterwards is kCancelled all the same
};
struct JobPaused {
  JobId job;
};
struct JobResumed {
  JobId job;
};

// ---- from workers: `from` is set by the server, from the stream that it came on ----
struct WorkerJoined {
  Incarnation incarnation;  // new, given by Core::NextIncarnation
  std::string name, numeric_class, backend, device, host;
  int64_t process_id = 0;
  int threads = 0;
};
struct WorkerGone {
  Incarnation from;
  std::string reason;
};
struct WorkerHeartbeat {
  Incarnation from;
  int64_t memory_bytes = 0;
};
struct JobLoaded {
  Incarnation from;
  Key key;
  std::string digest;
  std::vector<int64_t> tensor_elements;
  int64_t buckets = 0;
  std::vector<int> exponents;
};
struct UnitsReported {
  Incarnation from;
  Key key;
  bool probe = false;
  std::vector<UnitReport> reports;
};
struct WindowComputed {
  Incarnation from;
  Key key;
  std::string parameter_hash;
  std::vector<BucketManifest> buckets;  // one entry stands for all when they are alike
  double local_gradient_norm = 0;
};
struct WorkerStepped {
  Incarnation from;
  Key key;
  std::string digest;
  double gradient_norm = 0;
  double clip_coefficient = 1;
  PhaseTimes phases;
  int64_t memory_bytes = 0;
};
struct ReduceFailed {
  Incarnation from;
  Key key;
  std::string reason;
  std::vector<Incarnation> unreachable;
};
struct EvaluationReported {
  Incarnation from;
  Key key;
  std::vector<EvaluationReport> reports;
};
struct CheckpointShardWritten {
  Incarnation from;
  Key key;  // of the Seal or CheckpointNow that ordered it
  Window checkpoint_window;
  std::vector<CheckpointFile> files;
  std::string error;
};
struct StateSynced {
  Incarnation from;
  Key key;
  std::string digest;
};
struct WorkerLeaving {
  Incarnation from;
  std::string reason;
};
struct WorkerFailedJob {
  Incarnation from;
  Key key;
  std::string status, reason;
  bool fatal_for_job = false;
};

// ---- from the server ----
// The answer to a FinishCheckpoint effect.
struct CheckpointFinished {
  JobId job;
  Window window;
  std::string error;      // empty: manifest written, all files verified
  std::string directory;  // of the checkpoint, as AssignJob::checkpoint_directory is to name it
};
struct Tick {};

using Event = std::variant<JobSubmitted, JobCancelled, JobPaused, JobResumed, WorkerJoined, WorkerGone,
                           WorkerHeartbeat, JobLoaded, UnitsReported, WindowComputed, WorkerStepped,
                           ReduceFailed, EvaluationReported, CheckpointShardWritten, StateSynced,
                           WorkerLeaving, WorkerFailedJob, CheckpointFinished, Tick>;

}  // namespace accrue::core
