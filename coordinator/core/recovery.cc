// A reduce that does not end, units that are computed again, a new attempt at a window, and the way back to a
// checkpoint. docs/recovery.md says why no bit changes.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/difference.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

// Reduces of one window that failed in a row, without a death, until whoever is named as unreachable most often is
// removed, and until the job is given up.
constexpr int kAccuseAfterFailures = 2;
constexpr int kMaxFailedReduces = 8;
// Times that members may end in different states, without a new window in between, until the job is given up.
constexpr int kMaxRollbacks = 3;

}  // namespace

void Machine::OnReduceFailed(const ReduceFailed& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  Job& job = *sender->job;
  if (job.sync && event.key.epoch == job.sync->epoch) return OnSyncFailed(job, event);
  WindowRun* run = FindRun(job, event.key);
  if (run == nullptr) return;
  if (!run->sealed || event.key.epoch != run->sealed->epoch || sender->worker->role != Role::kMember) {
    return Drop("seal is old");
  }
  if (run->sealed->steps.count(event.from) > 0) return Drop("reduce failed after its step");
  // What was final stays so.
  const int64_t before = run->parts.at(event.from).final_buckets;
  if (event.final_buckets < before || event.final_buckets > run->buckets) {
    return ExpelWorker(event.from,
                       absl::StrCat("its reduce failed with ", event.final_buckets, " final buckets; it had ", before,
                                    " of ", run->buckets, " before"),
                       true);
  }
  run->sealed->failed[event.from] = {event.reason, event.final_buckets};
  for (Incarnation peer : event.unreachable) ++run->sealed->unreachable[peer];
  if (!run->sealed->aborting) AbortReduce(job, absl::StrCat(NameOf(event.from), ": ", event.reason));
}

// Nobody waits for a collective's own time-out. Each member that has not stepped answers, with a failure or a
// step.
void Machine::AbortReduce(Job& job, const std::string& reason) {
  Sealed& sealed = *job.current->sealed;
  sealed.aborting = true;
  sealed.abort_deadline_ns = now_ns_ + options_.abort_timeout_ns;
  if (job.communicator == sealed.communicator) {  // else the membership has changed, and given it up
    effects_.push_back(GiveUpCommunicator{job.communicator});
    job.communicator.clear();
  }
  Record(job, "abort", absl::StrCat("window ", job.current->number, ": ", reason));
  for (Incarnation member : job.members) {
    if (sealed.steps.count(member) > 0 || sealed.failed.count(member) > 0) continue;
    Abort abort{KeyFor(job, member, job.current->number, job.current->attempt), reason};
    abort.key.epoch = sealed.epoch;
    SendTo(member, std::move(abort));
  }
}

// With all answers: if anybody stepped, that update counts and the others copy the state; else the window goes on from
// what is final and from what the members' accumulators hold.
bool Machine::FinishAbort(Job& job) {
  Sealed& sealed = *job.current->sealed;
  if (!sealed.aborting || sealed.failed.empty()) return false;
  if (sealed.steps.size() + sealed.failed.size() < job.members.size()) return false;
  if (!sealed.steps.empty()) {
    for (const auto& [member, failure] : std::map(sealed.failed)) {
      LoseShard(job, member);  // it did not step, so it has no state to write
      RemoveMember(job, member, absl::StrCat("others stepped, its reduce failed: ", failure.reason));
      Worker& worker = workers_.at(member);
      worker.held_digest.clear();
      if (worker.leaving) {
        ReleaseWorker(job, member, worker.leaving_reason, false);
      } else {
        worker.sync_at_once = true;
        SetRole(job, worker, Role::kReady);
      }
    }
    return true;
  }
  const std::string reason = sealed.failed.begin()->second.reason;
  const bool died = !job.communicator.empty();  // the membership has changed, and named another
  if (!died && ++job.failed_reduces >= kMaxFailedReduces) {
    EndJob(job, JobState::kFailed,
           absl::StrCat("the reduce of window ", job.current->number, " failed ", job.failed_reduces,
                        " times; the last: ", reason));
    return true;
  }
  if (!died && job.failed_reduces >= kAccuseAfterFailures) ExpelMostAccused(job);
  if (job.communicator.empty()) SetMembers(job, job.members, "a fresh communicator after a failed reduce");
  // Also without the accused: while a network is split, others take its place, and their reduces fail in turn.
  if (!died) job.seal_not_before_ns = now_ns_ + (options_.reduce_retry_ns << (job.failed_reduces - 1));
  GoOnAfterAbort(job, reason);
  return true;
}

