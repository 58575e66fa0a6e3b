// Workers' streams, the rendezvous calls, and gRPC's standard services.
#include <gmock/gmock.h>
#include <grpc/grpc.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>

#include "accrue/v1/worker.grpc.pb.h"
#include "common/file_system.h"
#include "common/version.h"
#include "tests/server/server_test_util.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

class WorkersTest : public ServerTestBase {
 protected:
  void SetUp() override {
    StartServer();
    channel_ = grpc::CreateChannel(server_->grpc_address(), grpc::InsecureChannelCredentials());
    store_ = v1::WorkerService::NewStub(channel_);
  }

  std::vector<v1::WorkerStatus> Workers() const {
    grpc::ClientContext context;
    v1::ListWorkersResponse response;
    EXPECT_TRUE(client_->ListWorkers(&context, v1::ListWorkersRequest(), &response).ok());
    return {response.workers().begin(), response.workers().end()};
  }

  grpc::Status Drain(const std::string& worker, v1::WorkerStatus* status = nullptr, bool at_once = false) const {
    grpc::ClientContext context;
    v1::DrainWorkerRequest request;
    request.set_worker(worker);
    request.set_at_once(at_once);
    request.set_reason("maintenance");
    v1::DrainWorkerResponse response;
    const grpc::Status result = client_->DrainWorker(&context, request, &response);
    if (status != nullptr) *status = response.worker();
    return result;
  }

  grpc::Status Set(const std::string& communicator, const std::string& name, const std::string& value) const {
    grpc::ClientContext context;
    v1::StoreSetRequest request;
    request.set_communicator(communicator);
    request.set_name(name);
    request.set_value(value);
    v1::StoreSetResponse response;
    return store_->StoreSet(&context, request, &response);
  }
  grpc::Status Get(const std::string& communicator, const std::string& name, int64_t timeout_ms,
                   std::string* value = nullptr) const {
    grpc::ClientContext context;
    v1::StoreGetRequest request;
    request.set_communicator(communicator);
    request.add_names(name);
    request.set_timeout_ms(timeout_ms);
    v1::StoreGetResponse response;
    const grpc::Status status = store_->StoreGet(&context, request, &response);
    if (value != nullptr && response.values_size() > 0) *value = response.values(0);
    return status;
  }

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::WorkerService::Stub> store_;
};

TEST_F(WorkersTest, Hello_OfThisVersion_IsWelcomed) {
  const auto worker = Worker("host-1");
  ASSERT_TRUE(worker->WaitFor(v1::CoordinatorMessage::kWelcome));
  const v1::Welcome welcome = worker->Messages()[0].welcome();
  EXPECT_EQ(welcome.term(), 1);
  EXPECT_GT(welcome.incarnation(), 0);
  EXPECT_GT(welcome.heartbeat_interval_ms(), 0);
}

TEST_F(WorkersTest, Hello_OfAnotherVersion_IsRefusedWithBoth) {
  FakeWorkerOptions options;
  options.address = server_->grpc_address();
  options.version = "0.0.9";
  FakeWorker worker(options);
  ASSERT_TRUE(worker.WaitForEnd());
  ASSERT_THAT(worker.Messages(), SizeIs(1));
  EXPECT_THAT(worker.Messages()[0].refused().reason(), HasSubstr("0.0.9"));
  EXPECT_THAT(worker.Messages()[0].refused().reason(), HasSubstr(kVersion));
  EXPECT_FALSE(worker.Messages()[0].refused().rejoin());
}

TEST_F(WorkersTest, Message_ThatMakesNoSense_EndsTheStreamWithTheReason) {
  const auto worker = Worker();
  ASSERT_TRUE(worker->WaitFor(v1::CoordinatorMessage::kWelcome));
  v1::WorkerMessage second_hello;
  second_hello.mutable_hello();
  worker->Send(second_hello);
  ASSERT_TRUE(worker->WaitForEnd());
  EXPECT_THAT(worker->Messages().back().refused().reason(), HasSubstr("second Hello"));
}

