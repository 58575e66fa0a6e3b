// Named places in the protocol's code at which a process can be made to fail, for tests of recovery.
//
//   accrue-worker --fault "worker.unit_begun@3#2=kill"    the second unit begun of window 3
//   accrued       --fault "coordinator.commit_recorded=stop"
//   accrue-worker --fault "flip-gradient@3"               one bit, of one gradient, of window 3
//
// Without such a flag a place costs one relaxed load and one predicted branch; places are steps of a window, units and
// buckets, never elements. With one, the process writes "fault injected: ..." to standard error and does what it says,
// once: each --fault fires a single time in the life of a process, or, with --fault-once FOLDER, of all processes that are
// given that folder.
//
// Thread-safe. ArmFaults is called once, before threads are started.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace accrue {

// X(identifier, name, scenario, actions, has a window, where it is)
//
// scenario: which run of tests/chaos comes by there. The tests are made from this list, so that a point that no run
// comes by fails its own test. actions: what can be asked for: P (kill, stop, exit, hang), E (those and error), N and D (the
// same without hang: nobody watches before anything is served, nor threads that write checkpoints or form communicators
// ahead), K (kill, half way through a write), F (a flip of one bit, asked for by the name alone).
#define ACCRUE_WORKER_FAULT_POINTS(X)                                                                                \
  X(kWorkerHelloSent, "worker.hello_sent", "join", P, false, "Hello is queued")                                      \
  X(kWorkerWelcomed, "worker.welcomed", "join", P, false, "Welcome came")                                            \
  X(kWorkerLoading, "worker.loading", "join", P, false, "a job is assigned, nothing of it is loaded")                \
  X(kWorkerLoaded, "worker.loaded", "join", P, false, "the job is loaded, JobLoaded not yet queued")                 \
  X(kWorkerProbed, "worker.probed", "start", P, false, "the probe is computed, not yet reported")                    \
  X(kWorkerPlanTaken, "worker.plan_taken", "train", P, true, "a Plan's units are taken")                             \
  X(kWorkerUnitBegun, "worker.unit_begun", "train", E, true, "before a unit's data are read")                        \
  X(kWorkerUnitAdded, "worker.unit_added", "train", P, true, "a unit is in the accumulator, its report is not made") \
  X(kWorkerUnitReported, "worker.unit_reported", "train", P, true, "a unit's report is made")                        \
  X(kWorkerEvaluated, "worker.evaluated", "checkpoint", P, true, "an evaluation unit is done, not yet reported")          \
  X(kWorkerAuditBegun, "worker.audit_begun", "audit", E, true, "before a unit is computed to be compared")            \
  X(kWorkerAudited, "worker.audited", "audit", P, true, "a unit to be compared is done, not yet reported")           \
  X(kWorkerRecallTaken, "worker.recall_taken", "recall", P, true, "a Recall came, nothing is given back")            \
  X(kWorkerReturnedSent, "worker.returned_sent", "recall", P, true, "Returned is queued")                            \
  X(kWorkerComputed, "worker.computed", "train", P, true, "all units are done, WindowComputed not yet queued")       \
  X(kWorkerComputedSent, "worker.computed_sent", "train", P, true, "WindowComputed is queued")                       \
  X(kWorkerSealTaken, "worker.seal_taken", "train", P, true, "a Seal is acted on")                                   \
  X(kWorkerForming, "worker.communicator_forming", "start", E, true, "before members meet")                          \
  X(kWorkerFormed, "worker.communicator_formed", "start", P, true, "members have met")                               \
  X(kWorkerBucketReducing, "worker.bucket_reducing", "train", E, true, "before a bucket's all-reduce")               \
  X(kWorkerBucketReduced, "worker.bucket_reduced", "train", P, true, "a bucket's sums are here, not yet checked")    \
  X(kWorkerBucketFinal, "worker.bucket_final", "train", P, true, "a bucket is final")                                \
  X(kWorkerReduced, "worker.reduced", "train", P, true, "all buckets are final, nothing is stepped")                 \
  X(kWorkerStepped, "worker.stepped", "train", P, true, "the update is applied, Stepped not yet queued")             \
  X(kWorkerSteppedSent, "worker.stepped_sent", "train", P, true, "Stepped is queued")                                \
  X(kWorkerCommitTaken, "worker.commit_taken", "train", P, true, "a Commit came")                                    \
  X(kWorkerReplayTaken, "worker.replay_taken", "replay", P, true, "a Replay came, the attempt is thrown away")       \
  X(kWorkerAbortTaken, "worker.abort_taken", "abort", P, true, "an Abort came")                                      \
  X(kWorkerReduceFailedSent, "worker.reduce_failed_sent", "abort", P, true, "ReduceFailed is queued")                \
  X(kWorkerShardBegun, "worker.shard_begun", "checkpoint", D, true, "before a checkpoint's shard is written")             \
  X(kWorkerShardHalf, "worker.shard_half", "checkpoint", N, false, "half of a shard's arrays are written")                \
  X(kWorkerShardWritten, "worker.shard_written", "checkpoint", N, true, "a shard is in place, not yet reported")          \
  X(kWorkerSyncBegun, "worker.sync_begun", "sync", E, true, "a StateSync is acted on")                               \
  X(kWorkerSyncSent, "worker.sync_chunk_sent", "sync_source", E, true, "the source has sent a chunk of the state")     \
  X(kWorkerSyncReceived, "worker.sync_chunk_received", "sync", E, true, "a joiner has received a chunk of the state") \
  X(kWorkerSynced, "worker.synced", "sync", P, true, "the state is sent or received, not yet said")                  \
  X(kWorkerCopyBegun, "worker.copy_begun", "join", E, true, "a CopyState is acted on")                               \
  X(kWorkerCopyRunSent, "worker.copy_run_sent", "source", E, true, "the source has sent a run of the state")         \
  X(kWorkerCopyRunReceived, "worker.copy_run_received", "join", E, true, "a joiner has received a run of the state") \
  X(kWorkerCopyStepSent, "worker.copy_step_sent", "follow_source", E, true, "the source has sent a window's sums")    \
  X(kWorkerCopyStepped, "worker.copy_stepped", "follow", E, true, "a joiner has stepped by a window's sums")         \
  X(kWorkerCopied, "worker.copied", "join", P, true, "a joiner holds the state of a window, not yet said")           \
  X(kWorkerPreparing, "worker.preparing", "join", D, true, "before a communicator is formed beside the work")         \
  X(kWorkerPrepared, "worker.prepared", "join", N, true, "it is formed, Prepared not yet queued")                    \
  X(kWorkerDraining, "worker.draining", "drain", P, false, "Leaving is queued")                                      \
  X(kWorkerLeavingAtOnce, "worker.leaving_at_once", "leave", P, false, "before Leaving is queued, at once")          \
  X(kWorkerLinkLost, "worker.link_lost", "restart", P, true, "a worker that holds a job sees that its stream is lost") \
  X(kWorkerReconnecting, "worker.reconnecting", "restart", P, false, "the stream is lost, none is opened yet")       \
  X(kWorkerHoldingSent, "worker.holding_sent", "restart", P, true, "Holding is queued")                              \
  X(kFlipParameter, "flip-parameter", "flip", F, true, "a parameter, before the window's first unit")                \
  X(kFlipGradient, "flip-gradient", "flip", F, true, "a unit's gradient, before it is added")                        \
  X(kFlipAccumulator, "flip-accumulator", "flip", F, true, "an accumulator, after a unit was added")                 \
  X(kFlipWire, "flip-wire", "flip", F, true, "what a member puts into a bucket's all-reduce")                        \
  X(kFlipReducedBucket, "flip-reduced-bucket", "flip", F, true, "what a member got out of a bucket's all-reduce")    \
  X(kFlipMoment, "flip-moment", "flip", F, true, "an optimizer moment, before the step")

