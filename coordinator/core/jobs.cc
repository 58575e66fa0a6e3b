// From submission to the job's end: what people ask for, and when a job is over.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/machine.h"

namespace accrue::core {

void Machine::OnJobSubmitted(const JobSubmitted& event) {
  const JobConfig& config = event.config;
  ACCRUE_CHECK(!config.id.empty() && jobs_by_id_.find(config.id) == jobs_by_id_.end());
  ACCRUE_CHECK(config.units_per_window > 0 && config.total_windows > 0);
  ACCRUE_CHECK(config.min_workers > 0 && config.max_workers >= config.min_workers);
  auto owned = std::make_unique<Job>();
  Job& job = *owned;
  job.ordinal = static_cast<int64_t>(jobs_.size());
  job.config = config;
  job.origin = event.start;
  job.timeline = event.start.timeline;
  job.committed = event.start.window.value();
  job.steps = event.start.steps;
  job.digest = event.start.digest;
  job.exponents = event.start.exponents;
  ACCRUE_CHECK(config.loss_scale.has_value() == (config.precision == Precision::kFp16));
  // Before anything was computed, the first.
  if (!config.loss_scale) job.origin.loss_scale.reset();
  else if (!job.origin.loss_scale) job.origin.loss_scale = FirstLossScale(*config.loss_scale);
  job.loss_scale = job.origin.loss_scale;
  job.numeric_class = event.start.numeric_class;
  job.mixed = event.start.mixed;
  job.recorded = std::exchange(job.origin.recorded, {});
  job.evaluated = std::exchange(job.origin.evaluated, {});
  if (!job.evaluated.empty()) job.validation_loss = job.evaluated.rbegin()->second;
  jobs_.push_back(std::move(owned));
  jobs_by_id_[config.id] = &job;

  const std::string begins =
      absl::StrCat(Counted(config.total_windows, "window"), " of ", Counted(config.units_per_window, "unit"),
                   job.origin.live ? "; if no member is left, from " : ", from ",
                   job.origin.checkpoint_directory.empty() ? std::string("scratch")
                                                           : absl::StrCat("the checkpoint at window ", job.committed));
  const bool over = job.committed > 0 && job.committed >= job.EndWindow() && !EvaluationDue(job, job.committed);
  if (job.origin.live && !over) BeginRestoring(job);
  Record(job, job.origin.restart ? "restart" : "submitted", begins);
  if (over) {
    EndJob(job, JobState::kSucceeded, absl::StrCat("window ", job.committed, " was already reached"));
    return;
  }
  match_idle_ = true;
  touched_.insert(&job);
}

void Machine::OnJobCancelled(const JobCancelled& event) {
  Job* job = MutableJob(event.job);
  if (job == nullptr || job->Terminal()) return Drop("job is over or unknown");
  if (job->cancel && (job->cancel->checkpoint == event.checkpoint || event.checkpoint)) return;
  job->cancel = event;
  job->failed_checkpoints = 0;  // one failure from here on is enough to go without
  Record(*job, "state",
         absl::StrCat("cancel asked for", event.checkpoint ? ", with a checkpoint: " : ": ", event.reason));
  if (!event.checkpoint) {
    EndJob(*job, JobState::kCancelled, event.reason);
    return;
  }
  touched_.insert(job);
}

// With the state between two windows: a checkpoint of it, if one was asked for and anything would be lost.
bool Machine::FinishCancel(Job& job) {
  if (job.checkpoint) return false;  // on the way
  const bool lost = !job.cancel->checkpoint || job.members.empty() || job.failed_checkpoints > 0;
  if (!lost && !CheckpointHeld(job)) {
    job.current.reset();
    job.next.reset();
    return OrderCheckpointNow(job);
  }
  EndJob(job, JobState::kCancelled, job.cancel->reason);
  return true;
}

void Machine::OnJobPaused(const JobPaused& event) {
  Job* job = MutableJob(event.job);
  if (job == nullptr || job->Terminal()) return Drop("job is over or unknown");
  if (job->pause_requested) return;
  job->pause_requested = true;
  Record(*job, "state", "pause asked for: windows that are planned are finished first");
  touched_.insert(job);
}

void Machine::OnJobResumed(const JobResumed& event) {
  Job* job = MutableJob(event.job);
  if (job == nullptr || job->Terminal()) return Drop("job is over or unknown");
  if (!job->pause_requested) return;
  job->pause_requested = false;
  Record(*job, "state", "resumed");
  touched_.insert(job);
}

// After the last window: a job has succeeded once its last evaluation is done and its last checkpoint
// verified. Until then nobody is let go, and nobody is let in.
bool Machine::FinishJob(Job& job) {
  ACCRUE_CHECK(!job.current && !job.next);
  if (job.state != JobState::kFinishing) {
    SetState(job, JobState::kFinishing, "the last window is committed; checkpoint and evaluation remain");
    return true;
  }
  if (EvaluateAtEnd(job)) return true;
  if (!CheckpointHeld(job)) return OrderCheckpointNow(job);
  if (job.final_evaluation) return false;
  EndJob(job, JobState::kSucceeded,
         job.committed < job.config.total_windows
             ? absl::StrCat("stopped after window ", job.committed, " as asked")
             : job.committed == 1 ? "its only window is committed"
                                : absl::StrCat("all ", job.committed, " windows are committed"));
  return true;
}

void Machine::EndJob(Job& job, JobState state, const std::string& reason) {
  SetState(job, state, reason);
  ACCRUE_CHECK(job.Terminal());
  if (job.sync) effects_.push_back(GiveUpCommunicator{job.sync->communicator});
  for (const auto& [receiver, copy] : job.copies) effects_.push_back(GiveUpCommunicator{copy.communicator});
  if (!job.communicator.empty()) effects_.push_back(GiveUpCommunicator{job.communicator});
  CancelPreparation(job);
  for (Incarnation incarnation : std::exchange(job.attached, {})) {
    Worker& worker = workers_.at(incarnation);
    SendTo(incarnation, Release{KeyFor(job, incarnation, job.committed, Attempt()), reason});
    worker.role = Role::kIdle;
    worker.job.clear();
    if (!worker.leaving) idle_.insert(incarnation);
  }
  match_idle_ = true;
  job.members.clear();
  job.loading = job.ready = job.leaving_members = 0;
  job.current.reset();
  job.next.reset();
  job.sync.reset();
  job.copies.clear();
  job.final_evaluation.reset();
  job.checkpoint.reset();
  job.writing.clear();
  job.cancel.reset();
  job.restoring.reset();
  job.going_back = false;
}

void Machine::OnTick() {
  // A coordinator that did not run itself must not take its own silence for that of its workers.
  const int64_t asleep_ns = last_tick_ns_ < 0 ? 0 : now_ns_ - last_tick_ns_;
  last_tick_ns_ = now_ns_;
  if (asleep_ns > options_.dead_after_ns / 2) {
    awake_since_ns_ = now_ns_;
    for (auto& [incarnation, worker] : workers_) worker.last_seen_ns += asleep_ns;
    for (const auto& job : jobs_) {
      if (job->restoring) job->restoring->deadline_ns += asleep_ns;
    }
  }
  std::vector<Incarnation> silent;
  for (const auto& [incarnation, worker] : workers_) {
    if (now_ns_ - worker.last_seen_ns > options_.dead_after_ns) silent.push_back(incarnation);
  }
  for (Incarnation incarnation : silent) {
    const int64_t silence_ms = (now_ns_ - workers_.at(incarnation).last_seen_ns) / 1'000'000;
    ExpelWorker(incarnation, absl::StrCat("nothing was heard from it for ", silence_ms, " ms"), true);
  }
  for (const auto& job : jobs_) {
    if (job->Terminal()) continue;
    touched_.insert(job.get());
    GiveUpLateCopies(*job);
    GiveUpLatePreparation(*job);
    ExpelOverdue(*job);
    if (job->sync && now_ns_ > job->sync->deadline_ns) {
      std::vector<Incarnation> late;
      for (Incarnation receiver : job->sync->receivers) {
        if (workers_.at(receiver).role == Role::kSyncing) late.push_back(receiver);
      }
      if (late.empty()) late.push_back(job->sync->source);
      for (Incarnation participant : late)
        ExpelWorker(participant, "it was not done with a state sync in time", true);
    }
    if (!job->current || !job->current->sealed || !job->current->sealed->aborting) continue;
    if (now_ns_ <= job->current->sealed->abort_deadline_ns) continue;
    std::vector<Incarnation> mute;
    for (Incarnation member : job->members) {
      const Sealed& sealed = *job->current->sealed;
      if (sealed.steps.count(member) == 0 && sealed.failed.count(member) == 0) mute.push_back(member);
    }
    for (Incarnation member : mute) ExpelWorker(member, "it did not answer an abort in time", true);
  }
}

}  // namespace accrue::core
