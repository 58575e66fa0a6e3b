#include "worker/core/session_grpc.h"

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "accrue/v1/worker.grpc.pb.h"
#include "worker/collective/testing/memory_rendezvous.h"

namespace accrue {
namespace {

using testing::HasSubstr;

// Answers each message that names a reason with a Refused of the same reason, or of the other side's address and port for
// "peer"; ends the stream on "end".
class EchoService : public v1::WorkerService::Service {
 public:
  grpc::Status Session(grpc::ServerContext* context,
                       grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>* stream) override {
    v1::WorkerMessage message;
    while (stream->Read(&message)) {
      if (message.leaving().reason() == "end") return grpc::Status(grpc::StatusCode::ABORTED, "as asked");
      v1::CoordinatorMessage answer;
      const std::string& reason = message.leaving().reason();
      answer.mutable_refused()->set_reason(reason == "peer" ? context->peer() : reason);
      stream->Write(answer);
    }
    if (!half_closed.HasBeenNotified()) half_closed.Notify();
    return grpc::Status::OK;
  }
  grpc::Status StoreSet(grpc::ServerContext* context, const v1::StoreSetRequest* request,
                        v1::StoreSetResponse*) override {
    if (request->name() == "peer") return grpc::Status(grpc::StatusCode::ABORTED, context->peer());
    store.Set(request->communicator(), request->name(), request->value()).IgnoreError();
    return grpc::Status::OK;
  }
  grpc::Status StoreGet(grpc::ServerContext*, const v1::StoreGetRequest* request,
                        v1::StoreGetResponse* response) override {
    auto values = store.Get(request->communicator(), {request->names().begin(), request->names().end()},
                            request->timeout_ms());
    if (!values.ok()) {
      return grpc::Status(static_cast<grpc::StatusCode>(values.status().code()), std::string(values.status().message()));
    }
    response->mutable_values()->Assign(values->begin(), values->end());
    return grpc::Status::OK;
  }

  MemoryRendezvous store;
  absl::Notification half_closed;
};

class CollectingReceiver : public LinkReceiver {
 public:
  void OnMessage(v1::CoordinatorMessage message) override {
    absl::MutexLock lock(&mutex_);
    reasons_.push_back(message.refused().reason());
  }
  void OnLost(const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    lost_.push_back(status);
  }
  std::vector<std::string> WaitForMessages(size_t count) {
    absl::MutexLock lock(&mutex_);
    auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return reasons_.size() >= count; };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&ready), absl::Seconds(30)));
    return reasons_;
  }
  absl::Status WaitForLoss() {
    absl::MutexLock lock(&mutex_);
    auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !lost_.empty(); };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&ready), absl::Seconds(30)));
    EXPECT_EQ(lost_.size(), 1u);
    return lost_.empty() ? absl::OkStatus() : lost_.front();
  }

 private:
  absl::Mutex mutex_;
  std::vector<std::string> reasons_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Status> lost_ ABSL_GUARDED_BY(mutex_);
};

v1::WorkerMessage Saying(const std::string& reason) {
  v1::WorkerMessage message;
  message.mutable_leaving()->set_reason(reason);
  return message;
}

class SessionGrpcTest : public testing::Test {
 protected:
  SessionGrpcTest() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    coordinator_ = GrpcCoordinator::Create("127.0.0.1:" + std::to_string(port));
  }
  ~SessionGrpcTest() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::time_point());
  }

  EchoService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<GrpcCoordinator> coordinator_;
};

TEST_F(SessionGrpcTest, Send_ManyFromTwoThreads_AllArriveInOrder) {
  CollectingReceiver receiver;
  auto link = coordinator_->links().Connect(&receiver);
  std::thread other([&] {
    for (int i = 0; i < 500; ++i) link->Send(Saying("b" + std::to_string(i)));
  });
  for (int i = 0; i < 500; ++i) link->Send(Saying("a" + std::to_string(i)));
  other.join();
  int a = 0, b = 0;
  for (const std::string& reason : receiver.WaitForMessages(1000)) {
    int& next = reason[0] == 'a' ? a : b;
    EXPECT_EQ(reason.substr(1), std::to_string(next++));
  }
}

TEST_F(SessionGrpcTest, Close_QueuedMessages_AreSentFirst) {
  CollectingReceiver receiver;
  auto link = coordinator_->links().Connect(&receiver);
  for (int i = 0; i < 100; ++i) link->Send(Saying("x"));
  link->Close();
  EXPECT_EQ(receiver.WaitForMessages(100).size(), 100u);
  EXPECT_TRUE(service_.half_closed.HasBeenNotified());
  EXPECT_FALSE(receiver.WaitForLoss().ok());
  link->Send(Saying("late"));  // without effect
}

TEST_F(SessionGrpcTest, OnLost_ServerEndsStream_CarriesItsStatus) {
  CollectingReceiver receiver;
  auto link = coordinator_->links().Connect(&receiver);
  link->Send(Saying("end"));
  const absl::Status status = receiver.WaitForLoss();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(status.message(), "as asked");
}

TEST_F(SessionGrpcTest, Connect_NobodyThere_LostAndLaterFound) {
  CollectingReceiver receiver;
  auto nobody = GrpcCoordinator::Create("127.0.0.1:1");
  auto link = nobody->links().Connect(&receiver);
  EXPECT_EQ(receiver.WaitForLoss().code(), absl::StatusCode::kUnavailable);
}

TEST_F(SessionGrpcTest, Connect_Again_HasAConnectionOfItsOwnAndSoHasTheStore) {
  CollectingReceiver first, second;
  auto link = coordinator_->links().Connect(&first);
  link->Send(Saying("peer"));
  const std::string first_peer = first.WaitForMessages(1).at(0);
  EXPECT_THAT(coordinator_->store().Set("c", "peer", "").message(), HasSubstr(first_peer));
  auto next = coordinator_->links().Connect(&second);
  next->Send(Saying("peer"));
  const std::string second_peer = second.WaitForMessages(1).at(0);
  EXPECT_NE(first_peer, second_peer);
  EXPECT_THAT(coordinator_->store().Set("c", "peer", "").message(), HasSubstr(second_peer));
}

TEST_F(SessionGrpcTest, Destructor_StreamOpen_Cancels) {
  CollectingReceiver receiver;
  coordinator_->links().Connect(&receiver)->Send(Saying("x"));
  EXPECT_EQ(receiver.WaitForLoss().code(), absl::StatusCode::kCancelled);
}

TEST_F(SessionGrpcTest, Store_SetAndGet_ValuesAndCodes) {
  RendezvousStore& store = coordinator_->store();
  const std::string binary("\0\xff\n", 3);
  ASSERT_TRUE(store.Set("c", "a", binary).ok());
  ASSERT_TRUE(store.Set("c", "b", "2").ok());
  auto values = store.Get("c", {"b", "a"}, 1000);
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_EQ(*values, (std::vector<std::string>{"2", binary}));
  EXPECT_EQ(store.Get("c", {"z"}, 1).status().code(), absl::StatusCode::kDeadlineExceeded);
  service_.store.GiveUp("c");
  EXPECT_EQ(store.Get("c", {"z"}, 10'000).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace accrue
