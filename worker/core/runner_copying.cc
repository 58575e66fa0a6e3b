// A WindowRunner that sends its state to a newcomer beside its work, or is that newcomer.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "worker/core/keys.h"
#include "worker/core/state_receiver.h"
#include "worker/core/window_runner.h"

namespace accrue {
namespace {

// A source that has nothing to send is heard of so often within the time after which it would be missed.
constexpr int64_t kSignsOfLife = 20;

}  // namespace

void WindowRunner::OnCopyState(const v1::CopyState& order) {
  const bool sends = order.source() == order.key().incarnation();
  if (order.end()) {
    if (sends && sending_ == order.communicator()) StopSending();
    return;  // the guard has ended what is received
  }
  if (Refuse("copy order", order.key())) return;
  if (job_.accumulator->mode() != AccumulationMode::kExact) {
    return SendCopied(order, order.key().window(), "", "sums of fast accumulation are not sent");
  }
  sends ? SendState(order) : ReceiveState(order);
}

void WindowRunner::SendState(const v1::CopyState& order) {
  StopSending();
  const absl::Status begun = FaultStatus(FaultPoint::kWorkerCopyBegun, order.key().window());
  absl::StatusOr<std::unique_ptr<Communicator>> communicator =
      begun.ok() ? context_.collectives.CreateForHost(order.communicator(), 0, 2, context_.collective_deadline_ms) : begun;
  if (!communicator.ok()) return SendCopied(order, order.key().window(), "", std::string(communicator.status().message()));
  sending_ = order.communicator();
  LogInfo("the state is sent beside the work", {{"key", KeyToString(order.key())}, {"to", order.receiver()}});
  sender_ = std::make_unique<StateSender>(
      *std::move(communicator), job_, context_.collective_deadline_ms / kSignsOfLife,
      [this, order](const absl::Status& status) {
        // The newcomer may leave before this thread is told.
        if (context_.guard.CopyHasEnded(order.communicator())) return;
        SendCopied(order, order.key().window(), "", std::string(status.message()));
      });
  context_.guard.WatchCommits([sender = sender_.get()](int64_t window) { sender->GoOn(window); });
}

void WindowRunner::StopSending() {
  if (sender_ == nullptr) return;
  context_.guard.WatchCommits(nullptr);
  context_.guard.Finish(absl::StrCat("the sending of a state in communicator \"", sending_, "\""),
                        [this] { sender_.reset(); });
}

void WindowRunner::ReceiveState(const v1::CopyState& order) {
  reporter_.Flush();
  StopSending();
  shares_.clear();
  held_seal_.reset();
  awaits_commit_ = false;
  job_.holds_state = false;
  memory_.Forget();
  absl::Status status = FaultStatus(FaultPoint::kWorkerCopyBegun, order.key().window());
  if (status.ok()) {
    absl::StatusOr<std::unique_ptr<Communicator>> communicator =
        context_.collectives.CreateForHost(order.communicator(), 1, 2, context_.collective_deadline_ms);
    if (communicator.ok()) {
      StateReceiver receiver(*std::move(communicator), context_.guard, order, job_, [&] { return BeforeWait(); },
                             [&](int64_t window, const std::string& digest) { SendCopied(order, window, digest, ""); });
      status = receiver.Receive();
      job_.holds_state = receiver.level();
    } else {
      status = communicator.status();
    }
  }
  // Who has stopped it knows.
  if (absl::IsAborted(status) || absl::IsCancelled(status)) return;
  SendCopied(order, order.key().window(), "", std::string(status.message()));
}

// A copy takes as long as it takes, while the source says something; the operator's wish to leave ends it.
absl::Status WindowRunner::BeforeWait() {
  if (context_.stall_watch != nullptr) context_.stall_watch->Begins("the source of a copy is silent");
  return context_.inbox.HasDrain() ? absl::CancelledError("this worker leaves") : absl::OkStatus();
}

// Of any thread.
void WindowRunner::SendCopied(const v1::CopyState& order, int64_t window, const std::string& digest,
                              const std::string& error) {
  if (!error.empty()) LogWarning("a copy of the state broke", {{"key", KeyToString(order.key())}, {"reason", error}});
  v1::WorkerMessage message;
  v1::StateCopied& copied = *message.mutable_state_copied();
  *copied.mutable_key() = order.key();
  copied.mutable_key()->set_window(window);
  copied.set_communicator(order.communicator());
  copied.set_digest(digest);
  copied.set_error(error);
  thread_safe_link_.Send(std::move(message));
}

}  // namespace accrue
