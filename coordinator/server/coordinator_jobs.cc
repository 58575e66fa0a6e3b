// How jobs come to the coordinator: submitted, or taken up again after a restart; and how people steer them.
#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/status.h"
#include "coordinator/server/coordinator.h"
#include "coordinator/server/translate.h"
#include "coordinator/server/worker_status.h"

namespace accrue {
namespace {

constexpr int64_t kAll = std::numeric_limits<int64_t>::max();

// Two coordinators that know nothing of each other must not write into one folder.
absl::StatusOr<std::unique_ptr<FolderLock>> LockFolder(const std::string& directory) {
  absl::StatusOr<std::unique_ptr<FolderLock>> lock = FolderLock::Acquire(directory);
  if (!absl::IsFailedPrecondition(lock.status())) return lock;
  return absl::FailedPreconditionError(
      absl::StrCat("output folder ", lock.status().message(), "; wait for its job, or use another folder"));
}

}  // namespace

absl::StatusOr<v1::SubmitResponse> Coordinator::Submit(ResolvedSubmission submission, const FolderRequest& request) {
  const std::lock_guard<std::mutex> lock(submit_mutex_);
  v1::ResolvedJob& job = submission.job;
  ACCRUE_RETURN_IF_ERROR(RunOnLoop([&] { return CheckFree(job.spec().name(), job.output_directory()); }));
  do {
    ACCRUE_ASSIGN_OR_RETURN(*job.mutable_job_id(), journal_.NewJobId(job.spec().name()));
    if (!job.output_directory().empty()) break;
    // A number may come again after the journal was lost; the folder tells.
    const std::string own = JoinPath(JoinPath(options_.state_directory, "jobs"), job.job_id());
    if (!file_system_.Exists(own)) job.set_output_directory(own);
  } while (job.output_directory().empty());

  auto run = std::make_unique<JobRun>();
  ACCRUE_ASSIGN_OR_RETURN(run->folder, LockFolder(job.output_directory()));
  ACCRUE_ASSIGN_OR_RETURN(const FolderStart folder, PrepareFolder(file_system_, job, request));
  std::vector<std::string> warnings = std::move(submission.warnings);
  warnings.insert(warnings.end(), folder.warnings.begin(), folder.warnings.end());
  ACCRUE_ASSIGN_OR_RETURN(run->log,
                          WindowLog::Open(file_system_, job.output_directory(), folder.start.window, {}, {},
                                          warnings));
  run->before = run->log->last();
  run->resolved = std::make_shared<const v1::ResolvedJob>(job);
  run->data = std::move(submission.data);
  run->record = {job.job_id(), job.spec().name(), ResolvedJobToJson(job), job.output_directory(),
                 core::JobState::kWaiting, "", clock_.WallNowUnixNs(), submission.until_window,
                 folder.start.timeline, folder.start.window, /*paused=*/false};
  v1::SubmitResponse response;
  response.set_job_id(job.job_id());
  response.set_first_window(folder.start.window.value());
  for (std::string& warning : warnings) {
    LogWarning("job submitted", {{"job", job.job_id()}, {"warning", warning}});
    *response.add_warnings() = std::move(warning);
  }
  ACCRUE_RETURN_IF_ERROR(RunOnLoop([&] { return AddJob(std::move(run), folder.start); }));
  return response;
}

absl::Status Coordinator::CheckFree(const std::string& name, const std::string& output_directory) const {
  for (const auto& run : runs_) {
    const v1::JobStatus status = StatusOfRun(*run);
    if (status.state() == v1::JOB_STATE_SUCCEEDED || status.state() == v1::JOB_STATE_FAILED ||
        status.state() == v1::JOB_STATE_CANCELLED) {
      continue;
    }
    if (run->record.name == name) {
      return absl::AlreadyExistsError(absl::StrCat("job ", run->record.id, " of the name \"", name,
                                                   "\" is not over; wait for it, cancel it, or take another name"));
    }
    if (!output_directory.empty() && run->record.output_directory == output_directory) {
      return absl::AlreadyExistsError(absl::StrCat("job ", run->record.id, " is at work in ", output_directory,
                                                   "; use another output folder"));
    }
  }
  return absl::OkStatus();
}

absl::Status Coordinator::AddJob(std::unique_ptr<JobRun> run, const core::StartPoint& start) {
  ACCRUE_RETURN_IF_ERROR(journal_.AddJob(run->record));
  run->in_core = true;
  const core::JobConfig config = ConfigOf(*run->resolved, run->record.until_window);
  LogInfo("job submitted", {{"job", run->record.id}, {"windows", config.total_windows},
                            {"first_window", start.window}, {"output", run->record.output_directory}});
  runs_.push_back(std::move(run));
  changed_ = true;
  Apply(core::JobSubmitted{config, start});
  // The answer must find the job in the list.
  Publish();
  keeper_->BackUpJournal();
  return absl::OkStatus();
}

// A job of the journal: shown if it is over, else taken up again.
absl::Status Coordinator::RestoreJob(const JobRecord& record) {
  auto owned = std::make_unique<JobRun>();
  JobRun& run = *owned;
  run.record = record;
  absl::StatusOr<v1::ResolvedJob> resolved = ResolvedJobFromJson(record.resolved_json);
  run.resolved = std::make_shared<const v1::ResolvedJob>(resolved.ok() ? *resolved : v1::ResolvedJob());
  ACCRUE_ASSIGN_OR_RETURN(run.last_commit, journal_.LastCommit(record.id));
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<EvaluationRecord> evaluations, journal_.Evaluations(record.id, Window(0)));
  if (!evaluations.empty()) run.validation_loss = evaluations.back().loss;
  if (run.last_commit.has_value()) run.last_window_line = WindowLine(*run.last_commit);
  ACCRUE_ASSIGN_OR_RETURN(const std::optional<core::Layout> layout, journal_.LayoutOf(record.id));
  if (layout.has_value()) run.mixed = layout->mixed;
  runs_.push_back(std::move(owned));
  if (IsTerminal(record.state)) return absl::OkStatus();
  const absl::Status status = resolved.ok() ? TakeUpJob(run) : resolved.status();
  if (!status.ok()) {
    FailJob(run, Annotate(status, "the job could not be taken up after a restart"));
    run.folder.reset();
  }
  return absl::OkStatus();
}