TEST_F(WorkersTest, ShutDown_EndsTheStreamsAndRefusesNobody) {
  const auto worker = Worker();
  ASSERT_TRUE(worker->WaitFor(v1::CoordinatorMessage::kWelcome));
  StopServer();
  ASSERT_TRUE(worker->WaitForEnd());
  for (const v1::CoordinatorMessage& message : worker->Messages()) EXPECT_FALSE(message.has_refused());
}

TEST_F(WorkersTest, Killed_BeforeTheSeal_TheOtherDoesItsUnits) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_workers()->set_max(2);
  request.mutable_spec()->mutable_workers()->set_min(2);
  ASSERT_TRUE(Submit(request).ok());
  FakeWorkerOptions deaf;
  deaf.address = server_->grpc_address();
  deaf.name = "deaf";
  deaf.filter = [](const v1::CoordinatorMessage& message) { return !message.has_plan(); };
  auto first = Worker("first");
  auto second = std::make_unique<FakeWorker>(deaf);
  ASSERT_TRUE(second->WaitFor(v1::CoordinatorMessage::kPlan));
  second.reset();
  const auto third = Worker("third");  // so that there are two again
  const Watched watched = Watch("headers");
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED) << watched.statuses.back().reason();
  EXPECT_THAT(watched.WindowNumbers(), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(watched.windows.back().digest(), FakeWorker::DigestAfter(4));
}

// It may wait for another message to go with, but none follows here.
TEST_F(WorkersTest, PlanAhead_ComesWithoutASeal) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_workers()->set_max(2);
  request.mutable_spec()->mutable_workers()->set_min(2);
  ASSERT_TRUE(Submit(request).ok());
  FakeWorkerOptions deaf;
  deaf.address = server_->grpc_address();
  deaf.name = "deaf";
  deaf.filter = [](const v1::CoordinatorMessage& message) { return !message.has_plan(); };
  std::promise<void> planned;
  FakeWorkerOptions attentive = deaf;
  attentive.name = "attentive";
  attentive.filter = [&](const v1::CoordinatorMessage& message) {
    if (message.has_plan() && message.plan().key().window() == 1) planned.set_value();
    return true;
  };
  FakeWorker first(deaf), second(attentive);
  EXPECT_EQ(planned.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
  for (const v1::CoordinatorMessage& message : second.Messages()) EXPECT_FALSE(message.has_seal());
}

TEST_F(WorkersTest, JobFailed_FatalForTheJob_EndsItWithThatReason) {
  ASSERT_TRUE(Submit(Request()).ok());
  FakeWorkerOptions options;
  options.address = server_->grpc_address();
  FakeWorker* self = nullptr;
  std::promise<void> ready;
  options.filter = [&](const v1::CoordinatorMessage& message) {
    if (!message.has_assign_job()) return true;
    ready.get_future().wait();
    v1::WorkerMessage failed;
    *failed.mutable_job_failed()->mutable_key() = message.assign_job().key();
    failed.mutable_job_failed()->set_status("FAILED_PRECONDITION");
    failed.mutable_job_failed()->set_reason("the shard has changed");
    failed.mutable_job_failed()->set_fatal_for_job(true);
    self->Send(failed);
    return false;
  };
  FakeWorker worker(options);
  self = &worker;
  ready.set_value();
  const Watched watched = Watch("headers");
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(watched.statuses.back().reason(), HasSubstr("the shard has changed"));
}

TEST_F(WorkersTest, ListWorkers_ShowsWhoIsThere) {
  const auto worker = Worker("host-1");
  ASSERT_TRUE(Submit(Request()).ok());
  Watch("headers", 0, [](const Watched& watched) { return !watched.windows.empty(); });
  const std::vector<v1::WorkerStatus> workers = Workers();
  ASSERT_THAT(workers, SizeIs(1));
  EXPECT_EQ(workers[0].name(), "host-1");
  EXPECT_EQ(workers[0].process_id(), 4711);
}

