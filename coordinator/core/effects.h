// What the coordinator does: the only output of Core::Apply.
//
// Effects are carried out in order. A Persist is durable before anything after it is carried out: that is how an
// epoch, an attempt or a commit is never published before it is recorded.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/core/types.h"

namespace accrue::core {

// ---- messages to workers (proto/accrue/v1/worker.proto) ----
struct AssignJob {
  Key key;
  enum class Start { kFromScratch, kFromCheckpoint, kFromMembers } start = Start::kFromScratch;
  std::string checkpoint_directory;
};
struct ProbeOrder { Key key; };
struct Plan {
  Key key;
  std::vector<UnitRange> units;
  StepScalars scalars;
  std::vector<int> exponents;  // empty: those that the last Seal gave
  std::vector<UnitRange> evaluation_units;
  bool evaluation_only = false;
};
struct CheckpointOrder {
  Window window;  // windows applied to the state to be written; the server makes the folder's name from it
  int shard = 0;
  int shards = 1;
};
struct Seal {
  Key key;
  Verdict verdict = Verdict::kReduce;
  std::vector<Incarnation> members;  // rank order
  std::string communicator;
  int64_t valid_tokens = 0;
  std::vector<uint64_t> bucket_checksums;
  std::vector<int> next_exponents;
  std::optional<CheckpointOrder> checkpoint;
  std::string reason;
};
struct Replay {
  Key key;
  std::string reason;
};
struct Commit {
  Key key;
  std::string digest;
};
struct Abort {
  Key key;
  std::string reason;
};
struct StateSync {
  Key key;
  std::vector<Incarnation> members;
  std::string communicator;
  Incarnation source;
};
struct Release {
  Key key;
  std::string reason;
};

using WorkerMessage =
    std::variant<AssignJob, ProbeOrder, Plan, Seal, Replay, Commit, Abort, StateSync, Release>;

// ---- effects ----
struct Send {
  Incarnation to;
  WorkerMessage message;
};
// Ends the worker's stream with a refusal; rejoin: it may come back as a new incarnation.
struct Expel {
  Incarnation worker;
  std::string reason;
  bool rejoin = true;
};
// Durable records. A commit's record and its ledger entry share one transaction: all Persist effects of one Apply do.
struct PersistEpoch {
  JobId job;
  Timeline timeline;
  Epoch epoch;
  Attempt attempt;
  std::vector<Incarnation> members;
};
struct PersistExponents {  // of the first window, from the probe
  JobId job;
  std::vector<int> exponents;
};
struct PersistAttempt {
  JobId job;
  Window window;
  Attempt attempt;
  std::vector<int> exponents;
};
struct PersistCommit {
  JobId job;
  WindowRecord record;
};
struct PersistEvaluation {
  JobId job;
  Window window;  // windows applied to the parameters evaluated
  double loss = 0;
  int64_t tokens = 0;
};
struct PersistCheckpoint {
  JobId job;
  Window window;
  std::string digest;
};
struct PersistState {
  JobId job;
  JobState state = JobState::kWaiting;
  std::string reason;
};
struct PersistLedger {
  JobId job;
  LedgerEntry entry;
};
// All shards of a checkpoint are reported: write the manifest, verify every file, delete old ones beyond `keep`; then
// answer with CheckpointFinished.
struct FinishCheckpoint {
  JobId job;
  Window window;
  int64_t steps = 0;
  Timeline timeline;
  std::string digest;
  std::vector<int> exponents;
  std::vector<CheckpointFile> files;
};
// Members stop waiting for each other under this name.
struct GiveUpCommunicator { std::string communicator; };

using Effect = std::variant<Send, Expel, PersistEpoch, PersistExponents, PersistAttempt, PersistCommit, PersistEvaluation,
                            PersistCheckpoint, PersistState, PersistLedger, FinishCheckpoint, GiveUpCommunicator>;

}  // namespace accrue::core