#define ACCRUE_COORDINATOR_FAULT_POINTS(X)                                                                            \
  X(kCoordinatorTermRaised, "coordinator.term_raised", "restart", N, false, "the term is raised, no job is taken up") \
  X(kCoordinatorTakenUp, "coordinator.taken_up", "restart", N, false, "jobs are taken up, nothing is served yet")     \
  X(kCoordinatorWelcoming, "coordinator.welcoming", "start", P, false, "a worker's Hello came, Welcome not yet queued") \
  X(kCoordinatorHoldingReceived, "coordinator.holding_received", "restart", P, true, "a Holding came, nothing follows from it yet") \
  X(kCoordinatorRestored, "coordinator.restored", "restart", P, true, "members are back; epoch and plans are recorded and queued") \
  X(kCoordinatorReturnedReceived, "coordinator.returned_received", "recall", P, true, "a Returned came, its units are not leased") \
  X(kCoordinatorExpelling, "coordinator.expelling", "lie", P, false, "a worker is to be refused, it is not yet told") \
  X(kCoordinatorEpochRecording, "coordinator.epoch_recording", "join", P, false, "before a new epoch's transaction")  \
  X(kCoordinatorEpochRecorded, "coordinator.epoch_recorded", "join", P, false, "an epoch is durable, not yet told")   \
  X(kCoordinatorAttemptRecording, "coordinator.attempt_recording", "replay", P, true, "before a new attempt's transaction") \
  X(kCoordinatorAttemptRecorded, "coordinator.attempt_recorded", "replay", P, true, "an attempt is durable, not yet told") \
  X(kCoordinatorCommitRecording, "coordinator.commit_recording", "train", P, true, "before a commit's transaction")   \
  X(kCoordinatorCommitWritten, "coordinator.commit_written", "train", P, true, "within it, before the store commits") \
  X(kCoordinatorCommitRecorded, "coordinator.commit_recorded", "train", P, true, "a commit is durable, not yet logged or told") \
  X(kCoordinatorCommitLineTorn, "coordinator.commit_line_torn", "train", K, true, "half of a commit's line is in windows.jsonl") \
  X(kCoordinatorCommitLogged, "coordinator.commit_logged", "train", P, true, "a commit's line is in windows.jsonl")   \
  X(kCoordinatorEvaluationRecorded, "coordinator.evaluation_recorded", "checkpoint", P, true, "an evaluation is durable, not logged") \
  X(kCoordinatorStateRecorded, "coordinator.state_recorded", "start", P, false, "a job's new state is durable")       \
  X(kCoordinatorAssignSent, "coordinator.assign_sent", "start", P, true, "an AssignJob is on the wire")               \
  X(kCoordinatorPlanSent, "coordinator.plan_sent", "train", P, true, "a Plan is on the wire")                         \
  X(kCoordinatorSealSent, "coordinator.seal_sent", "train", P, true, "a Seal is on the wire, to one member")          \
  X(kCoordinatorCommitSent, "coordinator.commit_sent", "train", P, true, "a Commit is on the wire, to one member")    \
  X(kCoordinatorReplaySent, "coordinator.replay_sent", "replay", P, true, "a Replay is on the wire, to one member")   \
  X(kCoordinatorRecallSent, "coordinator.recall_sent", "recall", P, true, "a Recall is on the wire")                  \
  X(kCoordinatorAbortSent, "coordinator.abort_sent", "abort", P, true, "an Abort is on the wire, to one member")      \
  X(kCoordinatorSyncSent, "coordinator.sync_sent", "sync", P, true, "a StateSync is on the wire, to one worker")      \
  X(kCoordinatorCopySent, "coordinator.copy_sent", "join", P, true, "a CopyState is on the wire, to one worker")      \
  X(kCoordinatorCopyEndSent, "coordinator.copy_end_sent", "join", P, true, "a copy's end is on the wire, to one worker") \
  X(kCoordinatorPrepareSent, "coordinator.prepare_sent", "join", P, true, "a Prepare is on the wire, to one worker")  \
  X(kCoordinatorReleaseSent, "coordinator.release_sent", "drain", P, false, "a Release is on the wire")               \
  X(kCoordinatorCheckpointVerified, "coordinator.checkpoint_verified", "checkpoint", D, true, "shards are verified, no manifest yet") \
  X(kCoordinatorManifestRenaming, "coordinator.manifest_renaming", "checkpoint", D, true, "a manifest is written beside its place") \
  X(kCoordinatorManifestWritten, "coordinator.manifest_written", "checkpoint", N, true, "a manifest is in place, not yet recorded") \
  X(kCoordinatorCheckpointRecorded, "coordinator.checkpoint_recorded", "checkpoint", P, true, "a checkpoint is recorded") \
  X(kCoordinatorNobodyRecorded, "coordinator.nobody_recorded", "rollback", P, false, "that no member is left is durable") \
  X(kCoordinatorTimelineRecorded, "coordinator.timeline_recorded", "disagree", P, false, "a new timeline is durable, not yet told")

