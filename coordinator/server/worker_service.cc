// WorkerService: one reactor for each worker's stream, and the rendezvous store's calls.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "accrue/v1/worker.grpc.pb.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "common/version.h"
#include "coordinator/server/grpc_status.h"
#include "coordinator/server/services.h"

namespace accrue {
namespace {

constexpr size_t kMaxQueuedMessages = 10'000;
constexpr int64_t kMaxStoreWaitMs = 600'000;

// Comes by the point of a message that gRPC has taken to the wire.
void PassSentPoint(const v1::CoordinatorMessage& message) {
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kAssignJob:
      return PassFaultPoint(FaultPoint::kCoordinatorAssignSent, message.assign_job().key().window());
    case v1::CoordinatorMessage::kPlan:
      return PassFaultPoint(FaultPoint::kCoordinatorPlanSent, message.plan().key().window());
    case v1::CoordinatorMessage::kSeal:
      return PassFaultPoint(FaultPoint::kCoordinatorSealSent, message.seal().key().window());
    case v1::CoordinatorMessage::kRecall:
      return PassFaultPoint(FaultPoint::kCoordinatorRecallSent, message.recall().key().window());
    case v1::CoordinatorMessage::kCommit:
      return PassFaultPoint(FaultPoint::kCoordinatorCommitSent, message.commit().key().window());
    case v1::CoordinatorMessage::kReplay:
      return PassFaultPoint(FaultPoint::kCoordinatorReplaySent, message.replay().key().window());
    case v1::CoordinatorMessage::kAbort:
      return PassFaultPoint(FaultPoint::kCoordinatorAbortSent, message.abort().key().window());
    case v1::CoordinatorMessage::kStateSync:
      return PassFaultPoint(FaultPoint::kCoordinatorSyncSent, message.state_sync().key().window());
    case v1::CoordinatorMessage::kCopyState:
      return PassFaultPoint(
          message.copy_state().end() ? FaultPoint::kCoordinatorCopyEndSent : FaultPoint::kCoordinatorCopySent,
          message.copy_state().key().window());
    case v1::CoordinatorMessage::kPrepare:
      return PassFaultPoint(FaultPoint::kCoordinatorPrepareSent, message.prepare().key().window());
    case v1::CoordinatorMessage::kRelease:
      return PassFaultPoint(FaultPoint::kCoordinatorReleaseSent);
    default:
      return;
  }
}

// One stream. gRPC owns it through `self_` from its making until OnDone; the event loop holds it as a WorkerLink.
//
// gRPC allows one read, one write and one Finish at a time, and nothing after Finish. All are started under the mutex:
// gRPC never calls back on the starting thread before that returns.
class WorkerSession : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>, public WorkerLink {
 public:
  static WorkerSession* Make(Coordinator& coordinator, const std::string& peer) {
    auto session = std::shared_ptr<WorkerSession>(new WorkerSession(coordinator, peer));
    session->self_ = session;
    const std::lock_guard<std::mutex> lock(session->mutex_);
    session->StartRead(&session->incoming_);
    return session.get();
  }

  // ---- WorkerLink ----
  void Send(v1::CoordinatorMessage message) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Queue(std::move(message));
    Continue();
  }

