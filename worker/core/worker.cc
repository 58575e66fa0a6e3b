#include "worker/core/worker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "worker/core/window_runner.h"

namespace accrue {
namespace {

v1::WorkerMessage LeavingMessage(const std::string& reason, bool at_once) {
  v1::WorkerMessage message;
  message.mutable_leaving()->set_reason(reason);
  message.mutable_leaving()->set_at_once(at_once);
  return message;
}

}  // namespace

absl::Status Worker::Run() {
  session_.Start();
  const End end = Serve();
  life_.reset();
  session_.Close();
  if (end.refused) return absl::FailedPreconditionError(absl::StrCat("the coordinator refuses this worker: ", end.reason));
  LogInfo("worker ends", {{"reason", end.reason}});
  return absl::OkStatus();
}

void Worker::Drain(const std::string& reason) {
  draining_ = true;
  inbox_.Push(DrainRequested{reason});
}

void Worker::LeaveAtOnce(const std::string& reason) {
  PassFaultPoint(FaultPoint::kWorkerLeavingAtOnce);
  session_.Send(LeavingMessage(reason, /*at_once=*/true));
  session_.Close();
  Drain(reason);  // which waits for nobody now
}

Worker::End Worker::Serve() {
  while (true) {
    if (!next_ && draining_) return {.reason = "drained"};
    stall_watch_.Waits();
    InboxEvent event = next_ ? *std::exchange(next_, std::nullopt) : inbox_.Pop();
    if (std::optional<End> end = Handle(event)) return *std::move(end);
  }
}

std::optional<Worker::End> Worker::Handle(InboxEvent& event) {
  if (auto* joined = std::get_if<Joined>(&event)) {
    if (joined->resumed) {
      // The job ended while its coordinator went away.
      session_.Rejoin("this incarnation holds nothing any more");
      return std::nullopt;
    }
    life_.reset();
    PassFaultPoint(FaultPoint::kWorkerWelcomed);
    LogInfo("joined", {{"incarnation", joined->incarnation}, {"term", joined->term}});
    life_.emplace(Life{*joined, parts_.make_checkpoint_sink(session_)});
    return std::nullopt;
  }
  if (auto* over = std::get_if<LifeOver>(&event)) {
    life_.reset();
    if (over->for_good) return End{.reason = over->reason, .refused = true};
    LogWarning("this incarnation is over; a new one begins", {{"reason", over->reason}});
    return std::nullopt;
  }
  if (auto* drain = std::get_if<DrainRequested>(&event)) {
    session_.Send(LeavingMessage(drain->reason, /*at_once=*/false));
    return End{.reason = drain->reason};
  }
  if (std::holds_alternative<LinkLost>(event)) {
    life_.reset();
    return std::nullopt;
  }
  const auto& message = std::get<v1::CoordinatorMessage>(event);
  if (message.has_release() && message.release().shut_down()) return End{.reason = message.release().reason()};
  if (message.has_assign_job() && life_) return RunJob(message.assign_job());
  return std::nullopt;  // of a job that has ended here
}

std::optional<Worker::End> Worker::RunJob(const v1::AssignJob& assignment) {
  session_.HoldJob(true);
  life_->joined.guard->BeginJob();
  LogInfo("assigned", {{"job", assignment.key().job_id()}, {"incarnation", life_->joined.incarnation}});
  PassFaultPoint(FaultPoint::kWorkerLoading);
  RunEnd end{.kind = RunEnd::Kind::kFailed};
  int64_t units = 0;
  if (absl::StatusOr<std::unique_ptr<Job>> job = parts_.jobs.Load(assignment); job.ok()) {
    PassFaultPoint(FaultPoint::kWorkerLoaded);
    const RunnerContext context{session_,          inbox_,       *life_->joined.guard,
                                parts_.collectives, *life_->checkpoints, parts_.clock,
                                options_.collective_deadline_ms, &stall_watch_, &preparer_, parts_.tracer};
    WindowRunner runner(context, assignment, **job);
    end = runner.Run();
    units = runner.units_computed();
  } else {
    session_.Send(JobFailedMessage(assignment.key(), job.status()));
    end.reason = std::string(job.status().message());
  }
  session_.HoldJob(false);
  preparer_.GiveUp();
  LogInfo("job left", {{"job", assignment.key().job_id()}, {"reason", end.reason}, {"units_computed", units}});
  if (end.rejoin) session_.Rejoin(end.reason);
  next_ = std::move(end.event);
  if (end.kind == RunEnd::Kind::kLeft || (end.kind == RunEnd::Kind::kReleased && end.shut_down)) {
    return End{.reason = end.reason};
  }
  return std::nullopt;
}

}  // namespace accrue