absl::Status Coordinator::TakeUpJob(JobRun& run) {
  std::vector<std::string> warnings;
  ACCRUE_ASSIGN_OR_RETURN(run.folder, LockFolder(run.resolved->output_directory()));
  ACCRUE_ASSIGN_OR_RETURN(run.data, OpenPinned(file_system_, *run.resolved));
  ACCRUE_ASSIGN_OR_RETURN(const core::StartPoint start, StartAgain(run, warnings));
  for (const std::string& warning : warnings) LogWarning("job taken up", {{"job", run.record.id}, {"warning", warning}});
  LogInfo("job taken up", {{"job", run.record.id}, {"first_window", start.window},
                           {"recorded_windows", start.recorded.size()},
                           {"awaited_members", start.live.has_value() ? start.live->members.size() : size_t{0}}});
  run.in_core = true;
  Apply(core::JobSubmitted{ConfigOf(*run.resolved, run.record.until_window), start});
  if (run.record.paused) Apply(core::JobPaused{run.record.id});
  return absl::OkStatus();
}

// From the state that members held when the last coordinator ended, if they come back. Else from the newest good
// checkpoint, on a new timeline: windows that are committed beyond it are computed again and must come out the same;
// where that is not promised, they are taken back.
absl::StatusOr<core::StartPoint> Coordinator::StartAgain(JobRun& run, std::vector<std::string>& warnings) {
  const JobId& id = run.record.id;
  ACCRUE_RETURN_IF_ERROR(file_system_.CreateDirectories(CheckpointRoot(*run.resolved)));
  ACCRUE_ASSIGN_OR_RETURN(FolderStart folder, FindStart(file_system_, *run.resolved, std::nullopt));
  core::StartPoint& start = folder.start;
  start.restart = true;
  warnings.insert(warnings.end(), folder.warnings.begin(), folder.warnings.end());
  start.timeline = std::max(start.timeline, run.record.timeline.Next());
  ACCRUE_ASSIGN_OR_RETURN(start.live, journal_.Live(id));
  if (start.live.has_value() && start.live->window < start.window) start.live.reset();
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<CommitRecord> commits, journal_.Commits(id, Window(0), kAll));
  int64_t next = start.window.value();
  ACCRUE_ASSIGN_OR_RETURN(const std::optional<core::Layout> layout, journal_.LayoutOf(id));
  const bool exact =
      run.resolved->spec().accumulation().mode() != "fast" && (!layout.has_value() || layout->mixed.empty());
  if (start.live.has_value() || exact) {
    for (const CommitRecord& commit : commits) {
      const int64_t window = commit.window.window.value();
      if (window < start.window.value()) continue;
      start.recorded[window] = commit.window.digest;
      next = std::max(next, window + 1);
    }
  }
  // What the first worker fixed holds as long as there is a result to agree with.
  if (layout.has_value() && (!start.recorded.empty() || !start.checkpoint_directory.empty())) {
    start.numeric_class = layout->numeric_class;
    if (!layout->mixed.empty()) start.mixed = layout->mixed;
  }
  ACCRUE_ASSIGN_OR_RETURN(std::vector<EvaluationRecord> evaluations, journal_.Evaluations(id, Window(0)));
  // The state after the newest commit may have been evaluated before its own.
  const int64_t kept = exact ? next + 1 : next;
  std::erase_if(evaluations, [&](const EvaluationRecord& evaluation) { return evaluation.window.value() > kept; });
  for (const EvaluationRecord& evaluation : evaluations) {
    if (evaluation.window >= start.window) start.evaluated[evaluation.window.value()] = evaluation.loss;
  }
  if (start.live.has_value()) {
    run.SetLayout(start.live->layout);
  } else {
    ACCRUE_RETURN_IF_ERROR(journal_.StartTimeline(id, start.timeline, Window(kept)));
    run.record.timeline = start.timeline;
  }
  ACCRUE_ASSIGN_OR_RETURN(run.log, WindowLog::Open(file_system_, run.resolved->output_directory(), Window(next), commits,
                                                   evaluations, warnings));
  run.before = run.log->last();
  ACCRUE_ASSIGN_OR_RETURN(run.last_commit, journal_.LastCommit(id));
  return start;
}