void Machine::GoOnAfterAbort(Job& job, const std::string& reason) {
  WindowRun& run = *job.current;
  // A checkpoint that was part of the seal: nobody has stepped, so nothing of it is written. The next seal orders it.
  const CheckpointName ordered{run.number + 1, run.sealed->epoch};
  std::erase_if(job.writing, [&](const auto& shard) { return shard.second == ordered; });
  if (job.checkpoint && !job.checkpoint->committed) {
    job.checkpoint.reset();
    job.checkpoint_owed = true;
  }
  run.Unseal(job.members);
  run.begun_at_ns = now_ns_;
  Record(job, "abort",
         absl::StrCat("window ", run.number, " goes on after a failed reduce: ", run.FinalBuckets(), " of ",
                      Counted(run.buckets, "bucket"), " ", IsOrAre(run.FinalBuckets()), " final, ",
                      Counted(run.leases.free(), "unit"), " ", IsOrAre(run.leases.free()),
                      " to be computed again: ", reason));
}

// One of the two is wrong. The one that is gone is not trusted; which of them it was only an audit can tell.
void Machine::CompareWithLost(Job& job, WindowRun& run, Incarnation from, int64_t unit) {
  const auto node = run.lost.extract(unit);
  if (node.empty()) return;
  const std::string difference = Difference(node.mapped().report, run.reports[static_cast<size_t>(unit)]);
  if (difference.empty()) return;
  // Workers of different classes may well differ; but of two results one must count in every bucket.
  if (!job.mixed.empty() && run.FinalBuckets() == 0) return;
  const std::string what = absl::StrCat("unit ", unit, " of window ", run.number, " differs when computed again: ",
                                        node.mapped().worker, " and ", NameOf(from), " report ", difference);
  Record(job, "differs", absl::StrCat(what, "; the first is gone, and does not count"), from);
  // Where somebody is left to ask, the window does not take the other at its word either.
  if (job.mixed.empty() && job.members.size() > 1 && !run.audits.Has(unit)) {
    run.audits.Add(unit, "it came out differently when it was computed again");
    run.audits.Hear(node.mapped().incarnation, node.mapped().report);
    run.audits.Hear(from, run.reports[static_cast<size_t>(unit)]);
  }
  if (run.FinalBuckets() > 0) run.disputed = what;
}

// What is final has the lost worker's gradient in it, what is open the other's: nothing of both may be mixed.
bool Machine::VoidDisputed(Job& job) {
  if (!job.current || job.current->disputed.empty() || !job.current->audits.settled()) return false;
  const std::string reason = std::exchange(job.current->disputed, "");
  if (job.current->FinalBuckets() == 0) return false;  // who held them is gone, too
  StartAttempt(job, job.exponents, "abort", absl::StrCat(reason, ", and final buckets have the first in them"));
  return true;
}

void Machine::ExpelMostAccused(Job& job) {
  Incarnation accused;
  int64_t times = 0;
  for (const auto& [peer, count] : job.current->sealed->unreachable) {
    const bool member = std::binary_search(job.members.begin(), job.members.end(), peer);
    if (member && count > times) {
      accused = peer;
      times = count;
    }
  }
  if (accused == Incarnation() || job.members.size() < 2) return;
  ExpelWorker(accused, absl::StrCat(times, " of its peers could not reach it"), true);
}