  void Hold(v1::CoordinatorMessage message) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Queue(std::move(message));
    if (ending_) Continue();
  }

  void Flush() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Continue();
  }

  void Refuse(const std::string& reason, bool rejoin) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (ending_) return;
    ending_ = true;
    reason_ = reason;
    v1::CoordinatorMessage message;
    message.mutable_refused()->set_reason(reason);
    message.mutable_refused()->set_rejoin(rejoin);
    outgoing_.push_back(std::move(message));
    Continue();
  }

  void Close(const std::string& reason) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (ending_) return;
    ending_ = true;
    reason_ = reason;
    end_status_ = grpc::Status(grpc::StatusCode::UNAVAILABLE, reason);
    Continue();
  }

 private:
  WorkerSession(Coordinator& coordinator, std::string peer) : coordinator_(coordinator), peer_(std::move(peer)) {}

  // ---- gRPC ----
  void OnReadDone(bool ok) override {
    if (!ok) return End("its connection ended");
    if (!joining_) {
      joining_ = true;
      return OnHello();
    }
    if (const absl::Status status = coordinator_.Receive(incarnation_, incoming_); !status.ok()) {
      if (absl::IsUnavailable(status)) return Close(std::string(status.message()));
      LogWarning("a worker's message is refused", {{"peer", peer_}, {"incarnation", incarnation_}, {"error", status}});
      return Refuse(std::string(status.message()), /*rejoin=*/true);
    }
    ReadNext();
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    writing_ = false;
    buffered_.push_back(std::move(outgoing_.front()));
    outgoing_.pop_front();
    if (ok && !hinted_) {
      for (const v1::CoordinatorMessage& message : std::exchange(buffered_, {})) PassSentPoint(message);
    }
    if (!ok) {
      outgoing_.clear();
      EndLocked("the connection broke");
      return;
    }
    Continue();
  }

  void OnCancel() override { End("the connection broke"); }

  void OnDone() override {
    const std::shared_ptr<WorkerSession> last = std::move(self_);
    std::string reason;
    Incarnation incarnation;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      reason = reason_;
      incarnation = incarnation_;
      done_ = true;
    }
    if (incarnation != Incarnation()) coordinator_.Left(incarnation, reason);
  }

  // ---- the story ----
  void OnHello() {
    if (!incoming_.has_hello()) return Refuse("expected Hello as the first message of a stream", /*rejoin=*/false);
    const v1::Hello& hello = incoming_.hello();
    if (hello.version() != kVersion) {
      LogWarning("a worker of another version is refused", {{"peer", peer_}, {"worker", hello.name()},
                                                            {"version", hello.version()}});
      return Refuse(absl::StrCat("the worker's version is ", hello.version(), ", the coordinator's is ", kVersion,
                                 "; use the same version for both"), /*rejoin=*/false);
    }
    coordinator_.Join(hello, self_, [session = self_](Incarnation incarnation) { session->OnJoined(incarnation); });
  }

  void OnJoined(Incarnation incarnation) {
    bool done = false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      incarnation_ = incarnation;
      done = done_;
    }
    // The stream may have ended while the join was in the queue.
    if (done) return coordinator_.Left(incarnation, "its connection ended");
    ReadNext();
  }

  void ReadNext() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!finished_) StartRead(&incoming_);
  }

  // Unless the stream is to end.
  void Queue(v1::CoordinatorMessage message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (ending_) return;
    if (outgoing_.size() >= kMaxQueuedMessages) {
      // A worker that does not read. What it misses cannot be made good.
      reason_ = absl::StrCat("more than ", kMaxQueuedMessages, " messages wait for it to read");
      ending_ = true;
      outgoing_.resize(writing_ ? 1 : 0);
    } else {
      outgoing_.push_back(std::move(message));
    }
  }

  void End(const std::string& reason) {
    const std::lock_guard<std::mutex> lock(mutex_);
    EndLocked(reason);
  }

  void EndLocked(const std::string& reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!ending_) reason_ = reason;
    ending_ = true;
    Continue();
  }

  // Starts whatever is next: a write, or the end once everything is written.
  void Continue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return;
    if (!outgoing_.empty()) {
      writing_ = true;
      hinted_ = outgoing_.size() > 1;
      grpc::WriteOptions options;
      if (hinted_) options.set_buffer_hint();
      StartWrite(&outgoing_.front(), options);
    } else if (ending_) {
      finished_ = true;
      Finish(end_status_);
    }
  }

  Coordinator& coordinator_;
  const std::string peer_;
  std::shared_ptr<WorkerSession> self_;

  // One read is on the way at a time, so these belong to whoever handles it.
  v1::WorkerMessage incoming_;
  bool joining_ = false;  // Hello was read

  std::mutex mutex_;
  Incarnation incarnation_;  // written once, before the read that follows Hello is started
  std::deque<v1::CoordinatorMessage> outgoing_ ABSL_GUARDED_BY(mutex_);  // the first is being written while writing_
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool hinted_ ABSL_GUARDED_BY(mutex_) = false;  // what is being written goes to the wire with what follows
  std::vector<v1::CoordinatorMessage> buffered_ ABSL_GUARDED_BY(mutex_);  // written so, and not on the wire
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;    // nothing more is taken; what is queued is sent
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // Finish is called
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status end_status_ ABSL_GUARDED_BY(mutex_);
  std::string reason_ ABSL_GUARDED_BY(mutex_) = "its connection ended";
};

class WorkerServiceImpl : public v1::WorkerService::CallbackService {
 public:
  WorkerServiceImpl(Coordinator& coordinator, RendezvousStore& rendezvous, const Clock& clock)
      : coordinator_(coordinator), rendezvous_(rendezvous), clock_(clock) {}

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Session(
      grpc::CallbackServerContext* context) override {
    return WorkerSession::Make(coordinator_, context->peer());
  }

  grpc::ServerUnaryReactor* StoreSet(grpc::CallbackServerContext* context, const v1::StoreSetRequest* request,
                                     v1::StoreSetResponse*) override {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(rendezvous_.Set(request->communicator(), request->name(), request->value())));
    return reactor;
  }

  grpc::ServerUnaryReactor* StoreGet(grpc::CallbackServerContext* context, const v1::StoreGetRequest* request,
                                     v1::StoreGetResponse* response) override {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    const int64_t timeout_ms = std::clamp<int64_t>(request->timeout_ms(), 0, kMaxStoreWaitMs);
    rendezvous_.Get(request->communicator(), {request->names().begin(), request->names().end()},
                    clock_.SteadyNowNs() + timeout_ms * 1'000'000,
                    [reactor, response](absl::StatusOr<std::vector<std::string>> values) {
                      if (values.ok()) {
                        for (std::string& value : *values) response->add_values(std::move(value));
                      }
                      reactor->Finish(ToGrpc(values.status()));
                    });
    return reactor;
  }

 private:
  Coordinator& coordinator_;
  RendezvousStore& rendezvous_;
  const Clock& clock_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeWorkerService(Coordinator& coordinator, RendezvousStore& rendezvous,
                                                 const Clock& clock) {
  return std::make_unique<WorkerServiceImpl>(coordinator, rendezvous, clock);
}

}  // namespace accrue