TEST_F(WorkersTest, DrainWorker_WithoutAJob_EndsItsProcess) {
  const auto worker = Worker("host-1");
  ASSERT_TRUE(worker->WaitFor(v1::CoordinatorMessage::kWelcome));
  v1::WorkerStatus status;
  ASSERT_TRUE(Drain("host-1", &status).ok());
  EXPECT_EQ(status.name(), "host-1");
  EXPECT_EQ(status.state(), "leaving");
  ASSERT_TRUE(worker->WaitFor(v1::CoordinatorMessage::kRelease));
  EXPECT_TRUE(worker->Messages().back().release().shut_down());
  EXPECT_EQ(worker->Messages().back().release().reason(), "maintenance");
}

TEST_F(WorkersTest, DrainWorker_OfAJob_EndsItsProcessAtTheWindowsEndAndNoOther) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_workers()->set_max(2);
  ASSERT_TRUE(Submit(request).ok());
  FakeWorkerOptions options;
  options.address = server_->grpc_address();
  options.name = "leaver";
  std::promise<void> planned, drained;
  std::shared_future<void> may_go_on = drained.get_future().share();
  std::atomic<bool> first{true};
  options.filter = [&](const v1::CoordinatorMessage& message) {
    if (message.has_plan() && first.exchange(false)) {
      planned.set_value();
      may_go_on.wait();
    }
    return true;
  };
  FakeWorker leaver(options);
  planned.get_future().wait();
  const auto stayer = Worker("stayer");
  const grpc::Status status = Drain("leaver");
  drained.set_value();
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_TRUE(leaver.WaitFor(v1::CoordinatorMessage::kRelease));
  EXPECT_TRUE(leaver.Messages().back().release().shut_down());
  const Watched watched = Watch("headers");
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED) << watched.statuses.back().reason();
  EXPECT_EQ(watched.windows.back().digest(), FakeWorker::DigestAfter(4));
  ASSERT_TRUE(stayer->WaitFor(v1::CoordinatorMessage::kRelease));
  EXPECT_FALSE(stayer->Messages().back().release().shut_down());
}

TEST_F(WorkersTest, DrainWorker_AtOnce_WaitsForNoUnitOfItsOwn) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_workers()->set_max(2);
  ASSERT_TRUE(Submit(request).ok());
  FakeWorkerOptions options;
  options.address = server_->grpc_address();
  options.name = "stuck";  // never answers a plan
  options.filter = [](const v1::CoordinatorMessage& message) { return !message.has_plan(); };
  FakeWorker stuck(options);
  ASSERT_TRUE(stuck.WaitFor(v1::CoordinatorMessage::kPlan));
  const auto stayer = Worker("stayer");
  ASSERT_TRUE(stayer->WaitFor(v1::CoordinatorMessage::kAssignJob));
  ASSERT_TRUE(Drain("stuck", /*status=*/nullptr, /*at_once=*/true).ok());
  ASSERT_TRUE(stuck.WaitFor(v1::CoordinatorMessage::kRelease));
  EXPECT_TRUE(stuck.Messages().back().release().shut_down());
  const Watched watched = Watch("headers");
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED) << watched.statuses.back().reason();
  EXPECT_EQ(watched.windows.back().digest(), FakeWorker::DigestAfter(4));
}

