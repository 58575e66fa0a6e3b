// What happens to the coordinator: the only input of Core::Apply.
#pragma once

#include <optional>
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
  std::string name;
  // In fp32, and in the other precisions: processors may differ in one of them alone. Empty: it does not compute that.
  std::string numeric_class, bf16_numeric_class;
  std::string backend, device, host;
  int64_t process_id = 0;
  int threads = 0;
  bool resumed = false;  // an incarnation of a former term that outlived its stream: WorkerHolds follows

  std::string fp16_numeric_class, tf32_numeric_class;

  const std::string& ClassFor(const JobConfig& job) const {
    switch (job.precision) {
      case Precision::kTf32:
        return tf32_numeric_class;
      case Precision::kBf16:
        return bf16_numeric_class;
      case Precision::kFp16:
        return fp16_numeric_class;
      case Precision::kFp32:
        break;
    }
    return numeric_class;
  }
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
  std::string parameter_hash;
  std::vector<std::string> tensors;  // names of tensor_elements
};
struct UnitsReported {
  Incarnation from;
  Key key;
  bool probe = false;
  std::vector<UnitReport> reports;
  bool audit = false;
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
  std::string parameter_hash;
};
struct ReduceFailed {
  Incarnation from;
  Key key;
  std::string reason;
  std::vector<Incarnation> unreachable;
  int64_t final_buckets = 0;
};
// What a resumed worker still has.
struct WorkerHolds {
  struct UncommittedStep {
    WorkerStepped stepped;
    WindowComputed computed;
    Verdict verdict = Verdict::kReduce;  // of the seal that it followed, and what that said
    int64_t valid_tokens = 0;
    double loss_sum = 0;
    int64_t vanished_elements = 0;
    std::vector<int> next_exponents;
    std::optional<LossScale> next_loss_scale;
  };
  Incarnation from;
  Key key;
  std::string digest, parameter_hash;
  std::vector<UnitReport> reports;
  int64_t final_buckets = 0;
  std::vector<EvaluationReport> evaluations;
  std::optional<UncommittedStep> step;
};
struct UnitsReturned {
  Incarnation from;
  Key key;
  std::vector<UnitRange> units;
};
struct CommunicatorPrepared {
  Incarnation from;
  Key key;
  std::string communicator, error;
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
struct StateCopied {
  Incarnation from;
  Key key;
  std::string communicator;
  std::string digest;  // of the state of key.window
  std::string error;   // empty: it holds that state
};
struct WorkerLeaving {
  Incarnation from;
  std::string reason;
  bool at_once = false;  // its units are handed back; else it finishes the window on the way
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
                           ReduceFailed, WorkerHolds, UnitsReturned, CommunicatorPrepared, EvaluationReported, CheckpointShardWritten, StateSynced,
                           StateCopied, WorkerLeaving, WorkerFailedJob, CheckpointFinished, Tick>;

}  // namespace accrue::core
