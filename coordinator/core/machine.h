// The state behind Core, and its decisions. docs/life_of_a_window.md names the function of each step.
//
// Handlers (On...) only take down what happened; Advance then does whatever has become possible, in a fixed
// order, until nothing is left to do. So a decision depends on the facts and not on the order in which they
// came in.
//
// One file an idea: jobs.cc, members.cc, classes.cc, joining.cc, copying.cc, preparing.cc, planning.cc, balance.cc, overdue.cc, reports.cc,
// audit.cc, seal.cc, commit.cc, recovery.cc, restore.cc, evaluation.cc, checkpoints.cc; machine.cc has what they share.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "coordinator/core/apportion.h"
#include "coordinator/core/core.h"
#include "coordinator/core/window_run.h"
#include "coordinator/core/worker_map.h"

namespace accrue::core {

// A worker's place in its job.
enum class Role {
  kIdle,      // in no job
  kLoading,   // AssignJob is sent
  kReady,     // loaded; not yet a member
  kCopying,   // receives the state while the members go on
  kSyncing,   // receives the state
  kSynced,    // holds it, while others of the same sync are not done
  kMember,    // of the epoch: computes, reduces, steps
  kDraining,  // leaves; a checkpoint shard of its is still being written
  kResumed,   // outlived the last coordinator; says what it holds
};

// Not the predecessor of any window.
inline constexpr int64_t kNeverSealed = -2;

struct Worker {
  WorkerJoined identity;
  int64_t last_seen_ns = 0;
  int64_t memory_bytes = 0;
  double unit_ns = 0;  // exponentially weighted mean of measured times
  bool measured_once = false;  // unit_ns is that of its first unit
  double belief = 1;           // the part of unit_ns that plans still believe in; below 1, the next measurement replaces it
  int64_t windows = 0;
  JobId job;
  Role role = Role::kIdle;
  std::string held_digest;  // of the state that it loaded; empty: none
  int64_t held_window = 0;
  int64_t sealed_window = kNeverSealed;  // last window that it was sent a seal for, and so the next exponents
  int failed_syncs = 0;
  int failed_copies = 0;
  bool sync_at_once = false;  // it was a member: it copies while the others wait, since they would lack it
  bool leaving = false;
  std::string leaving_reason;
  int64_t leaves_at = 0;      // once so many windows are committed
  std::set<JobId> unfit_for;  // jobs that refused it
};

struct Sync {
  Epoch epoch;
  Incarnation source;
  std::vector<Incarnation> receivers;
  bool source_done = false;
  int64_t waiting = 0;  // of all of them, who has not said that it is done
  std::string communicator;
  int64_t deadline_ns = 0;
};

// The state of one member on its way to one newcomer, beside the work.
struct Copy {
  Incarnation source;
  std::string communicator;
  int reports = 0;               // of states that it held, each too late
  int64_t awaited_until_ns = 0;  // 0: nobody waits for it
  bool unprepared = false;       // it enters with a communicator that is formed at the seal
};

// The communicator of the members and of newcomers that copy the state, formed before these are members.
struct Preparation {
  std::string communicator;
  std::vector<Incarnation> members;  // ascending, newcomers included
  std::set<Incarnation> waiting;     // have not said that it is formed
  int64_t deadline_ns = 0;           // for them to say so
};

// An order to write a checkpoint.
struct CheckpointName {
  int64_t window = 0;  // windows applied
  Epoch epoch;         // of the message that ordered it
  friend bool operator==(const CheckpointName&, const CheckpointName&) = default;
};

struct Checkpoint {
  CheckpointName name;
  std::map<Incarnation, int> shard_of;
  std::vector<std::vector<CheckpointFile>> files;  // by shard; filled as they are reported
  int64_t outstanding = 0;
  bool committed = false;  // the state written is the one that counts; what follows is then set
  int64_t steps = 0;
  std::string digest;
  std::vector<int> exponents;
  std::optional<LossScale> loss_scale;
  std::string numeric_class, mixed;
  bool finishing = false;  // FinishCheckpoint is on the way
};

// After a coordinator's restart, until it is decided what the job goes on from (StartPoint::live has what the journal
// knows).
struct Restoring {
  int64_t deadline_ns = 0;
  std::set<Incarnation> awaited;                // members that have not come back
  std::map<Incarnation, WorkerHolds> holdings;  // of those that have
  std::set<Incarnation> called_off;             // were told to leave the reduce that they may be in
};

inline constexpr int64_t kNobodyLeaves = INT64_MAX;

struct Job {
  int64_t ordinal = 0;  // order of submission
  JobConfig config;
  StartPoint origin;  // what the job would go back to: its newest verified checkpoint, or where it started
  JobState state = JobState::kWaiting;
  std::string reason;
  Timeline timeline;
  Epoch epoch;

