// Workers: how they come, which job they go to, and how they leave it.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/machine.h"

namespace accrue::core {

void Machine::OnWorkerJoined(const WorkerJoined& event) {
  if (event.resumed) return OnWorkerResumed(event);
  ACCRUE_CHECK(event.incarnation.value() > 0 && event.incarnation.value() < next_incarnation_);
  ACCRUE_CHECK(workers_.count(event.incarnation) == 0);
  Worker& worker = workers_[event.incarnation];
  worker.identity = event;
  worker.last_seen_ns = now_ns_;
  idle_.insert(event.incarnation);
  match_idle_ = true;
}

void Machine::OnWorkerGone(const WorkerGone& event) {
  if (workers_.count(event.from) == 0) return Drop("incarnation is gone");
  ForgetWorker(event.from, event.reason.empty() ? "its stream ended" : event.reason);
}

void Machine::OnWorkerHeartbeat(const WorkerHeartbeat& event) {
  Worker* worker = Seen(event.from);
  if (worker != nullptr) worker->memory_bytes = event.memory_bytes;
}

void Machine::OnWorkerLeaving(const WorkerLeaving& event) {
  Worker* worker = Seen(event.from);
  if (worker == nullptr || (worker->leaving && !event.at_once)) return;
  const bool again = std::exchange(worker->leaving, true);
  worker->leaving_reason = event.reason;
  idle_.erase(event.from);
  Job* job = MutableJob(worker->job);
  if (job == nullptr) return;
  Record(*job, "worker",
         absl::StrCat(NameOf(event.from), event.at_once ? " leaves at once: " : " leaves: ", event.reason), event.from);
  if (worker->role == Role::kResumed) return;  // with the others, once they are members again
  if (worker->role != Role::kMember) {
    if (!again) ReleaseWorker(*job, event.from, event.reason, false);
    return;
  }
  // It finishes the window that is on the way; or only a reduce that has begun, and hands its units back.
  worker->leaves_at = job->current && !event.at_once ? job->committed + 1 : job->committed;
  job->next_leave_at = std::min(job->next_leave_at, worker->leaves_at);
  if (!again) ++job->leaving_members;
  touched_.insert(job);
}

void Machine::OnWorkerFailedJob(const WorkerFailedJob& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  const std::string reason = absl::StrCat(NameOf(event.from), ": ", event.status, ": ", event.reason);
  Job& job = *sender->job;
  if (event.fatal_for_job) return EndJob(job, JobState::kFailed, reason);
  ReleaseWorker(job, event.from, reason, true);
  EndClosedFleet(job, reason);
}

// Jobs take idle workers in order of submission, each up to its workers.max.
void Machine::MatchIdleWorkers() {
  for (const auto& job : jobs_) {
    if (idle_.empty()) return;
    if (job->Terminal() || job->cancel || job->going_back || job->restoring) continue;
    if (!job->members.empty() && job->committed >= job->EndWindow()) continue;
    const std::set<Incarnation> candidates = idle_;
    for (Incarnation incarnation : candidates) {
      if (static_cast<int64_t>(job->attached.size()) >= job->config.max_workers) break;
      Worker& worker = workers_.at(incarnation);
      if (worker.unfit_for.count(job->config.id) > 0) continue;
      const std::string& numeric_class = worker.identity.ClassFor(job->config);
      if (numeric_class.empty()) {
        RefuseUnable(*job, worker);
        if (job->Terminal()) break;
        continue;
      }
      if (job->numeric_class.empty()) job->numeric_class = numeric_class;
      if (const std::string refusal = WhyClassRefused(*job, numeric_class); !refusal.empty()) {
        worker.unfit_for.insert(job->config.id);
        job->last_refusal = absl::StrCat(NameOf(incarnation), " ", refusal);
        Record(*job, "worker", job->last_refusal, incarnation);
        continue;
      }
      Assign(*job, worker);
    }
    touched_.insert(job.get());
  }
}

// Who cannot compute in the job's precision. Once all that are there cannot, a closed fleet has nobody to wait for.
void Machine::RefuseUnable(Job& job, Worker& worker) {
  worker.unfit_for.insert(job.config.id);
  const Incarnation incarnation = worker.identity.incarnation;
  job.last_refusal = absl::StrCat(NameOf(incarnation), " does not compute in precision ",
                                  PrecisionName(job.config.precision), " with backend ", worker.identity.backend,
                                  job.config.precision == Precision::kTf32 ? ": only GPUs do" : "");
  Record(job, "worker", job.last_refusal, incarnation);
  EndClosedFleet(job, job.last_refusal);
}

void Machine::EndClosedFleet(Job& job, const std::string& reason) {
  const auto refused = [&](const auto& worker) { return worker.second.unfit_for.count(job.config.id) > 0; };
  if (job.config.closed_fleet && std::all_of(workers_.begin(), workers_.end(), refused)) {
    EndJob(job, JobState::kFailed, reason);
  }
}

void Machine::Assign(Job& job, Worker& worker) {
  const Incarnation incarnation = worker.identity.incarnation;
  worker.job = job.config.id;
  worker.held_digest.clear();
  worker.sealed_window = kNeverSealed;
  worker.failed_syncs = worker.failed_copies = 0;
  worker.sync_at_once = false;
  job.attached.insert(incarnation);
  SetRole(job, worker, Role::kLoading);
  job.last_arrival_ns = now_ns_;

  AssignJob assign{KeyFor(job, incarnation, job.committed, Attempt()), AssignJob::Start::kFromScratch, ""};
  if (!job.members.empty()) {
    assign.start = AssignJob::Start::kFromMembers;
  } else if (!job.origin.checkpoint_directory.empty()) {
    assign.start = AssignJob::Start::kFromCheckpoint;
    assign.checkpoint_directory = job.origin.checkpoint_directory;
  }
  Note(job, "worker", absl::StrCat(NameOf(incarnation), " is assigned"), incarnation);
  SendTo(incarnation, std::move(assign));
}

// Keeps the counts by role; the only place where a worker of a job changes its role.
void Machine::SetRole(Job& job, Worker& worker, Role role) {
  if (worker.role == Role::kLoading) --job.loading;
  if (worker.role == Role::kReady) --job.ready;
  if (worker.role == Role::kMember && worker.leaving) --job.leaving_members;
  worker.role = role;
  if (role == Role::kLoading) ++job.loading;
  if (role == Role::kReady) ++job.ready;
  const Incarnation incarnation = worker.identity.incarnation;
  if (role == Role::kIdle) {
    job.attached.erase(incarnation);
    worker.job.clear();
    if (!worker.leaving) idle_.insert(incarnation);
    match_idle_ = true;
  } else {
    idle_.erase(incarnation);
  }
}

void Machine::ExpelWorker(Incarnation worker, const std::string& reason, bool rejoin) {
  if (workers_.count(worker) == 0) return;
  ForgetWorker(worker, reason);
  effects_.push_back(Expel{worker, reason, rejoin});
}

void Machine::ForgetWorker(Incarnation incarnation, const std::string& reason) {
  Worker& worker = workers_.at(incarnation);
  Job* job = MutableJob(worker.job);
  if (job != nullptr) {
    Record(*job, "worker", absl::StrCat(NameOf(incarnation), " is gone: ", reason), incarnation);
    Detach(*job, incarnation, reason);
  }
  idle_.erase(incarnation);
  workers_.erase(incarnation);
}

void Machine::ReleaseWorker(Job& job, Incarnation incarnation, const std::string& reason, bool refused) {
  Worker& worker = workers_.at(incarnation);
  if (refused) {
    worker.unfit_for.insert(job.config.id);
    job.last_refusal = reason;
  }
  Record(job, "worker",
         absl::StrCat(NameOf(incarnation), refused ? " is refused: " : " is released: ", reason),
         incarnation);
  SendTo(incarnation, Release{KeyFor(job, incarnation, job.committed, Attempt()), reason});
  Detach(job, incarnation, reason);
}

void Machine::Detach(Job& job, Incarnation incarnation, const std::string& reason) {
  Worker& worker = workers_.at(incarnation);
  touched_.insert(&job);
  if (worker.role == Role::kMember) RemoveMember(job, incarnation, reason);
  if (worker.role == Role::kSyncing || worker.role == Role::kSynced) {
    CancelSync(job, absl::StrCat(NameOf(incarnation), " left: ", reason));
  }
  if (worker.role == Role::kCopying) CancelCopy(job, incarnation, absl::StrCat(NameOf(incarnation), " left: ", reason));
  SetRole(job, worker, Role::kIdle);
  LoseShard(job, incarnation);
  // What the first worker fixed holds only as long as there is a result to agree with.
  if (job.attached.empty() && job.recorded.empty() && job.origin.checkpoint_directory.empty() && !job.restoring) {
    job.numeric_class.clear();
    job.mixed.clear();
    job.tensor_elements.clear();
    job.origin.digest.clear();
    job.origin.exponents.clear();
    job.digest.clear();
    job.parameter_hash.clear();
    job.exponents.clear();
  }
}

// The worker's role is the caller's to set. An accumulator goes with its member, so its units are to be computed
// again; before a seal that is all, after it the reduce has lost a part.
void Machine::RemoveMember(Job& job, Incarnation incarnation, const std::string& reason) {
  std::vector<Incarnation> members = job.members;
  members.erase(std::remove(members.begin(), members.end(), incarnation), members.end());
  SetRole(job, workers_.at(incarnation), Role::kDraining);
  if (job.prober == incarnation) job.prober = Incarnation();
  if (job.sync && job.sync->source == incarnation) {
    CancelSync(job, absl::StrCat("the source is gone: ", NameOf(incarnation)));
  }
  CancelCopiesOf(job, incarnation, absl::StrCat("the source is gone: ", NameOf(incarnation)));
  if (job.final_evaluation) job.final_evaluation->leases.RevokeUnfinished(incarnation);
  for (std::optional<WindowRun>* run : {&job.current, &job.next}) {
    if (!*run) continue;
    (*run)->RememberReports(incarnation, NameOf(incarnation));
    if (!(*run)->sealed) (*run)->Drop(incarnation);  // else with the others' answers: Unseal
  }
  SetMembers(job, std::move(members), absl::StrCat(NameOf(incarnation), " is no longer a member: ", reason));
  if (job.members.empty()) {
    GoBack(job, reason);
  } else if (job.current && job.current->sealed) {
    Sealed& sealed = *job.current->sealed;
    sealed.steps.erase(incarnation);
    sealed.failed.erase(incarnation);
    const bool all_stepped = sealed.steps.size() == job.members.size();
    if (sealed.verdict == Verdict::kReduce && !all_stepped && !sealed.aborting) {
      AbortReduce(job, absl::StrCat(NameOf(incarnation), " is gone: ", reason));
    }
  }
}

void Machine::RaiseEpoch(Job& job) {
  job.epoch = job.epoch.Next();
  const Attempt attempt = job.current ? job.current->attempt : Attempt();
  Persist(job, PersistEpoch{job.config.id, job.timeline, job.epoch, attempt, job.members});
}

// A new membership, or the same one with a fresh communicator: a new epoch, durable before anyone hears of
// it.
void Machine::SetMembers(Job& job, std::vector<Incarnation> members, const std::string& reason,
                         const std::string& prepared_communicator) {
  CancelPreparation(job);  // it was for other members than there will be
  NoteClasses(job, members);
  if (!job.communicator.empty() && members != job.members) {
    effects_.push_back(GiveUpCommunicator{job.communicator});
  }
  job.members = std::move(members);
  RaiseEpoch(job);
  job.communicator = prepared_communicator.empty()
                         ? absl::StrCat(job.config.id, "/", job.timeline.value(), "/", job.epoch.value())
                         : prepared_communicator;
  job.formed_ahead = !prepared_communicator.empty();
  Record(job, "epoch", absl::StrCat(Counted(job.members.size(), "member"), ": ", reason));
}

// At a window's boundary. The last holders of a state stay until it is in a checkpoint, or with somebody
// else.
bool Machine::ReleaseLeavers(Job& job) {
  if (job.leaving_members == 0) return false;
  const bool stuck = static_cast<int64_t>(job.members.size()) < job.config.min_workers;
  if (!stuck && job.committed < job.next_leave_at) return false;
  std::vector<Incarnation> leavers;
  for (Incarnation member : job.members) {
    const Worker& worker = workers_.at(member);
    if (worker.leaving && (stuck || job.committed >= worker.leaves_at)) leavers.push_back(member);
  }
  if (leavers.empty()) return false;
  if (leavers.size() == job.members.size()) {
    if (job.sync) return false;
    if (job.ready > 0 || !job.copies.empty()) return HandOver(job);
    if (!CheckpointHeld(job)) return OrderCheckpointNow(job);
  }
  job.next_leave_at = kNobodyLeaves;
  for (Incarnation member : job.members) {
    const Worker& worker = workers_.at(member);
    if (worker.leaving && worker.leaves_at > job.committed) {
      job.next_leave_at = std::min(job.next_leave_at, worker.leaves_at);
    }
  }
  for (Incarnation leaver : leavers) {
    Worker& worker = workers_.at(leaver);
    RemoveMember(job, leaver, worker.leaving_reason);
    if (!OwesShard(job, leaver)) ReleaseWorker(job, leaver, worker.leaving_reason, false);
  }
  return true;
}

}  // namespace accrue::core
