#include "worker/core/session_grpc.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "accrue/v1/worker.grpc.pb.h"
#include "common/clock.h"
#include "common/status.h"

namespace accrue {
namespace {

constexpr int kMostMessageBytes = 64 << 20;
// What a coordinator that does not read may leave waiting here.
constexpr size_t kMostQueued = 100'000;
// Beyond what a store call waits by itself, for its way there and back.
constexpr int64_t kStoreSlackMs = 5'000;

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

std::chrono::system_clock::time_point DeadlineAfter(const Clock& clock, int64_t timeout_ms) {
  return std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::nanoseconds(clock.WallNowUnixNs() + timeout_ms * 1'000'000)));
}

// One stream. gRPC calls the On... functions one at a time; writes go through a queue, since only one may be under way.
class GrpcLink : public CoordinatorLink, private grpc::ClientBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage> {
 public:
  GrpcLink(v1::WorkerService::Stub& stub, LinkReceiver* receiver) : receiver_(receiver) {
    stub.async()->Session(&context_, this);
    AddHold();  // writes begin outside of gRPC's callbacks; given back in Finish
    StartRead(&incoming_);
    StartCall();
  }

  ~GrpcLink() override {
    context_.TryCancel();
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&over_));
  }

  void Send(v1::WorkerMessage message) override {
    absl::MutexLock lock(&mutex_);
    if (finished_ || closing_) return;
    if (queue_.size() >= kMostQueued) {
      context_.TryCancel();
      return;
    }
    queue_.push_back(std::move(message));
    WriteNext();
  }

  void Close() override {
    absl::MutexLock lock(&mutex_);
    if (!finished_ && !closing_) {
      closing_ = true;
      WriteNext();
    }
    if (!mutex_.AwaitWithTimeout(absl::Condition(&over_), absl::Seconds(2))) context_.TryCancel();
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish();
      return;
    }
    receiver_->OnMessage(std::move(incoming_));
    incoming_.Clear();
    StartRead(&incoming_);
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (ok && !finished_) WriteNext();
  }

  void OnDone(const grpc::Status& status) override {
    receiver_->OnLost(status.ok() ? absl::UnavailableError("the coordinator ended the stream") : FromGrpc(status));
    absl::MutexLock lock(&mutex_);
    over_ = true;  // the destructor may run from here on
  }

  // No write begins any more, so that gRPC may end the stream.
  void Finish() {
    {
      absl::MutexLock lock(&mutex_);
      finished_ = true;
    }
    RemoveHold();
  }

  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return;
    if (!queue_.empty()) {
      outgoing_ = std::move(queue_.front());
      queue_.pop_front();
      writing_ = true;
      StartWrite(&outgoing_);
    } else if (closing_ && !half_closed_) {
      half_closed_ = true;
      StartWritesDone();
    }
  }

  grpc::ClientContext context_;
  LinkReceiver* const receiver_;
  v1::CoordinatorMessage incoming_;  // of the read under way

  absl::Mutex mutex_;
  v1::WorkerMessage outgoing_ ABSL_GUARDED_BY(mutex_);  // of the write under way
  std::deque<v1::WorkerMessage> queue_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // nothing more comes
  bool over_ ABSL_GUARDED_BY(mutex_) = false;      // gRPC is done with this object
};

class GrpcStore : public RendezvousStore {
 public:
  explicit GrpcStore(v1::WorkerService::Stub& stub) : stub_(stub) {}

  absl::Status Set(const std::string& communicator, const std::string& name, const std::string& value) override {
    grpc::ClientContext context;
    context.set_deadline(DeadlineAfter(Clock::Real(), kStoreSlackMs));
    v1::StoreSetRequest request;
    request.set_communicator(communicator);
    request.set_name(name);
    request.set_value(value);
    v1::StoreSetResponse response;
    return Annotate(FromGrpc(stub_.StoreSet(&context, request, &response)), "rendezvous store");
  }

  absl::StatusOr<std::vector<std::string>> Get(const std::string& communicator, const std::vector<std::string>& names,
                                               int64_t timeout_ms) override {
    grpc::ClientContext context;
    context.set_deadline(DeadlineAfter(Clock::Real(), timeout_ms + kStoreSlackMs));
    v1::StoreGetRequest request;
    request.set_communicator(communicator);
    request.mutable_names()->Assign(names.begin(), names.end());
    request.set_timeout_ms(timeout_ms);
    v1::StoreGetResponse response;
    ACCRUE_RETURN_IF_ERROR(Annotate(FromGrpc(stub_.StoreGet(&context, request, &response)), "rendezvous store"));
    return std::vector<std::string>(response.values().begin(), response.values().end());
  }

 private:
  v1::WorkerService::Stub& stub_;
};

class GrpcCoordinatorImpl : public GrpcCoordinator, private LinkFactory {
 public:
  explicit GrpcCoordinatorImpl(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(v1::WorkerService::NewStub(channel)), store_(*stub_) {}

  LinkFactory& links() override { return *this; }
  RendezvousStore& store() override { return store_; }

 private:
  std::unique_ptr<CoordinatorLink> Connect(LinkReceiver* receiver) override {
    return std::make_unique<GrpcLink>(*stub_, receiver);
  }

  std::unique_ptr<v1::WorkerService::Stub> stub_;
  GrpcStore store_;
};

}  // namespace

std::unique_ptr<GrpcCoordinator> GrpcCoordinator::Create(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMostMessageBytes);
  arguments.SetMaxSendMessageSize(kMostMessageBytes);
  // The worker has a backoff of its own; the channel's must not outlast it.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // A coordinator whose host vanished ends no connection.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  return std::make_unique<GrpcCoordinatorImpl>(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
}

}  // namespace accrue