  // Of every worker of the job; set by the first one.
  std::string numeric_class;
  std::string mixed;  // why not of every worker; empty: of all that were ever members
  std::vector<std::string> tensors;
  std::vector<int64_t> tensor_elements;
  int64_t parameters = 0;
  int64_t buckets = 0;

  // The state that the members hold.
  int64_t committed = 0;  // windows applied
  int64_t steps = 0;      // of these, windows that stepped
  std::string digest;
  std::vector<int> exponents;  // of the next window; empty before the probe, and in fast mode
  std::optional<LossScale> loss_scale;  // of the next window; in fp16 alone
  std::string parameter_hash;  // of its parameters and compute copies; empty: not known

  std::map<int64_t, std::string> recorded;  // digests of windows committed durably beyond origin.window
  std::map<int64_t, double> evaluated;      // losses by window, of evaluations since origin.window
  double loss = 0;
  std::optional<double> validation_loss;
  int64_t replays = 0;
  int64_t windows_skipped = 0;
  int64_t last_commit_ns = -1;

  std::set<Incarnation> attached;    // every worker that is not idle and belongs here
  std::vector<Incarnation> members;  // ascending; a member's rank is its place
  int64_t loading = 0, ready = 0, leaving_members = 0;
  int64_t next_leave_at = kNobodyLeaves;               // committed windows at which a member is let go
  int64_t min_loaded_at_ns = -1, last_arrival_ns = 0;  // of the gathering
  std::string last_refusal;

  Incarnation prober;
  std::optional<WindowRun> current;  // window `committed`
  std::optional<WindowRun> next;     // window `committed` + 1
  std::vector<Incarnation> lessees;  // of the last plan,
  std::vector<int64_t> shares;       // and their units
  std::string communicator;          // empty: spent; the next seal names a new one
  bool formed_ahead = false;  // `communicator` is kept by the members as such, for no reduce has used it yet
  int rollbacks = 0;          // for want of an agreement, since the last window that was new
  int64_t balance_at_ns = 0;  // when to look again who is late
  int64_t leases_looked_at_ns = 0;  // for leases that are over
  int failed_reduces = 0;           // in a row, without a death
  int64_t seal_not_before_ns = 0;   // a reduce that failed so is not tried again at once
  std::optional<Sync> sync;
  std::map<Incarnation, Copy> copies;  // by receiver; a member is the source of one at most
  int64_t copies_begun = 0;            // by this coordinator
  std::optional<Preparation> preparation;
  int64_t preparations_begun = 0;  // by this coordinator
  std::optional<Evaluation> final_evaluation;
  std::optional<Checkpoint> checkpoint;  // at most one on the way
  std::map<Incarnation, CheckpointName>
      writing;                   // shards that are not reported, of an abandoned checkpoint too
  bool checkpoint_owed = false;  // one was lost: the next seal orders it
  int failed_checkpoints = 0;    // in a row
  bool audits_wait = false;      // for a second worker; the ledger says so
  bool audits_lack_class = false;  // some worker has no second one of its class; the ledger says so
  bool pause_requested = false;
  std::optional<Restoring> restoring;  // then there are no members
  bool going_back = false;             // no holder of the state is left; restarts from `origin`
  std::optional<JobCancelled> cancel;  // accepted, waits for its checkpoint