void Machine::StartAttempt(Job& job, const std::vector<int>& exponents, const std::string& kind,
                           const std::string& reason) {
  WindowRun& run = *job.current;
  for (Incarnation worker : run.PartsBeyond(job.members)) run.Drop(worker);
  run.StartOver(run.attempt.Next());
  run.begun_at_ns = now_ns_;
  job.exponents = exponents;
  Persist(job, PersistAttempt{job.config.id, Window(run.number), run.attempt, exponents});
  Record(job, kind, absl::StrCat("window ", run.number, " is computed again: ", reason));
  for (Incarnation member : job.members) {
    SendTo(member, Replay{KeyFor(job, member, run.number, run.attempt), reason});
    SendPlan(job, run, member, run.leases.RangesOf(member), {}, ScalesOf(job));
  }
}

// Its holders do not agree on the state, and nothing tells who is right: all of them give it up. They go on from the
// newest verified checkpoint, as other workers would.
void Machine::RollBack(Job& job, const std::string& reason) {
  if (++job.rollbacks >= kMaxRollbacks) {
    EndJob(job, JobState::kFailed,
           absl::StrCat(reason, "; time ", job.rollbacks, " without a new window in between"));
    return;
  }
  const std::vector<Incarnation> holders = job.members;
  SetMembers(job, {}, reason);
  GoBack(job, reason);
  for (Incarnation holder : holders) {
    Worker& worker = workers_.at(holder);
    worker.held_digest.clear();
    const bool owes = OwesShard(job, holder);  // of an older state, which counts
    SetRole(job, worker, worker.leaving && owes ? Role::kDraining : Role::kReady);
    if (worker.leaving && !owes) ReleaseWorker(job, holder, worker.leaving_reason, false);
  }
}

// No holder of the state is left. What can still become the newest checkpoint is awaited (Restart).
void Machine::GoBack(Job& job, const std::string& reason) {
  ACCRUE_CHECK(job.members.empty());
  CancelSync(job, "its source is gone");
  CancelCopies(job, reason);
  job.current.reset();
  job.next.reset();
  job.final_evaluation.reset();
  job.prober = Incarnation();
  job.lessees.clear();
  job.communicator.clear();
  if (job.checkpoint && !job.checkpoint->committed) job.checkpoint.reset();
  job.going_back = true;
  Record(job, "state",
         absl::StrCat("nobody holds the state of window ", job.committed, " any more: ", reason));
}

// On a new timeline, from the newest verified checkpoint. Windows computed again must come out as recorded.
bool Machine::Restart(Job& job) {
  if (job.checkpoint) return false;
  job.going_back = false;
  job.timeline = std::max(job.timeline.Next(), job.origin.timeline);
  job.epoch = job.epoch.Next();
  const int64_t lost = job.committed - job.origin.window.value();
  job.committed = job.origin.window.value();
  job.steps = job.origin.steps;
  job.digest = job.origin.digest;
  job.exponents = job.origin.exponents;
  job.loss_scale = job.origin.loss_scale;
  job.parameter_hash.clear();
  job.checkpoint_owed = false;  // it was of a window that comes again
  job.last_commit_ns = -1;
  job.failed_reduces = 0;
  job.min_loaded_at_ns = -1;
  job.writing.clear();  // reports of the old timeline are not heard any more
  Persist(job, PersistEpoch{job.config.id, job.timeline, job.epoch, Attempt(), {}});
  Record(job, "state",
         absl::StrCat("goes back to ",
                      job.origin.checkpoint_directory.empty()
                          ? std::string("the start")
                          : absl::StrCat("the checkpoint at window ", job.committed),
                      " on timeline ", job.timeline.value(), "; ", Counted(lost, "window"), " ", IsOrAre(lost),
                      " computed again"));
  for (Incarnation incarnation : std::set(job.attached)) {
    Worker& worker = workers_.at(incarnation);
    if (!worker.leaving) Assign(job, worker);
  }
  match_idle_ = true;
  return true;
}

}  // namespace accrue::core
