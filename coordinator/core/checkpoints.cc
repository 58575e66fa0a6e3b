// Checkpoints: ordered with a seal or on their own, written in shards, counted only once verified.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

constexpr int kMaxFailedCheckpoints = 3;

}  // namespace

bool Machine::CheckpointHeld(const Job& job) const {
  return job.committed == job.origin.window.value() &&
         (job.committed == 0 || !job.origin.checkpoint_directory.empty());
}

// With the step that makes `window` windows.
bool Machine::CheckpointPlanned(const Job& job, int64_t window) const {
  const int64_t every = job.config.checkpoint_every;
  return window > job.origin.window.value() && every > 0 && window % every == 0;
}

bool Machine::CheckpointDue(const Job& job, int64_t window) const {
  if (window <= job.origin.window.value()) return false;
  return job.checkpoint_owed || window >= job.EndWindow() || CheckpointPlanned(job, window);
}

// One at a time, and no worker writes for two orders, so that no file is written twice.
bool Machine::MayOrderCheckpoint(const Job& job) const { return !job.checkpoint && job.writing.empty(); }

void Machine::BeginCheckpoint(Job& job, int64_t window) {
  ACCRUE_CHECK(MayOrderCheckpoint(job));
  Checkpoint checkpoint;
  checkpoint.name = {window, job.epoch};
  checkpoint.files.resize(job.members.size());
  checkpoint.outstanding = static_cast<int64_t>(job.members.size());
  for (size_t rank = 0; rank < job.members.size(); ++rank) {
    checkpoint.shard_of[job.members[rank]] = static_cast<int>(rank);
    job.writing[job.members[rank]] = checkpoint.name;
  }
  job.checkpoint = std::move(checkpoint);
  job.checkpoint_owed = false;
  Note(job, "checkpoint", absl::StrCat("window ", window, ": ", Counted(job.members.size(), "shard"), " ",
                                         IsOrAre(static_cast<int64_t>(job.members.size())), " ordered"));
}

void Machine::CommitCheckpoint(Job& job) {
  Checkpoint& checkpoint = *job.checkpoint;
  checkpoint.committed = true;
  checkpoint.steps = job.steps;
  checkpoint.digest = job.digest;
  checkpoint.exponents = job.exponents;
  checkpoint.loss_scale = job.loss_scale;
  checkpoint.numeric_class = job.numeric_class;
  checkpoint.mixed = job.mixed;
}

// Of the state that the members hold, between a commit and the next seal.
bool Machine::OrderCheckpointNow(Job& job) {
  if (!MayOrderCheckpoint(job)) return false;
  BeginCheckpoint(job, job.committed);
  CommitCheckpoint(job);
  for (Incarnation member : job.members) {
    const CheckpointOrder order{Window(job.committed), job.checkpoint->shard_of.at(member),
                                static_cast<int>(job.members.size())};
    SendTo(member, CheckpointNow{KeyFor(job, member, job.committed, Attempt()), order});
  }
  return true;
}

void Machine::OnShardWritten(const CheckpointShardWritten& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  Job& job = *sender->job;
  const auto ordered = job.writing.find(event.from);
  const CheckpointName name{event.checkpoint_window.value(), event.key.epoch};
  if (ordered == job.writing.end() || ordered->second != name) return Drop("shard is not ordered");
  job.writing.erase(ordered);
  if (!job.checkpoint || job.checkpoint->name != name) return Drop("checkpoint is abandoned");
  Checkpoint& checkpoint = *job.checkpoint;
  std::vector<CheckpointFile>& files =
      checkpoint.files[static_cast<size_t>(checkpoint.shard_of.at(event.from))];
  if (!event.error.empty() || event.files.empty()) {
    return CheckpointFailed(
        job, absl::StrCat(NameOf(event.from), ": ", event.error.empty() ? "it wrote no file" : event.error));
  }
  files = event.files;
  --checkpoint.outstanding;
  if (sender->worker->role == Role::kDraining) {
    ReleaseWorker(job, event.from, sender->worker->leaving_reason, false);
  }
}