  std::vector<LedgerEntry> notes;  // decisions that go with the next durable record

  // Whether a window that is computed again must come out the same.
  bool Repeatable() const { return config.exact && mixed.empty(); }
  // Windows after which the job stops.
  int64_t EndWindow() const;
  bool Terminal() const;
};

class Machine {
 public:
  explicit Machine(const CoreOptions& options);

  std::vector<Effect> Apply(const Event& event, int64_t now_ns);
  // "" if a job awaits this incarnation of a former term; else the reason for it to come back as a new one.
  std::string WhyNotAwaited(Incarnation incarnation) const;
  Incarnation NextIncarnation() { return Incarnation(next_incarnation_++); }

  JobView View(const Job& job) const;
  WorkerView View(const Worker& worker) const;
  const std::vector<std::unique_ptr<Job>>& jobs() const { return jobs_; }
  const WorkerMap<Worker>& workers() const { return workers_; }
  const std::map<std::string, int64_t>& dropped() const { return dropped_; }
  const Job* FindJob(const JobId& id) const;

 private:
  // ---- machine.cc: what all parts share ----
  struct Sender {
    Worker* worker = nullptr;
    Job* job = nullptr;
  };
  // The sender of a message about a job, if term, timeline and incarnation are those of today; else counts a
  // drop.
  std::optional<Sender> Accept(Incarnation from, const Key& key);
  Worker* Seen(Incarnation from);  // notes a sign of life; null (and a drop) for one that is gone
  Job* MutableJob(const JobId& id);
  void Drop(const std::string& reason) { ++dropped_[reason]; }
  Key KeyFor(const Job& job, Incarnation worker, int64_t window, Attempt attempt) const;
  void SendTo(Incarnation worker, WorkerMessage message);
  // A decision that must be on disk with this event, and one that may wait for the next such.
  void Record(Job& job, const std::string& kind, const std::string& reason,
              Incarnation worker = Incarnation());
  void Note(Job& job, const std::string& kind, const std::string& reason, Incarnation worker = Incarnation());
  LedgerEntry EntryFor(const Job& job, const std::string& kind, const std::string& reason,
                       Incarnation worker) const;
  void Persist(Job& job, Effect effect);  // with the notes that waited
  void PersistPositionOf(Job& job);
  void SetState(Job& job, JobState state, const std::string& reason);
  void Advance(Job& job);
  bool AdvanceOnce(Job& job);
  void CheckInvariants(const Job& job) const;
  std::string NameOf(Incarnation worker) const;

  // ---- jobs.cc ----
  void OnJobSubmitted(const JobSubmitted& event);
  void OnJobCancelled(const JobCancelled& event);
  void OnJobPaused(const JobPaused& event);
  void OnJobResumed(const JobResumed& event);
  void OnTick();
  bool FinishCancel(Job& job);
  bool FinishJob(Job& job);
  void EndJob(Job& job, JobState state, const std::string& reason);