absl::StatusOr<v1::JobStatus> Coordinator::Steer(const std::string& job,
                                                 const std::function<core::Event(const JobId&)>& event) {
  v1::JobStatus result;
  ACCRUE_RETURN_IF_ERROR(RunOnLoop([&]() -> absl::Status {
    const std::shared_ptr<const Snapshot> snapshot = board_.Get();
    const JobEntry* const entry = snapshot->FindJob(job);
    JobRun* const run = entry == nullptr ? nullptr : FindRun(entry->status.job_id());
    if (run == nullptr) return absl::NotFoundError(absl::StrCat("no job \"", job, "\""));
    const v1::JobStatus before = StatusOfRun(*run);
    if (!run->in_core || IsTerminal(run->record.state) || !run->failure.empty()) {
      return absl::FailedPreconditionError(absl::StrCat("job ", run->record.id, " is over: ",
                                                        JobStateName(before.state()), ": ", before.reason()));
    }
    const core::Event steering = event(run->record.id);
    ACCRUE_RETURN_IF_ERROR(Remember(*run, steering));
    Apply(steering);
    Publish();
    result = StatusOfRun(*run);
    return absl::OkStatus();
  }));
  return result;
}

absl::Status Coordinator::Remember(JobRun& run, const core::Event& event) {
  const bool pause = std::holds_alternative<core::JobPaused>(event);
  if (!pause && !std::holds_alternative<core::JobResumed>(event)) return absl::OkStatus();
  ACCRUE_RETURN_IF_ERROR(journal_.SetPaused(run.record.id, pause));
  run.record.paused = pause;
  return absl::OkStatus();
}

absl::StatusOr<v1::JobStatus> Coordinator::Cancel(const std::string& job, const std::string& reason, bool checkpoint) {
  const std::string why = reason.empty() ? "cancelled by a client" : reason;
  return Steer(job, [&](const JobId& id) { return core::JobCancelled{id, why, checkpoint}; });
}

absl::StatusOr<v1::JobStatus> Coordinator::Pause(const std::string& job) {
  return Steer(job, [](const JobId& id) { return core::JobPaused{id}; });
}

absl::StatusOr<v1::JobStatus> Coordinator::Resume(const std::string& job) {
  return Steer(job, [](const JobId& id) { return core::JobResumed{id}; });
}

absl::StatusOr<v1::WorkerStatus> Coordinator::DrainWorker(const std::string& worker, bool at_once,
                                                          const std::string& reason) {
  const std::string why = reason.empty() ? "drained by a client" : reason;
  v1::WorkerStatus result;
  ACCRUE_RETURN_IF_ERROR(RunOnLoop([&]() -> absl::Status {
    ACCRUE_ASSIGN_OR_RETURN(const core::WorkerView found, FindWorker(core_.Workers(), worker));
    const auto entry = workers_.find(found.incarnation);
    if (entry == workers_.end()) {
      return absl::NotFoundError(absl::StrCat("worker ", found.name, " is not connected at the moment"));
    }
    entry->second.drained = true;
    LogInfo("worker is drained", {{"worker", found.name}, {"incarnation", found.incarnation}, {"at_once", at_once},
                                  {"reason", why}});
    Apply(core::WorkerLeaving{found.incarnation, why, at_once});
    // The core has nothing to release a worker from that has no job.
    if (found.job.empty()) {
      v1::CoordinatorMessage message;
      message.mutable_release()->set_reason(why);
      message.mutable_release()->set_shut_down(true);
      entry->second.link->Send(std::move(message));
    }
    Publish();
    for (const v1::WorkerStatus& status : board_.Get()->workers) {
      if (status.incarnation() == found.incarnation.value()) result = status;
    }
    return absl::OkStatus();
  }));
  return result;
}

}  // namespace accrue
