#include "coordinator/core/machine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace accrue::core {
namespace {

template <typename... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};
template <typename... Handlers>
Overloaded(Handlers...) -> Overloaded<Handlers...>;

// Notes wait for the commit's transaction; a job that decides much without committing writes them all the
// same.
constexpr size_t kMaxNotes = 64;

const char* StateName(JobState state) {
  switch (state) {
    case JobState::kWaiting:
      return "waiting";
    case JobState::kStarting:
      return "starting";
    case JobState::kRunning:
      return "running";
    case JobState::kPaused:
      return "paused";
    case JobState::kFinishing:
      return "finishing";
    case JobState::kSucceeded:
      return "succeeded";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
  }
  return "";
}

}  // namespace

int64_t Job::EndWindow() const {
  return config.until_window > 0 ? std::min(config.until_window, config.total_windows) : config.total_windows;
}

bool Job::Terminal() const {
  return state == JobState::kSucceeded || state == JobState::kFailed || state == JobState::kCancelled;
}

Machine::Machine(const CoreOptions& options)
    : options_(options), next_incarnation_(options.first_incarnation) {
  ACCRUE_CHECK(options.first_incarnation > 0);  // 0 means "none"
}

std::vector<Effect> Machine::Apply(const Event& event, int64_t now_ns) {
  now_ns_ = now_ns;
  effects_.clear();
  std::visit(Overloaded{
                 [&](const JobSubmitted& e) { OnJobSubmitted(e); },
                 [&](const JobCancelled& e) { OnJobCancelled(e); },
                 [&](const JobPaused& e) { OnJobPaused(e); },
                 [&](const JobResumed& e) { OnJobResumed(e); },
                 [&](const WorkerJoined& e) { OnWorkerJoined(e); },
                 [&](const WorkerGone& e) { OnWorkerGone(e); },
                 [&](const WorkerHeartbeat& e) { OnWorkerHeartbeat(e); },
                 [&](const JobLoaded& e) { OnJobLoaded(e); },
                 [&](const UnitsReported& e) { OnUnitsReported(e); },
                 [&](const WindowComputed& e) { OnWindowComputed(e); },
                 [&](const WorkerStepped& e) { OnWorkerStepped(e); },
                 [&](const ReduceFailed& e) { OnReduceFailed(e); },
                 [&](const WorkerHolds& e) { OnWorkerHolds(e); },
                 [&](const UnitsReturned& e) { OnUnitsReturned(e); },
                 [&](const CommunicatorPrepared& e) { OnCommunicatorPrepared(e); },
                 [&](const EvaluationReported& e) { OnEvaluationReported(e); },
                 [&](const CheckpointShardWritten& e) { OnShardWritten(e); },
                 [&](const StateSynced& e) { OnStateSynced(e); },
                 [&](const StateCopied& e) { OnStateCopied(e); },
                 [&](const WorkerLeaving& e) { OnWorkerLeaving(e); },
                 [&](const WorkerFailedJob& e) { OnWorkerFailedJob(e); },
                 [&](const CheckpointFinished& e) { OnCheckpointFinished(e); },
                 [&](const Tick&) { OnTick(); },
             },
             event);
  while (!touched_.empty() || match_idle_) {
    if (touched_.empty()) {
      match_idle_ = false;
      MatchIdleWorkers();
      continue;
    }
    Job* job = *touched_.begin();
    for (Job* other : touched_) {  // in order of submission, not of address
      if (other->ordinal < job->ordinal) job = other;
    }
    touched_.erase(job);
    Advance(*job);
  }
  return std::exchange(effects_, {});
}

void Machine::Advance(Job& job) {
  while (!job.Terminal() && AdvanceOnce(job)) {
  }
  CheckInvariants(job);
}

// One thing that has become possible; false when there is none.
bool Machine::AdvanceOnce(Job& job) {
  if (job.restoring) return FinishRestoring(job);
  if (FinishShards(job)) return true;
  if (job.current && job.current->sealed) return FinishAbort(job) || TryCommit(job);
  // Below, the members' state is that of `committed`: no update is on the way.
  if (job.cancel) return FinishCancel(job);
  if (job.going_back) return Restart(job);
  if (job.members.empty()) return StartRunning(job);
  if (job.committed >= job.EndWindow()) return FinishJob(job);
  return ReleaseLeavers(job) || AdmitJoiners(job) || PlanWindows(job) || AuditUnits(job) || VoidDisputed(job) ||
         LeaseFreeUnits(job) || Balance(job) || TrySeal(job);
}

