// What the coordinator does: the only output of Core::Apply.
//
// Effects are carried out in order. A Persist is durable before anything after it is carried out: that is how
// an epoch, an attempt or a commit is never published before it is recorded.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/core/shared_list.h"
#include "coordinator/core/types.h"

namespace accrue::core {

// ---- messages to workers (proto/accrue/v1/worker.proto) ----
struct AssignJob {
  Key key;
  enum class Start { kFromScratch, kFromCheckpoint, kFromMembers } start = Start::kFromScratch;
  std::string checkpoint_directory;
};
struct ProbeOrder {
  Key key;
  std::optional<LossScale> loss_scale;
};
// Adds units and evaluation units to this worker's share of (window, attempt) and replaces the scalars. A
// higher attempt starts over: what was leased in the older one is forgotten, evaluation units are not.
// Whenever a worker has finished all units that it was given for a window (none counts too), it sends
// WindowComputed; once more after further units.
struct Plan {
  Key key;
  std::vector<UnitRange> units;
  StepScalars scalars;
  std::vector<int> exponents;  // empty: those that the last Seal gave
  std::vector<UnitRange> evaluation_units;
  bool evaluation_only = false;
  std::vector<UnitRange> audit_units;  // for their reports alone
  std::optional<LossScale> loss_scale;  // without one: that which the last Seal gave, if any
};
// Give back up to `units` units that are not begun; answered by UnitsReturned.
struct Recall {
  Key key;
  int64_t units = 0;
};
// Form this communicator beside the work; answered by CommunicatorPrepared.
struct Prepare {
  Key key;
  std::string communicator;
  std::vector<Incarnation> members;
};
struct CheckpointOrder {
  Window window;  // windows applied to the state to be written; the server makes the folder's name from it
  int shard = 0;
  int shards = 1;
};
struct Seal {
  Key key;
  Verdict verdict = Verdict::kReduce;
  SharedList<Incarnation> members;  // rank order
  std::string communicator;
  int64_t valid_tokens = 0;
  SharedList<uint64_t> bucket_checksums;
  SharedList<int> next_exponents;
  std::optional<CheckpointOrder> checkpoint;
  std::string reason;
  SharedList<int64_t> final_buckets;  // of each member, in rank order; empty: none
  double loss_sum = 0;
  int64_t vanished_elements = 0;
  std::optional<LossScale> next_loss_scale;
};
// The attempt key.attempt - 1 is void, because a gradient outgrew its exponent or a unit in final buckets came out
// differently: zero the accumulator, final buckets too, and await the Plan of the new attempt. Plans of the next window
// stay valid.
struct Replay {
  Key key;
  std::string reason;
};
struct Commit {
  Key key;
  std::string digest;
};
// Stop what is on the way of this key or an older epoch: the reduce of key.window and key.attempt, or the
// StateSync of this epoch. The answer is ReduceFailed, or Stepped or StateSynced if it was complete already.
struct Abort {
  Key key;
  std::string reason;
};
// Between a commit and the next seal; handled between units. A receiver forgets every plan and accumulator;
// the source keeps its own and goes on. Both answer StateSynced, or ReduceFailed with this key. A newer
// StateSync replaces it.
struct StateSync {
  Key key;
  std::vector<Incarnation>
      members;  // rank order: the source, then the receivers; the job's other members go on
  std::string communicator;
  Incarnation source;
};
// From a member to a newcomer, beside the work; with `end`, no longer. The receiver says StateCopied whenever it holds the
// state of a window; either says so when it breaks.
struct CopyState {
  Key key;
  std::string communicator;
  Incarnation source, receiver;
  bool end = false;
  std::string reason;  // of the end
};
// Snapshot the state held, now, and write this shard of it: a checkpoint that no seal orders (after the last
// window, before a cancel). key.window is the next window; it is sent only between a commit and the next
// seal.
struct CheckpointNow {
  Key key;
  CheckpointOrder order;
};
struct Release {
  Key key;
  std::string reason;
};

using WorkerMessage =
    std::variant<AssignJob, ProbeOrder, Plan, Recall, Prepare, Seal, Replay, Commit, Abort, StateSync,
                 CopyState, CheckpointNow, Release>;

// ---- effects ----
struct Send {
  Incarnation to;
  WorkerMessage message;
  bool may_wait = false;  // it is not needed before what is sent next; the order of what a worker is sent stays
};
// Ends the worker's stream with a refusal; rejoin: it may come back as a new incarnation.
struct Expel {
  Incarnation worker;
  std::string reason;
  bool rejoin = true;
};
// Durable records. A commit's record and its ledger entry share one transaction: all Persist effects of one
// Apply do.
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
// The state that the members hold from here on: when they start, and at each commit, also of a window that was on
// record before.
struct PersistPosition {
  JobId job;
  Timeline timeline;
  Window window;  // windows applied
  int64_t steps = 0;
  std::string digest;
  std::vector<int> exponents;  // of the next window
  std::string parameter_hash;
  std::optional<LossScale> loss_scale;  // of the next window
};
// When the members are fixed, and when one of another numeric class is let in.
struct PersistLayout {
  JobId job;
  Layout layout;
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
// All shards of a checkpoint are reported: write the manifest, verify every file, delete old ones beyond
// `keep`; then answer with CheckpointFinished.
struct FinishCheckpoint {
  JobId job;
  Window window;
  int64_t steps = 0;
  Timeline timeline;
  std::string digest;
  std::vector<int> exponents;
  std::string numeric_class, mixed;  // as in Layout, of this state
  std::vector<CheckpointFile> files;
  std::optional<LossScale> loss_scale;
};
// Members stop waiting for each other under this name.
struct GiveUpCommunicator {
  std::string communicator;
};

using Effect = std::variant<Send, Expel, PersistEpoch, PersistExponents, PersistAttempt, PersistCommit,
                            PersistPosition, PersistLayout, PersistEvaluation, PersistCheckpoint,
                            PersistState, PersistLedger, FinishCheckpoint, GiveUpCommunicator>;

}  // namespace accrue::core
