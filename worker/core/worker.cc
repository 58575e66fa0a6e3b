#include "worker/core/worker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "worker/core/heartbeat.h"
#include "worker/core/window_runner.h"

namespace accrue {
namespace {

// What a link delivers goes to the inbox; the guard sees it on the way.
class Receiver : public LinkReceiver {
 public:
  Receiver(Inbox& inbox, CollectiveGuard& guard) : inbox_(inbox), guard_(guard) {}

  void OnMessage(v1::CoordinatorMessage message) override {
    guard_.Observe(message);
    if (!inbox_.Push(std::move(message))) OnLost(absl::ResourceExhaustedError("the inbox is full"));
  }

  void OnLost(const absl::Status& status) override {
    guard_.StopAll(absl::StrCat("the connection to the coordinator is lost: ", status.message()));
    inbox_.Push(LinkLost{std::string(status.message())});
  }

 private:
  Inbox& inbox_;
  CollectiveGuard& guard_;
};

v1::WorkerMessage LeavingMessage(const std::string& reason) {
  v1::WorkerMessage message;
  message.mutable_leaving()->set_reason(reason);
  return message;
}

}  // namespace

absl::Status Worker::Run() {
  int64_t backoff_ms = options_.first_backoff_ms;
  while (!draining_) {
    const LifeEnd end = Live();
    switch (end.kind) {
      case LifeEnd::Kind::kDrained:
      case LifeEnd::Kind::kShutDown:
        LogInfo("worker ends", {{"reason", end.reason}});
        return absl::OkStatus();
      case LifeEnd::Kind::kRefused:
        return absl::FailedPreconditionError(absl::StrCat("the coordinator refuses this worker: ", end.reason));
      case LifeEnd::Kind::kLost:
        break;
    }
    if (end.welcomed) backoff_ms = options_.first_backoff_ms;
    LogWarning("no coordinator; trying again", {{"reason", end.reason}, {"backoff_ms", backoff_ms}});
    // Only a wish to drain can come while there is no link.
    if (inbox_.PopFor(absl::Milliseconds(backoff_ms))) break;
    backoff_ms = std::min(2 * backoff_ms, options_.longest_backoff_ms);
  }
  return absl::OkStatus();
}

void Worker::Drain(const std::string& reason) {
  draining_ = true;
  inbox_.Push(DrainRequested{reason});
}

Worker::LifeEnd Worker::Live() {
  inbox_.DiscardMessages();
  AbortDeadlineTimer abort_deadline(absl::Milliseconds(options_.abort_deadline_ms), parts_.end_process);
  CollectiveGuard guard(&abort_deadline);
  Receiver receiver(inbox_, guard);
  std::unique_ptr<CoordinatorLink> link = parts_.links.Connect(&receiver);
  v1::WorkerMessage hello;
  *hello.mutable_hello() = options_.hello;
  link->Send(std::move(hello));

  std::optional<InboxEvent> first = inbox_.PopFor(absl::Milliseconds(options_.welcome_timeout_ms));
  if (!first) return {.reason = absl::StrCat("no answer within ", options_.welcome_timeout_ms, " ms")};
  if (auto* lost = std::get_if<LinkLost>(&*first)) return {.reason = lost->reason};
  if (auto* drain = std::get_if<DrainRequested>(&*first)) {
    return {.kind = LifeEnd::Kind::kDrained, .reason = drain->reason};
  }
  const auto& message = std::get<v1::CoordinatorMessage>(*first);
  if (message.has_refused()) {
    return {.kind = message.refused().rejoin() ? LifeEnd::Kind::kLost : LifeEnd::Kind::kRefused,
            .reason = message.refused().reason()};
  }
  if (!message.has_welcome()) return {.reason = "the coordinator's first message is neither Welcome nor Refused"};
  const int64_t incarnation = message.welcome().incarnation();
  LogInfo("joined", {{"incarnation", incarnation}, {"term", message.welcome().term()}});

  Heartbeat heartbeat(*link, std::max<int64_t>(message.welcome().heartbeat_interval_ms(), 10));
  std::unique_ptr<CheckpointSink> checkpoints = parts_.make_checkpoint_sink(*link);
  LifeEnd end = Serve(*link, guard, *checkpoints, incarnation);
  end.welcomed = true;
  checkpoints.reset();  // reports what it still writes
  link->Close();
  return end;
}

// Jobs, one after the other.
Worker::LifeEnd Worker::Serve(CoordinatorLink& link, CollectiveGuard& guard, CheckpointSink& checkpoints,
                              int64_t incarnation) {
  std::optional<v1::AssignJob> assignment;
  while (true) {
    if (!assignment) {
      if (draining_) return {.kind = LifeEnd::Kind::kDrained, .reason = "drained"};
      InboxEvent event = inbox_.Pop();
      if (auto* lost = std::get_if<LinkLost>(&event)) return {.reason = lost->reason};
      if (auto* drain = std::get_if<DrainRequested>(&event)) {
        link.Send(LeavingMessage(drain->reason));
        return {.kind = LifeEnd::Kind::kDrained, .reason = drain->reason};
      }
      auto& message = std::get<v1::CoordinatorMessage>(event);
      if (message.has_refused()) {
        return {.kind = message.refused().rejoin() ? LifeEnd::Kind::kLost : LifeEnd::Kind::kRefused,
                .reason = message.refused().reason()};
      }
      if (message.has_release() && message.release().shut_down()) {
        return {.kind = LifeEnd::Kind::kShutDown, .reason = message.release().reason()};
      }
      if (!message.has_assign_job()) continue;  // of a job that has ended here
      assignment = std::move(*message.mutable_assign_job());
    }

    guard.BeginJob();
    const v1::AssignJob current = *std::exchange(assignment, std::nullopt);
    LogInfo("assigned", {{"job", current.key().job_id()}, {"incarnation", incarnation}});
    absl::StatusOr<std::unique_ptr<Job>> job = parts_.jobs.Load(current);
    if (!job.ok()) {
      link.Send(JobFailedMessage(current.key(), job.status()));
      continue;
    }
    const RunnerContext context{link, inbox_, guard, parts_.collectives, checkpoints, parts_.clock,
                                options_.collective_deadline_ms};
    RunEnd end = WindowRunner(context, current, **job).Run();
    LogInfo("job left", {{"job", current.key().job_id()}, {"reason", end.reason}});
    switch (end.kind) {
      case RunEnd::Kind::kReleased:
        if (end.shut_down) return {.kind = LifeEnd::Kind::kShutDown, .reason = end.reason};
        break;
      case RunEnd::Kind::kReassigned:
        assignment = std::move(end.next);
        break;
      case RunEnd::Kind::kFailed:
        break;
      case RunEnd::Kind::kLinkLost:
        return {.reason = end.reason};
      case RunEnd::Kind::kRefused:
        return {.kind = end.rejoin ? LifeEnd::Kind::kLost : LifeEnd::Kind::kRefused, .reason = end.reason};
    }
  }
}

}  // namespace accrue