#define ACCRUE_FAULT_POINT_ID(id, name, scenario, actions, windowed, where) id,
enum class FaultPoint : uint8_t {
  ACCRUE_WORKER_FAULT_POINTS(ACCRUE_FAULT_POINT_ID) ACCRUE_COORDINATOR_FAULT_POINTS(ACCRUE_FAULT_POINT_ID)
};
#undef ACCRUE_FAULT_POINT_ID

enum class FaultProcess { kWorker, kCoordinator };

inline constexpr int64_t kNoFaultWindow = -1;
// Of a process that ended itself for "exit".
inline constexpr int kFaultExitCode = 86;

// Arms what --fault says, each "NAME[@WINDOW][#N][=ACTION]": at the Nth passing (default 1) of that window (default any).
// once_folder: what was made in it by another process with the same --fault-once, or by this one's former life, is not
// made again; empty: each process for itself. INVALID_ARGUMENT says what was found and what is expected.
absl::Status ArmFaults(FaultProcess process, const std::vector<std::string>& faults,
                       const std::string& once_folder = "");

// What --list-fault-points prints: a line for each point, "NAME<tab>SCENARIO<tab>ACTION,ACTION,...<tab>where it is".
std::string ListFaultPoints(FaultProcess process);

namespace fault_internal {
extern std::atomic<bool> any_armed;
absl::Status Pass(FaultPoint point, int64_t window);
bool Fires(FaultPoint point, int64_t window);
}  // namespace fault_internal

// The process comes by a point, on the way of that window.
inline void PassFaultPoint(FaultPoint point, int64_t window = kNoFaultWindow) {
  if (fault_internal::any_armed.load(std::memory_order_relaxed)) [[unlikely]] {
    fault_internal::Pass(point, window).IgnoreError();
  }
}

// The same where "error" is allowed: INTERNAL when it was asked for here.
inline absl::Status FaultStatus(FaultPoint point, int64_t window = kNoFaultWindow) {
  if (fault_internal::any_armed.load(std::memory_order_relaxed)) [[unlikely]] {
    return fault_internal::Pass(point, window);
  }
  return absl::OkStatus();
}

// Whether the fault is to be made here and now, by the caller: a flipped bit, half a write.
inline bool FaultFires(FaultPoint point, int64_t window) {
  if (fault_internal::any_armed.load(std::memory_order_relaxed)) [[unlikely]] {
    return fault_internal::Fires(point, window);
  }
  return false;
}

// SIGKILL to this process.
[[noreturn]] void DieOfFault();

}  // namespace accrue