TEST_F(WorkersTest, DrainWorker_Unknown_NotFound) {
  const auto first = Worker("same"), second = Worker("same");
  ASSERT_TRUE(first->WaitFor(v1::CoordinatorMessage::kWelcome));
  ASSERT_TRUE(second->WaitFor(v1::CoordinatorMessage::kWelcome));
  EXPECT_EQ(Drain("nobody").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Drain("same").error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(WorkersTest, Watch_OnlyPast_EndsThoughTheJobGoesOn) {
  ASSERT_TRUE(Submit(Request()).ok());
  grpc::ClientContext context;
  v1::WatchRequest request;
  request.set_job("headers");
  request.set_only_past(true);
  const auto stream = client_->Watch(&context, request);
  v1::WatchResponse update;
  ASSERT_TRUE(stream->Read(&update));
  EXPECT_EQ(update.status().state(), v1::JOB_STATE_WAITING);
  EXPECT_FALSE(stream->Read(&update));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(WorkersTest, Store_GetBeforeSet_WaitsForIt) {
  std::future<std::string> waiting = std::async(std::launch::async, [this] {
    std::string value;
    EXPECT_TRUE(Get("job/0/1", "rank-0", 20000, &value).ok());
    return value;
  });
  ASSERT_TRUE(Set("job/0/1", "rank-0", std::string("\0address", 8)).ok());
  EXPECT_EQ(waiting.get(), std::string("\0address", 8));
}

TEST_F(WorkersTest, Store_NobodySets_DeadlineExceeded) {
  const grpc::Status status = Get("job/0/1", "rank-9", 1);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("rank-9"));
}

TEST_F(WorkersTest, Store_CommunicatorOfAnEndedJob_IsCancelled) {
  ASSERT_TRUE(Submit(Request()).ok());
  const auto worker = Worker();
  EXPECT_EQ(Watch("headers").statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  std::string communicator;
  for (const v1::CoordinatorMessage& message : worker->Messages()) {
    if (message.has_seal() && !message.seal().communicator().empty()) communicator = message.seal().communicator();
  }
  ASSERT_NE(communicator, "");
  EXPECT_EQ(Get(communicator, "rank-0", 20000).error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(WorkersTest, GetVersion_TellsVersionAndTerm) {
  grpc::ClientContext context;
  v1::GetVersionResponse response;
  ASSERT_TRUE(client_->GetVersion(&context, v1::GetVersionRequest(), &response).ok());
  EXPECT_EQ(response.version(), kVersion);
  EXPECT_EQ(response.term(), 1);
}

// One call of a service whose messages are not compiled in here: bytes there, bytes back.
std::string CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& method, const std::string& bytes) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, method, &queue);
  void* tag = nullptr;
  bool ok = false;
  call->StartCall(nullptr);
  queue.Next(&tag, &ok);
  const grpc::Slice slice(bytes);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  queue.Next(&tag, &ok);
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  queue.Next(&tag, &ok);
  grpc::Status status;
  call->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  EXPECT_TRUE(status.ok()) << status.error_message();
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(answer.Dump(&slices).ok());
  std::string result;
  for (const grpc::Slice& one : slices) result.append(reinterpret_cast<const char*>(one.begin()), one.size());
  return result;
}

TEST_F(WorkersTest, Health_WhileServing_SaysServing) {
  // HealthCheckResponse{status: SERVING}
  EXPECT_EQ(CallRaw(channel_, "/grpc.health.v1.Health/Check", ""), std::string("\x08\x01", 2));
}

TEST_F(WorkersTest, Reflection_NamesTheServices) {
  // ServerReflectionRequest{list_services: ""}
  const std::string answer = CallRaw(channel_, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                     std::string("\x3a\x00", 2));
  EXPECT_THAT(answer, HasSubstr("accrue.v1.JobService"));
  EXPECT_THAT(answer, HasSubstr("accrue.v1.WorkerService"));
}

TEST_F(WorkersTest, Start_PortInUse_NamesThePort) {
  ServerOptions options = Options();
  options.state_directory = folder_ + "/second-state";
  options.listen = server_->grpc_address();
  const absl::Status status = Server::Start(options).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  const std::string port = server_->grpc_address().substr(server_->grpc_address().rfind(':') + 1);
  EXPECT_THAT(status.message(), HasSubstr("port " + port + " is in use"));
}

TEST_F(WorkersTest, Start_StateInUse_NamesTheFolder) {
  const absl::Status status = Server::Start(Options()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr(folder_ + "/state"));
}

}  // namespace
}  // namespace accrue