void Machine::CheckInvariants(const Job& job) const {
  if (job.Terminal()) {
    ACCRUE_CHECK(job.attached.empty() && job.members.empty() && !job.current && !job.next);
    return;
  }
  ACCRUE_CHECK(job.committed >= 0 && job.steps <= job.committed);
  ACCRUE_CHECK(job.members.size() <= job.attached.size());
  ACCRUE_CHECK(static_cast<int64_t>(job.attached.size()) <= job.config.max_workers);
  ACCRUE_CHECK(!job.current || job.current->number == job.committed);
  ACCRUE_CHECK(!job.next || (job.current && job.next->number == job.committed + 1));
  ACCRUE_CHECK(!job.next || !job.next->sealed);
  ACCRUE_CHECK(!job.sync || !job.current || !job.current->sealed);
  ACCRUE_CHECK(!job.restoring || job.members.empty());
  ACCRUE_CHECK(!job.members.empty() || (!job.current && !job.next && !job.sync && !job.final_evaluation));
  ACCRUE_CHECK(!job.members.empty() || job.copies.empty());
  ACCRUE_CHECK(!job.preparation ||
               (!job.copies.empty() && job.preparation->members.size() > job.members.size()));
  for (const auto& [receiver, copy] : job.copies) {
    ACCRUE_CHECK(workers_.at(receiver).role == Role::kCopying && workers_.at(copy.source).role == Role::kMember);
  }
  if (options_.check_thoroughly) {
    for (const std::optional<WindowRun>* run : {&job.current, &job.next}) {
      if (*run) (*run)->Check(job.members);
    }
  }
  if (!job.current) return;
  ACCRUE_CHECK(job.current->computed <= static_cast<int64_t>(job.current->parts.size()));
  ACCRUE_CHECK(!job.current->sealed || job.current->leases.complete());
}

Worker* Machine::Seen(Incarnation from) {
  const auto found = workers_.find(from);
  if (found == workers_.end()) {
    Drop("incarnation is gone");
    return nullptr;
  }
  found->second.last_seen_ns = now_ns_;
  return &found->second;
}

std::optional<Machine::Sender> Machine::Accept(Incarnation from, const Key& key) {
  Worker* worker = Seen(from);
  if (worker == nullptr) return std::nullopt;
  const auto refuse = [&](const char* reason) {
    Drop(reason);
    return std::nullopt;
  };
  if (key.term != options_.term) return refuse("term is old");
  if (key.incarnation != from) return refuse("incarnation is another's");
  Job* job = MutableJob(key.job);
  if (job == nullptr) return refuse("job is unknown");
  if (worker->job != key.job) return refuse("worker is not of the job");
  if (key.timeline != job->timeline) return refuse("timeline is old");
  touched_.insert(job);
  return Sender{worker, job};
}

Job* Machine::MutableJob(const JobId& id) {
  const auto found = jobs_by_id_.find(id);
  return found == jobs_by_id_.end() ? nullptr : found->second;
}

const Job* Machine::FindJob(const JobId& id) const {
  const auto found = jobs_by_id_.find(id);
  return found == jobs_by_id_.end() ? nullptr : found->second;
}

Key Machine::KeyFor(const Job& job, Incarnation worker, int64_t window, Attempt attempt) const {
  return {options_.term, job.config.id, job.timeline, job.epoch, worker, Window(window), attempt};
}

void Machine::SendTo(Incarnation worker, WorkerMessage message) {
  const auto* const plan = std::get_if<Plan>(&message);
  const Job* const job = plan == nullptr ? nullptr : FindJob(plan->key.job);
  // Units of the window after the one on the way are not begun before that is sealed.
  const bool may_wait = job != nullptr && plan->key.window.value() > job->committed;
  effects_.push_back(Send{worker, std::move(message), may_wait});
}

std::string Machine::NameOf(Incarnation worker) const {
  const auto found = workers_.find(worker);
  if (found == workers_.end()) return absl::StrCat("worker ", worker.value());
  return absl::StrCat(found->second.identity.name, " (", worker.value(), ")");
}

LedgerEntry Machine::EntryFor(const Job& job, const std::string& kind, const std::string& reason,
                              Incarnation worker) const {
  return {
      kind,   job.timeline, job.epoch, Window(job.committed), job.current ? job.current->attempt : Attempt(),
      worker, reason};
}

void Machine::Persist(Job& job, Effect effect) {
  for (LedgerEntry& note : job.notes) effects_.push_back(PersistLedger{job.config.id, std::move(note)});
  job.notes.clear();
  effects_.push_back(std::move(effect));
}

// What a coordinator that comes after this one needs, to know what the members hold.
void Machine::PersistPositionOf(Job& job) {
  Persist(job, PersistPosition{job.config.id, job.timeline, Window(job.committed), job.steps, job.digest,
                               job.exponents, job.parameter_hash, job.loss_scale});
}

void Machine::Record(Job& job, const std::string& kind, const std::string& reason, Incarnation worker) {
  Persist(job, PersistLedger{job.config.id, EntryFor(job, kind, reason, worker)});
}

void Machine::Note(Job& job, const std::string& kind, const std::string& reason, Incarnation worker) {
  if (job.notes.size() >= kMaxNotes) {
    Record(job, kind, reason, worker);
  } else {
    job.notes.push_back(EntryFor(job, kind, reason, worker));
  }
}

void Machine::SetState(Job& job, JobState state, const std::string& reason) {
  if (job.state == state && job.reason == reason) return;
  job.state = state;
  job.reason = reason;
  Persist(job, PersistState{job.config.id, state, reason});
  Record(job, "state", absl::StrCat(StateName(state), reason.empty() ? "" : ": ", reason));
}

}  // namespace accrue::core