  // ---- members.cc ----
  void OnWorkerJoined(const WorkerJoined& event);
  void OnWorkerGone(const WorkerGone& event);
  void OnWorkerHeartbeat(const WorkerHeartbeat& event);
  void OnWorkerLeaving(const WorkerLeaving& event);
  void OnWorkerFailedJob(const WorkerFailedJob& event);
  void MatchIdleWorkers();
  void RefuseUnable(Job& job, Worker& worker);
  void EndClosedFleet(Job& job, const std::string& reason);
  void Assign(Job& job, Worker& worker);
  void SetRole(Job& job, Worker& worker, Role role);
  // Ends the worker's stream and forgets it.
  void ExpelWorker(Incarnation worker, const std::string& reason, bool rejoin);
  void ForgetWorker(Incarnation worker, const std::string& reason);
  // Leaves the job; idle afterwards. Refused: never to be assigned to it again.
  void ReleaseWorker(Job& job, Incarnation worker, const std::string& reason, bool refused);
  // Takes it out of the job's books: membership, leases, sync, shard, probe.
  void Detach(Job& job, Incarnation worker, const std::string& reason);
  void RemoveMember(Job& job, Incarnation worker, const std::string& reason);
  void RaiseEpoch(Job& job);
  void SetMembers(Job& job, std::vector<Incarnation> members, const std::string& reason,
                  const std::string& prepared_communicator = "");
  bool ReleaseLeavers(Job& job);

  // ---- classes.cc ----
  std::string WhyClassRefused(const Job& job, const std::string& numeric_class) const;
  void NoteClasses(Job& job, const std::vector<Incarnation>& members);
  bool SameClass(const Job& job, Incarnation a, Incarnation b) const;
  void PersistLayoutOf(Job& job);

  // ---- joining.cc ----
  void OnJobLoaded(const JobLoaded& event);
  void OnStateSynced(const StateSynced& event);
  std::string WhyUnfit(const Job& job, const JobLoaded& event) const;
  bool StartRunning(Job& job);
  bool AdmitJoiners(Job& job);
  bool StartSync(Job& job);
  void CancelSync(Job& job, const std::string& reason);
  void OnSyncFailed(Job& job, const ReduceFailed& event);
  void AdmitMembers(Job& job, const std::vector<Incarnation>& joiners, const std::string& reason);

  // ---- copying.cc ----
  void OnStateCopied(const StateCopied& event);
  bool MayCopy(const Job& job, const Worker& worker) const;
  bool StartCopies(Job& job);
  void StartCopy(Job& job, Incarnation source, Incarnation receiver);
  bool AdmitCopied(Job& job);
  void SendEnd(Job& job, Incarnation receiver, const Copy& copy, const std::string& reason);
  void CancelCopy(Job& job, Incarnation receiver, const std::string& reason);
  void CancelCopiesOf(Job& job, Incarnation source, const std::string& reason);
  void CancelCopies(Job& job, const std::string& reason);
  bool HandOver(Job& job);
  bool AwaitsCopy(const Job& job) const;
  void GiveUpLateCopies(Job& job);

  // ---- preparing.cc ----
  std::vector<Incarnation> MayEnter(Job& job, const std::vector<Incarnation>& level);
  void BeginPreparation(Job& job, const std::vector<Incarnation>& joiners);
  void OnCommunicatorPrepared(const CommunicatorPrepared& event);
  void PreparationFailed(Job& job, const std::string& reason);
  void CancelPreparation(Job& job);
  void GiveUpLatePreparation(Job& job);
  std::string TakePrepared(Job& job, const std::vector<Incarnation>& members);

  // ---- planning.cc ----
  bool PlanWindows(Job& job);
  bool OrderProbe(Job& job);
  void PlanWindow(Job& job, int64_t number);
  void DoubtIdle(const std::vector<Incarnation>& lessees, const std::vector<int64_t>& counts);
  bool LeaseFreeUnits(Job& job);
  void LeaseFree(Job& job, WindowRun& run);
  // What a window's gradients are multiplied by; nothing: what the last Seal gave.
  struct Scales {
    std::vector<int> exponents;
    std::optional<LossScale> loss_scale;
  };
  Scales ScalesOf(const Job& job) const { return {job.exponents, job.loss_scale}; }
  void SendPlan(Job& job, WindowRun& run, Incarnation worker, std::vector<UnitRange> units,
                std::vector<UnitRange> evaluation_units, const Scales& scales);
  void SendEntryPlans(Job& job, Incarnation worker);
  std::vector<Incarnation> Lessees(const Job& job) const;
  std::vector<Load> LoadsOf(const std::vector<Incarnation>& workers, const Leases* pending) const;
  bool MayPlan(const Job& job) const;