// All shards of a state that counts are there: the server verifies them.
bool Machine::FinishShards(Job& job) {
  if (!job.checkpoint) return false;
  Checkpoint& checkpoint = *job.checkpoint;
  if (checkpoint.finishing || !checkpoint.committed || checkpoint.outstanding > 0) return false;
  checkpoint.finishing = true;
  FinishCheckpoint finish;
  finish.job = job.config.id;
  finish.window = Window(checkpoint.name.window);
  finish.steps = checkpoint.steps;
  finish.timeline = job.timeline;
  finish.digest = checkpoint.digest;
  finish.exponents = checkpoint.exponents;
  finish.loss_scale = checkpoint.loss_scale;
  finish.numeric_class = checkpoint.numeric_class;
  finish.mixed = checkpoint.mixed;
  for (const std::vector<CheckpointFile>& shard : checkpoint.files) {
    finish.files.insert(finish.files.end(), shard.begin(), shard.end());
  }
  effects_.push_back(std::move(finish));
  return true;
}

void Machine::OnCheckpointFinished(const CheckpointFinished& event) {
  Job* job = MutableJob(event.job);
  if (job == nullptr || job->Terminal()) return Drop("job is over or unknown");
  if (!job->checkpoint || !job->checkpoint->finishing ||
      job->checkpoint->name.window != event.window.value()) {
    return Drop("checkpoint is not on the way");
  }
  touched_.insert(job);
  if (!event.error.empty()) return CheckpointFailed(*job, event.error);
  const Checkpoint checkpoint = *std::exchange(job->checkpoint, std::nullopt);
  job->failed_checkpoints = 0;
  job->origin.checkpoint_directory = event.directory;
  job->origin.window = event.window;
  job->origin.steps = checkpoint.steps;
  job->origin.digest = checkpoint.digest;
  job->origin.exponents = checkpoint.exponents;
  job->origin.loss_scale = checkpoint.loss_scale;
  job->origin.computed_in = checkpoint.numeric_class;
  // No window before it is ever computed again.
  job->recorded.erase(job->recorded.begin(), job->recorded.lower_bound(checkpoint.name.window));
  job->evaluated.erase(job->evaluated.begin(), job->evaluated.lower_bound(checkpoint.name.window));
  Persist(*job, PersistCheckpoint{job->config.id, event.window, checkpoint.digest});
  Record(*job, "checkpoint",
         absl::StrCat("window ", checkpoint.name.window, " is verified: ", checkpoint.digest));
}

bool Machine::OwesShard(const Job& job, Incarnation worker) const {
  if (!job.checkpoint) return false;
  const auto writing = job.writing.find(worker);
  return writing != job.writing.end() && writing->second == job.checkpoint->name;
}

// What the worker was to write will not come.
void Machine::LoseShard(Job& job, Incarnation worker) {
  const bool owed = OwesShard(job, worker);
  job.writing.erase(worker);
  if (owed) AbandonCheckpoint(job, absl::StrCat("a shard went with ", NameOf(worker)));
}

// Lost through nobody's fault but a death's: tried again with the next seal, without end.
void Machine::AbandonCheckpoint(Job& job, const std::string& reason) {
  const Checkpoint checkpoint = *std::exchange(job.checkpoint, std::nullopt);
  job.checkpoint_owed = true;
  Record(job, "checkpoint", absl::StrCat("window ", checkpoint.name.window, " is abandoned: ", reason));
  // Who stayed for its shard alone may go.
  for (const auto& [incarnation, shard] : checkpoint.shard_of) {
    const auto worker = workers_.find(incarnation);
    if (worker == workers_.end() || worker->second.job != job.config.id) continue;
    if (worker->second.role == Role::kDraining && worker->second.leaving) {
      ReleaseWorker(job, incarnation, worker->second.leaving_reason, false);
    }
  }
}

void Machine::CheckpointFailed(Job& job, const std::string& reason) {
  ++job.failed_checkpoints;
  AbandonCheckpoint(job, reason);
  if (job.failed_checkpoints < kMaxFailedCheckpoints || job.cancel) return;
  EndJob(job, JobState::kFailed,
         absl::StrCat(job.failed_checkpoints, " checkpoints in a row failed; the last: ", reason));
}

}  // namespace accrue::core
