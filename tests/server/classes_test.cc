// Workers of two numeric classes: what people are told, and that it is not forgotten.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/file_system.h"
#include "tests/server/server_test_util.h"

namespace accrue {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class ClassesTest : public ServerTestBase {
 protected:
  ServerOptions Options() const override {
    ServerOptions options = ServerTestBase::Options();
    options.reconnect_timeout_seconds = 0.1;  // nobody comes back
    return options;
  }
  std::unique_ptr<FakeWorker> WorkerOf(const std::string& numeric_class) const {
    FakeWorkerOptions options;
    options.address = server_->grpc_address();
    options.name = "of-" + numeric_class.substr(numeric_class.find('/') + 1);
    options.numeric_class = numeric_class;
    return std::make_unique<FakeWorker>(std::move(options));
  }
  v1::SubmitRequest MixedRequest(int64_t windows) const {
    v1::SubmitRequest request = Request();
    request.mutable_spec()->set_windows(windows);
    request.mutable_spec()->mutable_workers()->set_min(2);
    request.mutable_spec()->mutable_workers()->set_max(2);
    request.mutable_spec()->mutable_workers()->set_mixed(true);
    return request;
  }
  static void ExpectMarked(const v1::JobStatus& status) {
    EXPECT_FALSE(status.reproducible());
    EXPECT_THAT(status.irreproducible_reason(), AllOf(HasSubstr("joined at window 0"), HasSubstr("cpu/one"), HasSubstr("cpu/two")));
  }
};

TEST_F(ClassesTest, Strict_WaitsAndNamesBothClasses) {
  StartServer();
  v1::SubmitRequest request = MixedRequest(4);
  request.mutable_spec()->mutable_workers()->clear_mixed();
  ASSERT_TRUE(Submit(request).ok());
  const auto one = WorkerOf("cpu/one"), two = WorkerOf("cpu/two");
  const Watched watched = Watch("headers", 0, [](const Watched& seen) {
    return seen.statuses.back().reason().find("is of numeric class") != std::string::npos;
  });
  EXPECT_THAT(watched.statuses.back().reason(), AllOf(HasSubstr("cpu/one"), HasSubstr("cpu/two")));
  EXPECT_TRUE(watched.statuses.back().reproducible());
}

TEST_F(ClassesTest, Mixed_SaidByWatchAndKeptByJournalAndCheckpoint) {
  StartServer();
  ASSERT_TRUE(Submit(MixedRequest(4)).ok());
  EXPECT_TRUE(Status("headers").reproducible());
  {
    const auto one = WorkerOf("cpu/one"), two = WorkerOf("cpu/two");
    const Watched watched = Watch("headers");
    ASSERT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED) << watched.statuses.back().reason();
    ExpectMarked(watched.statuses.back());
  }
  // A job that was over before this coordinator started.
  StopServer();
  StartServer();
  ExpectMarked(Status("headers"));

  // Another coordinator, the same output folder: it goes on from a checkpoint that says so.
  StopServer();
  ASSERT_TRUE(FileSystem::Real().RemoveAll(folder_ + "/state").ok());
  StartServer();
  v1::SubmitRequest more = Request();
  more.mutable_spec()->set_windows(4);
  more.set_resume_from(2);
  const grpc::Status submitted = Submit(more);
  ASSERT_TRUE(submitted.ok()) << submitted.error_message();
  ExpectMarked(Status("headers"));
}

TEST_F(ClassesTest, Restart_WithoutCheckpoint_WindowsOfTheMixNeedNotComeOutTheSame) {
  StartServer();
  v1::SubmitRequest request = MixedRequest(400);
  request.mutable_spec()->mutable_checkpoint()->set_every_windows(5);
  ASSERT_TRUE(Submit(request).ok());
  {
    const auto one = WorkerOf("cpu/one"), two = WorkerOf("cpu/two");
    Watch("headers", 0, [](const Watched& watched) { return watched.windows.size() >= 12; });
    StopServer();
  }
  StartServer();
  ExpectMarked(Status("headers"));
  const auto one = WorkerOf("cpu/one"), two = WorkerOf("cpu/two");
  const Watched watched = Watch("headers");
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED) << watched.statuses.back().reason();
  ExpectMarked(watched.statuses.back());
}

}  // namespace
}  // namespace accrue
