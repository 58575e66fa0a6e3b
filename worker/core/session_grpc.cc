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
constexpr int kConnectMs = 1'000;
// Of silence until the connection is asked, and of no answer until it is given up. It outlasts what the coordinator takes
// for the death of a worker (3 s), so that who is heard is not lost for its own impatience.
constexpr int kKeepaliveMs = 5'000;

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

std::chrono::system_clock::time_point DeadlineAfter(const Clock& clock, int64_t timeout_ms) {
  return std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::nanoseconds(clock.WallNowUnixNs() + timeout_ms * 1'000'000)));
}

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMostMessageBytes);
  arguments.SetMaxSendMessageSize(kMostMessageBytes);
  // Not the connection of another channel, which may be one that packets have long been lost on.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // An attempt to connect takes no longer than this: the next one begins with a fresh SYN.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kConnectMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kConnectMs);
  // A coordinator that is cut off, or whose host has vanished, ends no connection.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);  // messages are small, and there are many workers
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveMs);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// One stream, and the connection that it is on. gRPC calls the On... functions one at a time; writes go through a queue, since only one may be under way.
class GrpcLink : public CoordinatorLink, private grpc::ClientBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage> {
 public:
  GrpcLink(std::shared_ptr<v1::WorkerService::Stub> stub, LinkReceiver* receiver)
      : stub_(std::move(stub)), receiver_(receiver) {
    stub_->async()->Session(&context_, this);
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

  const std::shared_ptr<v1::WorkerService::Stub> stub_;
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

// Calls go over the connection of the newest stream.
class GrpcStore : public RendezvousStore {
 public:
  void Use(std::shared_ptr<v1::WorkerService::Stub> stub) {
    absl::MutexLock lock(&mutex_);
    stub_ = std::move(stub);
  }

  absl::Status Set(const std::string& communicator, const std::string& name, const std::string& value) override {
    grpc::ClientContext context;
    context.set_deadline(DeadlineAfter(Clock::Real(), kStoreSlackMs));
    v1::StoreSetRequest request;
    request.set_communicator(communicator);
    request.set_name(name);
    request.set_value(value);
    v1::StoreSetResponse response;
    return Annotate(FromGrpc(stub()->StoreSet(&context, request, &response)), "rendezvous store");
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
    ACCRUE_RETURN_IF_ERROR(Annotate(FromGrpc(stub()->StoreGet(&context, request, &response)), "rendezvous store"));
    return std::vector<std::string>(response.values().begin(), response.values().end());
  }

 private:
  std::shared_ptr<v1::WorkerService::Stub> stub() {
    absl::MutexLock lock(&mutex_);
    return stub_;
  }

  absl::Mutex mutex_;
  std::shared_ptr<v1::WorkerService::Stub> stub_ ABSL_GUARDED_BY(mutex_);
};

class GrpcCoordinatorImpl : public GrpcCoordinator, private LinkFactory {
 public:
  explicit GrpcCoordinatorImpl(std::string address) : address_(std::move(address)) { store_.Use(NewStub()); }

  LinkFactory& links() override { return *this; }
  RendezvousStore& store() override { return store_; }

 private:
  std::shared_ptr<v1::WorkerService::Stub> NewStub() const {
    return v1::WorkerService::NewStub(NewChannel(address_));
  }

  std::unique_ptr<CoordinatorLink> Connect(LinkReceiver* receiver) override {
    std::shared_ptr<v1::WorkerService::Stub> stub = NewStub();
    store_.Use(stub);
    return std::make_unique<GrpcLink>(std::move(stub), receiver);
  }

  const std::string address_;
  GrpcStore store_;
};

}  // namespace

std::unique_ptr<GrpcCoordinator> GrpcCoordinator::Create(const std::string& address) {
  return std::make_unique<GrpcCoordinatorImpl>(address);
}

}  // namespace accrue