  // ---- balance.cc ----
  double MedianUnitNs(const std::vector<Incarnation>& workers) const;
  Standing StandingOf(const WindowRun& run, Incarnation worker) const;
  Load LoadNow(const WindowRun& run, const Standing& standing, double median_ns) const;
  std::vector<Load> LoadsNow(const WindowRun& run, const std::vector<Incarnation>& workers) const;
  void UpdateStandings(const Job& job, WindowRun& run) const;
  struct Outlook;
  Outlook LookAhead(const WindowRun& run, double median_ns) const;
  bool Balance(Job& job);
  bool AskBack(Job& job, Incarnation worker, int64_t units, double late_ns);
  void OnUnitsReturned(const UnitsReturned& event);
  std::string CheckReturned(const WindowRun& run, const UnitsReturned& event, int64_t asked,
                            std::vector<int64_t>& units) const;

  // ---- overdue.cc ----
  void ExpelOverdue(Job& job);
  int64_t LeaseTimeoutNs(const Worker& worker) const;

  // ---- reports.cc ----
  void OnUnitsReported(const UnitsReported& event);
  void OnProbeReported(Job& job, const UnitsReported& event);
  void OnWindowComputed(const WindowComputed& event);
  WindowRun* FindRun(Job& job, const Key& key);
  std::string CheckReport(const Job& job, const UnitReport& report, int64_t units) const;
  // A unit that the worker holds a lease of is done.
  void CountUnit(Job& job, WindowRun& run, Worker& worker, const UnitReport& report);
  UnitReport Comparable(const Job& job, UnitReport report) const;

  // ---- audit.cc ----
  struct AuditRound;
  struct Accusation {
    Incarnation worker;  // 0: nobody can tell who is wrong
    std::string reason, detail;
  };
  void ChooseAudits(const Job& job, WindowRun& run) const;
  void OnAuditReported(Job& job, WindowRun& run, const UnitsReported& event);
  bool AuditUnits(Job& job);
  std::optional<Accusation> ReviewAudit(Job& job, WindowRun& run, int64_t unit, AuditRound& round);
  void KeepComparable(const Job& job, Audit& audit, Incarnation holder) const;
  std::optional<Accusation> SettleAudit(Job& job, WindowRun& run, int64_t unit,
                                        const std::vector<Audit::Camp>& camps);
  std::optional<Accusation> AskForDecision(Job& job, WindowRun& run, int64_t unit,
                                           const std::vector<Audit::Camp>& camps, AuditRound& round);
  bool ParametersAreRight(const Job& job, const WindowRun& run) const;
  bool AskAnother(const Job& job, WindowRun& run, int64_t unit, AuditRound& round);
  bool SendAudits(Job& job, WindowRun& run, AuditRound& round);
  void Quarantine(Job& job, const Accusation& accusation);
  bool CheckCauses(Job& job, const Totals& totals);
  void RecordAudit(Job& job, const std::string& reason, Incarnation worker, const std::string& detail);

  // ---- seal.cc ----
  bool TrySeal(Job& job);
  bool ParameterHashesAgree(Job& job);
  void QuarantineByHash(Job& job, const std::string& right, const std::string& whose);
  void VoidByOverflow(Job& job, const Totals& totals);
  void SealWindow(Job& job, Totals totals);
  // Of the window after one that ends so; what changes is noted.
  std::optional<LossScale> DecideLossScale(Job& job, WindowEnd end);
  std::string SkipReason(const Job& job, const Totals& totals) const;

