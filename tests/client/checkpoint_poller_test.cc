// The live view goes on while the coordinator does not answer.
#include "client/checkpoint_poller.h"

#include <sstream>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace accrue {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Answers ListCheckpoints only when it is told to, or when calls are cancelled.
class StoppedCoordinator : public JobClient {
 public:
  absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(const std::string& job) override {
    if (!asked_.HasBeenNotified()) asked_.Notify();
    answer_.WaitForNotification();
    if (cancelled_) return absl::CancelledError();
    v1::ListCheckpointsResponse response;
    response.add_checkpoints()->set_window(500);
    response.add_checkpoints()->set_window(400);
    return response;
  }
  void CancelCalls() override {
    cancelled_ = true;
    if (!answer_.HasBeenNotified()) answer_.Notify();
  }
  void Answer() { answer_.Notify(); }
  void WaitUntilAsked() { asked_.WaitForNotification(); }
  bool cancelled() const { return cancelled_; }

  absl::StatusOr<v1::SubmitResponse> Submit(const v1::SubmitRequest&) override { return No(); }
  absl::StatusOr<v1::ListResponse> List() override { return No(); }
  absl::StatusOr<v1::DescribeResponse> Describe(const std::string&) override { return No(); }
  absl::StatusOr<v1::JobStatus> Cancel(const std::string&, const std::string&, bool) override { return No(); }
  absl::StatusOr<v1::JobStatus> Pause(const std::string&) override { return No(); }
  absl::StatusOr<v1::JobStatus> Resume(const std::string&) override { return No(); }
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers() override { return No(); }
  absl::StatusOr<v1::WorkerStatus> DrainWorker(const v1::DrainWorkerRequest&) override { return No(); }
  absl::StatusOr<v1::GetVersionResponse> GetVersion() override { return No(); }
  std::unique_ptr<ResponseStream<v1::WatchResponse>> Watch(const std::string&, int64_t, bool) override {
    return nullptr;
  }
  std::unique_ptr<ResponseStream<v1::EventsResponse>> Events(const std::string&, int64_t, bool) override {
    return nullptr;
  }

 private:
  static absl::Status No() { return absl::UnimplementedError("not asked for"); }
  absl::Notification asked_, answer_;
  bool cancelled_ = false;
};

class CheckpointPollerTest : public ::testing::Test {
 protected:
  CheckpointPollerTest() : presenter_(Options()) {
    FollowEvent event;
    event.update.mutable_status()->set_job_id("headers-1");
    presenter_.Apply(event);
  }
  Presenter::Options Options() {
    Presenter::Options options;
    options.mode = Presenter::Mode::kLive;
    options.out = options.err = &out_;
    options.clock = &clock_;
    return options;
  }
  std::string Notice() const { return presenter_.model().Notice(); }

  FakeClock clock_;
  std::ostringstream out_;
  Presenter presenter_;
  StoppedCoordinator client_;
};

TEST_F(CheckpointPollerTest, MaybePoll_NobodyAnswers_ReturnsAndSaysForHowLong) {
  CheckpointPoller poller;
  poller.MaybePoll(clock_, client_, "headers-1", presenter_);
  client_.WaitUntilAsked();
  EXPECT_EQ(Notice(), "");
  clock_.AdvanceNs(2'900'000'000);
  poller.MaybePoll(clock_, client_, "headers-1", presenter_);
  EXPECT_EQ(Notice(), "");
  clock_.AdvanceNs(4'200'000'000);
  poller.MaybePoll(clock_, client_, "headers-1", presenter_);
  EXPECT_THAT(Notice(), HasSubstr("no answer from the coordinator for 7 s"));

  client_.Answer();
  while (!Notice().empty()) {
    poller.MaybePoll(clock_, client_, "headers-1", presenter_);
    std::this_thread::yield();
  }
  EXPECT_EQ(presenter_.model().checkpoint()->window(), 500);
}

TEST_F(CheckpointPollerTest, Destroyed_WhileNobodyAnswers_CancelsTheCall) {
  {
    CheckpointPoller poller;
    poller.MaybePoll(clock_, client_, "headers-1", presenter_);
    client_.WaitUntilAsked();
  }
  EXPECT_TRUE(client_.cancelled());
}

}  // namespace
}  // namespace accrue
