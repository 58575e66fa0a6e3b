#include "worker/core/worker.h"

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/fake_links.h"
#include "tests/worker/runner_testing.h"
#include "worker/collective/gloo_collective.h"
#include "worker/collective/testing/memory_rendezvous.h"

namespace accrue {
namespace {

using worker_testing::FakeCheckpoints;
using worker_testing::FakeJobs;
using worker_testing::FakeLinks;

class WorkerTest : public testing::Test {
 protected:
  WorkerTest()
      : collectives_(*CreateGlooFactory({}, &store_)),
        worker_({.session = {.first_pause_ms = 1}},
                {links_, jobs_, *collectives_,
                 [](CoordinatorLink&) -> std::unique_ptr<CheckpointSink> { return std::make_unique<FakeCheckpoints>(); },
                 Clock::Real()}),
        thread_([this] { result_ = worker_.Run(); }) {}
  ~WorkerTest() override {
    if (thread_.joinable()) {
      worker_.Drain("end of test");
      thread_.join();
    }
  }
  absl::Status Join() {
    thread_.join();
    return result_;
  }

  static v1::CoordinatorMessage Welcome() {
    v1::CoordinatorMessage message;
    message.mutable_welcome()->set_incarnation(7);
    message.mutable_welcome()->set_heartbeat_interval_ms(1000);
    return message;
  }
  static v1::CoordinatorMessage Assign() {
    v1::CoordinatorMessage message;
    v1::Key& key = *message.mutable_assign_job()->mutable_key();
    key.set_job_id(worker_testing::kJobId);
    key.set_incarnation(7);
    return message;
  }
  static v1::CoordinatorMessage ReleaseMessage(bool shut_down = false) {
    v1::CoordinatorMessage message;
    message.mutable_release()->mutable_key()->set_job_id(worker_testing::kJobId);
    message.mutable_release()->set_shut_down(shut_down);
    return message;
  }

  MemoryRendezvous store_;
  std::unique_ptr<CollectiveFactory> collectives_;
  FakeLinks links_;
  FakeJobs jobs_;
  Worker worker_;
  absl::Status result_;
  std::thread thread_;
};

// Also a worker that is busy, or receives the state: the compute thread is not asked.
TEST_F(WorkerTest, Prepare_WithoutAJob_IsAnswered) {
  auto stream = links_.Next();
  stream->Tell(Welcome());
  v1::CoordinatorMessage message;
  message.mutable_prepare()->mutable_key()->set_incarnation(7);
  message.mutable_prepare()->set_communicator("ahead");
  message.mutable_prepare()->add_members(7);
  stream->Tell(message);
  const v1::WorkerMessage answer = stream->link.Take();
  EXPECT_EQ(answer.prepared().communicator(), "ahead");
  EXPECT_EQ(answer.prepared().error(), "");
}

TEST_F(WorkerTest, Run_RefusedForGood_EndsWithReason) {
  auto stream = links_.Next();
  v1::CoordinatorMessage refused;
  refused.mutable_refused()->set_reason("version 0.0 is not 0.1");
  stream->receiver->OnMessage(refused);
  const absl::Status status = Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("version 0.0 is not 0.1"));
}

TEST_F(WorkerTest, Run_RefusedForNow_ComesBack) {
  auto stream = links_.Next();
  stream->receiver->OnMessage(Welcome());
  v1::CoordinatorMessage refused;
  refused.mutable_refused()->set_rejoin(true);
  stream->receiver->OnMessage(refused);
  links_.Next();
}

TEST_F(WorkerTest, Run_LinkLostIdle_ComesBackAsNewIncarnation) {
  links_.Next()->receiver->OnLost(absl::UnavailableError("no coordinator"));
  auto idle = links_.Next();
  EXPECT_EQ(idle->hello.incarnation(), 0);
  idle->receiver->OnMessage(Welcome());
  idle->receiver->OnLost(absl::UnavailableError("gone"));
  EXPECT_EQ(links_.Next()->hello.incarnation(), 0);
}

TEST_F(WorkerTest, Drain_InJobWithoutCoordinator_Ends) {
  auto stream = links_.Next();
  stream->receiver->OnMessage(Welcome());
  stream->receiver->OnMessage(Assign());
  EXPECT_TRUE(stream->link.Take().has_job_loaded());
  worker_.Drain("end of test");
  stream->receiver->OnLost(absl::UnavailableError("gone"));  // nobody is left who would release it
  EXPECT_TRUE(Join().ok());
}

TEST_F(WorkerTest, Run_LoadFails_JobFailedAndStillThere) {
  auto stream = links_.Next();
  stream->receiver->OnMessage(Welcome());
  jobs_.status = absl::FailedPreconditionError("a.bin has hash 1, expected 2");
  stream->receiver->OnMessage(Assign());
  const v1::WorkerMessage message = stream->link.Take();
  EXPECT_EQ(message.job_failed().status(), "FAILED_PRECONDITION");
  EXPECT_THAT(message.job_failed().reason(), testing::HasSubstr("a.bin"));
  EXPECT_FALSE(message.job_failed().fatal_for_job());
  jobs_.status = absl::InvalidArgumentError("no such architecture");
  stream->receiver->OnMessage(Assign());
  EXPECT_TRUE(stream->link.Take().job_failed().fatal_for_job());
}

TEST_F(WorkerTest, Run_AssignedAnew_LoadsAgain) {
  auto stream = links_.Next();
  stream->receiver->OnMessage(Welcome());
  for (int i = 0; i < 3; ++i) {
    stream->receiver->OnMessage(Assign());
    EXPECT_TRUE(stream->link.Take().has_job_loaded());
  }
  stream->receiver->OnMessage(ReleaseMessage());
  stream->receiver->OnMessage(Assign());
  EXPECT_TRUE(stream->link.Take().has_job_loaded());
  stream->receiver->OnMessage(ReleaseMessage());
}

TEST_F(WorkerTest, Run_ReleasedWithShutDown_Ends) {
  auto stream = links_.Next();
  stream->receiver->OnMessage(Welcome());
  stream->receiver->OnMessage(Assign());
  stream->receiver->OnMessage(ReleaseMessage(/*shut_down=*/true));
  EXPECT_TRUE(Join().ok());
  EXPECT_TRUE(stream->link.closed());
}

TEST_F(WorkerTest, Drain_Idle_LeavesAndEnds) {
  auto stream = links_.Next();
  stream->receiver->OnMessage(Welcome());
  stream->receiver->OnMessage(Assign());
  EXPECT_TRUE(stream->link.Take().has_job_loaded());
  stream->receiver->OnMessage(ReleaseMessage());
  worker_.Drain("signal 15");
  EXPECT_TRUE(Join().ok());
  EXPECT_TRUE(stream->link.closed());
}

TEST_F(WorkerTest, Drain_InJob_LeavesOnRelease) {
  auto stream = links_.Next();
  stream->receiver->OnMessage(Welcome());
  stream->receiver->OnMessage(Assign());
  EXPECT_TRUE(stream->link.Take().has_job_loaded());
  worker_.Drain("signal 15");
  EXPECT_EQ(stream->link.Take().leaving().reason(), "signal 15");
  EXPECT_FALSE(stream->link.closed());
  stream->receiver->OnMessage(ReleaseMessage());
  EXPECT_TRUE(Join().ok());
}

TEST_F(WorkerTest, Drain_NoCoordinator_Ends) {
  links_.Next();
  worker_.Drain("signal 15");
  EXPECT_TRUE(Join().ok());
}

}  // namespace
}  // namespace accrue