  // ---- commit.cc ----
  void OnWorkerStepped(const WorkerStepped& event);
  bool TryCommit(Job& job);
  void CommitWindow(Job& job, const std::string& digest, double gradient_norm);
  WindowRecord RecordOf(const Job& job, const WindowRun& run, const std::string& digest,
                        double gradient_norm) const;

  // ---- recovery.cc ----
  void OnReduceFailed(const ReduceFailed& event);
  void AbortReduce(Job& job, const std::string& reason);
  bool FinishAbort(Job& job);
  void GoOnAfterAbort(Job& job, const std::string& reason);
  void CompareWithLost(Job& job, WindowRun& run, Incarnation from, int64_t unit);
  bool VoidDisputed(Job& job);
  void StartAttempt(Job& job, const std::vector<int>& exponents, const std::string& kind,
                    const std::string& reason);
  void RollBack(Job& job, const std::string& reason);
  void GoBack(Job& job, const std::string& reason);
  bool Restart(Job& job);
  void ExpelMostAccused(Job& job);

  // ---- restore.cc ----
  using Holders = std::vector<const WorkerHolds*>;
  void BeginRestoring(Job& job);
  void OnWorkerResumed(const WorkerJoined& event);
  void OnWorkerHolds(const WorkerHolds& event);
  std::string WhyUnusable(const Job& job, const WorkerHolds& holds) const;
  std::string WhyStepUnusable(const Job& job, const WorkerHolds& holds) const;
  void CallOffReduce(Job& job);
  bool FinishRestoring(Job& job);
  void AdoptWindow(Job& job, Holders level);
  void AdoptStep(Job& job, Holders ahead, const Holders& level);
  WindowRun AdoptUnits(Job& job, int64_t number, Attempt attempt, int64_t steps, Holders& holders);
  void AdoptEvaluation(Job& job, std::optional<Evaluation>& evaluation, const Holders& holders);
  void MakeMembers(Job& job, const Holders& holders, int64_t window);

  // ---- evaluation.cc ----
  void OnEvaluationReported(const EvaluationReported& event);
  bool EvaluationDue(const Job& job, int64_t window) const;
  void FinishEvaluation(Job& job, const Evaluation& evaluation);
  void LeaseEvaluation(Job& job, Evaluation& evaluation,
                       std::map<Incarnation, std::vector<UnitRange>>& shares);
  bool EvaluateAtEnd(Job& job);

  // ---- checkpoints.cc ----
  void OnShardWritten(const CheckpointShardWritten& event);
  void OnCheckpointFinished(const CheckpointFinished& event);
  bool CheckpointPlanned(const Job& job, int64_t window) const;
  bool CheckpointDue(const Job& job, int64_t window) const;
  bool MayOrderCheckpoint(const Job& job) const;
  void BeginCheckpoint(Job& job, int64_t window);
  void CommitCheckpoint(Job& job);
  bool OrderCheckpointNow(Job& job);
  bool FinishShards(Job& job);
  bool OwesShard(const Job& job, Incarnation worker) const;
  void LoseShard(Job& job, Incarnation worker);
  void AbandonCheckpoint(Job& job, const std::string& reason);
  void CheckpointFailed(Job& job, const std::string& reason);
  bool CheckpointHeld(const Job& job) const;  // the state held is in a verified checkpoint

  const CoreOptions options_;
  int64_t next_incarnation_;
  WorkerMap<Worker> workers_;
  std::set<Incarnation> idle_;
  std::vector<std::unique_ptr<Job>> jobs_;  // in order of submission
  absl::flat_hash_map<JobId, Job*> jobs_by_id_;
  std::map<std::string, int64_t> dropped_;
  bool match_idle_ = false;  // an idle worker or a job's wish is new
  int64_t last_tick_ns_ = -1;
  int64_t awake_since_ns_ = 0;  // this process has been running

  // Of the Apply on the way.
  int64_t now_ns_ = 0;
  std::vector<Effect> effects_;
  std::set<Job*> touched_;  // to be advanced
};

}  // namespace accrue::core
