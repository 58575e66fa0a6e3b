// A job's windows on this worker, from JobLoaded to Release. docs/life_of_a_window.md walks through it.
//
// Used by the compute thread alone, which drives the engine; messages reach it through the inbox, one unit of work at a
// time between looks. Nothing is waited for while there is work.
//
// Invariants:
//  1. Work is done on window state.window() only; the share of the next one waits.
//  2. A seal is acted on when the window before it has committed.
//  3. What is in the accumulator is exactly the units reported of the current attempt, or final sums. A reduce that
//     fails changes no more than the number of final buckets: the attempt stays open for further units and seals.
//  4. The loss of the coordinator stops no work. After it, nothing is begun before the next coordinator was told what is
//     held.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "accrue/v1/worker.pb.h"
#include "common/clock.h"
#include "worker/core/checkpoint_sink.h"
#include "worker/core/collective_guard.h"
#include "worker/core/inbox.h"
#include "worker/core/job.h"
#include "worker/core/link.h"
#include "worker/core/preparer.h"
#include "worker/core/recollection.h"
#include "worker/core/reducer.h"
#include "worker/core/stall_watch.h"
#include "worker/core/state_sender.h"
#include "worker/core/unit_reporter.h"
#include "worker/core/window_share.h"
#include "worker/trace/tracer.h"

namespace accrue {

// What a runner works with; all of it must outlive the runner.
struct RunnerContext {
  CoordinatorLink& link;
  Inbox& inbox;
  CollectiveGuard& guard;
  CollectiveFactory& collectives;
  CheckpointSink& checkpoints;
  const Clock& clock;
  int64_t collective_deadline_ms = 20'000;
  StallWatch* stall_watch = nullptr;  // null: nobody watches
  Preparer* preparer = nullptr;       // null: every communicator is formed at its first seal
  Tracer* tracer = nullptr;           // null: nothing is traced
};

// How a job ended on this worker.
struct RunEnd {
  enum class Kind {
    kReleased,    // by the coordinator
    kFailed,      // JobFailed was sent
    kSuperseded,  // by `event`, which is the worker's to act on: AssignJob, Joined without resumed, LifeOver
    kLeft,        // as the operator asked, while no coordinator was there
  };
  Kind kind = Kind::kReleased;
  std::string reason;
  bool shut_down = false;  // kReleased: the process is to end too
  bool rejoin = false;     // kFailed: what this incarnation holds is wrong, but a new one may do
  std::optional<InboxEvent> event;
};

// INVALID_ARGUMENT is fatal for the job; every other code only says that this worker is unfit.
v1::WorkerMessage JobFailedMessage(const v1::Key& key, const absl::Status& status);

class WindowRunner {
 public:
  WindowRunner(const RunnerContext& context, const v1::AssignJob& assignment, Job& job);
  ~WindowRunner();

  RunEnd Run();
  int64_t units_computed() const { return units_computed_; }  // added to the accumulator, whatever became of them

 private:
  // ---- messages ----
  std::optional<RunEnd> Handle(InboxEvent& event);
  std::optional<RunEnd> HandleMessage(InboxEvent& event);
  absl::Status OnProbe(const v1::Probe& probe);
  void OnPlan(const v1::Plan& plan);
  void OnReplay(const v1::Replay& replay);
  void OnRecall(const v1::Recall& recall);
  absl::Status OnSeal(const v1::Seal& seal);
  absl::Status OnCommit(const v1::Commit& commit);
  void OnAbort(const v1::Abort& abort);
  void OnStateSync(const v1::StateSync& sync);
  void OnCheckpointNow(const v1::CheckpointNow& order);

  // ---- the state, copied beside the work: runner_copying.cc ----
  void OnCopyState(const v1::CopyState& order);
  void SendState(const v1::CopyState& order);
  void StopSending();
  void ReceiveState(const v1::CopyState& order);
  absl::Status BeforeWait();
  void SendCopied(const v1::CopyState& order, int64_t window, const std::string& digest, const std::string& error);

  // ---- a coordinator that goes away, and another: runner_reconnect.cc ----
  std::optional<RunEnd> OnLinkLost(const LinkLost& lost);
  std::optional<RunEnd> OnJoined(Joined& joined);
  std::optional<RunEnd> OnDrainRequested(const DrainRequested& drain);
  void SendHolding();
  void SendLeaving();

  // ---- a window's life, in this order ----
  absl::Status Work();  // one unit, or what follows the last
  absl::Status ComputeUnit(WindowShare& share);
  absl::Status EvaluateUnit(WindowShare& share);
  absl::Status AuditUnit(WindowShare& share);
  absl::Status FinishComputing(WindowShare& share);
  absl::Status CheckOpenBuckets(WindowShare& share);
  absl::Status CheckFinalBuckets(const WindowShare& share);
  absl::Status ActOnSeal(const v1::Seal& seal);
  absl::Status ReduceAndStep(const v1::Seal& seal, WindowShare& share, StepOutcome* outcome);

  // ---- helpers ----
  WindowShare* CurrentShare();  // null without a plan
  bool Refuse(const char* what, const v1::Key& key);  // true, and logs, if the key is not current
  absl::Status Begin(WindowShare& share);
  UnitInput Scaled(UnitInput input) const;  // with the accumulator's loss scale
  void ExpectUnits();
  void SendLoaded();
  void SendReduceFailed(const v1::Key& key, const absl::Status& status,
                        const google::protobuf::RepeatedField<int64_t>& members);
  int64_t FinalBuckets(const v1::Key& key);  // held of this window and attempt
  std::string ParameterHash();               // of what the engine computes with
  RunEnd Fail(const absl::Status& status);
  v1::Key OwnKey() const;
  int64_t Now() const { return context_.clock.SteadyNowNs(); }

  Recollection memory_;
  CoordinatorLink& thread_safe_link_;  // the session's
  const RunnerContext context_;  // with memory_ for its link
  Job& job_;
  v1::Key assigned_;  // as AssignJob said, and of the coordinator's term
  Reducer reducer_;
  UnitReporter reporter_;

  std::string sending_;                    // the name of sender_'s copy
  std::unique_ptr<StateSender> sender_;    // while a newcomer copies from here
  std::map<int64_t, WindowShare> shares_;  // by window: the current one and those after it
  bool awaits_commit_ = false;             // of the window before state.window()
  std::string stepped_digest_;             // of that window, here
  std::optional<v1::Seal> held_seal_;      // came before that commit
  int64_t units_computed_ = 0;
  int64_t checkpoint_ns_ = 0;              // spent on a snapshot since the last Stepped
  bool connected_ = true;                  // as far as the inbox was read
  std::optional<std::string> leaving_;     // why, once the operator wishes it
};

}  // namespace accrue
