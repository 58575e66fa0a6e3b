// The coordinator's end and return in the middle of a job; and the daemon as a process.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "common/file_system.h"
#include "tests/server/server_test_util.h"

extern char** environ;

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

class RestartTest : public ServerTestBase {
 protected:
  ServerOptions Options() const override {
    ServerOptions options = ServerTestBase::Options();
    options.reconnect_timeout_seconds = reconnect_seconds_;
    return options;
  }
  void ExpectWholeLog(int64_t windows) const {
    const std::vector<std::string> lines = Lines("windows.jsonl");
    ASSERT_THAT(lines, SizeIs(windows));
    for (int64_t window = 0; window < windows; ++window) {
      const auto line = nlohmann::json::parse(lines[static_cast<size_t>(window)]);
      EXPECT_EQ(line["window"], window);
      EXPECT_EQ(line["digest"], FakeWorker::DigestAfter(window + 1));
    }
  }
  v1::SubmitRequest LongRequest(int64_t windows, int64_t checkpoint_every) const {
    v1::SubmitRequest request = Request();
    request.mutable_spec()->set_windows(windows);
    request.mutable_spec()->mutable_checkpoint()->set_every_windows(checkpoint_every);
    return request;
  }
  // Trains until that many windows are committed, then takes the coordinator down.
  void TrainThenStop(const v1::SubmitRequest& request, size_t windows) {
    StartServer();
    ASSERT_TRUE(Submit(request).ok());
    const auto worker = Worker();
    Watch("headers", 0, [&](const Watched& watched) { return watched.windows.size() >= windows; });
    StopServer();
  }

  double reconnect_seconds_ = 0.1;  // most tests have nobody who comes back
};

TEST_F(RestartTest, Restart_MidJob_GoesOnAndReportsNothingTwice) {
  TrainThenStop(LongRequest(200, 7), 20);
  const size_t before = Lines("windows.jsonl").size();
  ASSERT_GE(before, 20u);
  ASSERT_LT(before, 200u);
  StartServer();
  EXPECT_GE(Status("headers").window(), 20);
  const auto worker = Worker();
  const Watched watched = Watch("headers");
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED) << watched.statuses.back().reason();
  EXPECT_EQ(watched.statuses.back().job_id(), "headers-1");
  ASSERT_THAT(watched.windows, SizeIs(200));
  EXPECT_GT(watched.windows.back().timeline(), watched.windows.front().timeline());
  ExpectWholeLog(200);
}

TEST_F(RestartTest, Restart_WithoutACheckpoint_StartsOverAndMustAgree) {
  TrainThenStop(LongRequest(300, 0), 5);
  StartServer();
  const auto worker = Worker();
  const Watched watched = Watch("headers");
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED) << watched.statuses.back().reason();
  ExpectWholeLog(300);
}

TEST_F(RestartTest, Restart_LogTornByTheCrash_IsMended) {
  TrainThenStop(LongRequest(100, 5), 12);
  const std::string path = folder_ + "/out/windows.jsonl";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 10);
  StartServer();
  const auto worker = Worker();
  EXPECT_EQ(Watch("headers").statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  ExpectWholeLog(100);
}

TEST_F(RestartTest, Restart_NewestCheckpointDamaged_UsesTheOneBefore) {
  TrainThenStop(LongRequest(400, 4), 21);
  std::string newest;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/out/checkpoints")) {
    if (std::filesystem::exists(entry.path() / "manifest.json")) newest = std::max(newest, entry.path().string());
  }
  ASSERT_NE(newest, "");
  for (const auto& entry : std::filesystem::directory_iterator(newest)) {
    if (entry.path().extension() == ".safetensors") std::filesystem::resize_file(entry.path(), 3);
  }
  StartServer();
  const auto worker = Worker();
  EXPECT_EQ(Watch("headers").statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  ExpectWholeLog(400);
}

TEST_F(RestartTest, Restart_DataGone_FailsTheJobWithTheReason) {
  TrainThenStop(LongRequest(300, 5), 5);
  ASSERT_TRUE(FileSystem::Real().RemoveAll(folder_ + "/data/train-0.bin").ok());
  StartServer();
  const v1::JobStatus status = Status("headers");
  EXPECT_EQ(status.state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(status.reason(), HasSubstr("train-0.bin"));
  StopServer();
  StartServer();
  EXPECT_EQ(Status("headers").state(), v1::JOB_STATE_FAILED);
}

TEST_F(RestartTest, Restart_Paused_StaysPaused) {
  StartServer();
  ASSERT_TRUE(Submit(LongRequest(60, 5)).ok());
  {
    const auto worker = Worker();
    grpc::ClientContext context;
    v1::PauseRequest pause;
    pause.set_job("headers");
    v1::PauseResponse paused;
    ASSERT_TRUE(client_->Pause(&context, pause, &paused).ok());
    Watch("headers", 0, [](const Watched& watched) { return watched.statuses.back().state() == v1::JOB_STATE_PAUSED; });
  }
  StopServer();
  StartServer();
  const auto worker = Worker();
  const Watched watched = Watch("headers", 0, [](const Watched& so_far) {
    return so_far.statuses.back().state() == v1::JOB_STATE_PAUSED;
  });
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_PAUSED);
  grpc::ClientContext context;
  v1::ResumeRequest resume;
  resume.set_job("headers");
  v1::ResumeResponse resumed;
  ASSERT_TRUE(client_->Resume(&context, resume, &resumed).ok());
  EXPECT_EQ(Watch("headers").statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  ExpectWholeLog(60);
}

TEST_F(RestartTest, Restart_EndedJobs_AreStillListed) {
  StartServer();
  ASSERT_TRUE(Submit(Request()).ok());
  {
    const auto worker = Worker();
    Watch("headers");
  }
  StopServer();
  StartServer();
  const v1::JobStatus status = Status("headers");
  EXPECT_EQ(status.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(status.window(), 4);
  EXPECT_EQ(status.digest(), FakeWorker::DigestAfter(4));
  EXPECT_THAT(Watch("headers").WindowNumbers(), ElementsAre(0, 1, 2, 3));
  v1::SubmitRequest another = Request();
  another.set_output_directory(folder_ + "/other");
  v1::SubmitResponse response;
  ASSERT_TRUE(Submit(another, &response).ok());
  EXPECT_EQ(response.job_id(), "headers-2");
}

TEST_F(RestartTest, Restart_JournalDamaged_SaysSoAndServes) {
  TrainThenStop(LongRequest(300, 5), 10);
  for (const char* name : {"journal.db", "journal.db.backup"}) {
    ASSERT_TRUE(FileSystem::Real().WriteAtomically(folder_ + "/state/" + name, "this was a journal once, no more").ok());
  }
  StartServer();
  ASSERT_THAT(server_->warnings(), SizeIs(1));
  EXPECT_THAT(server_->warnings()[0], HasSubstr("is damaged"));
  // The folder knows how far the job was.
  v1::SubmitResponse response;
  ASSERT_TRUE(Submit(LongRequest(300, 5), &response).ok());
  EXPECT_GE(response.first_window(), 5);
  const auto worker = Worker();
  EXPECT_EQ(Watch(response.job_id()).statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  ExpectWholeLog(300);
}

// accrued as a child process; its standard error is read line by line.
class DaemonTest : public RestartTest {
 protected:
  ~DaemonTest() override {
    if (process_ > 0) End(SIGKILL);
  }

  void Spawn(const std::string& listen = "127.0.0.1:0", const std::string& state = "state", std::string more = "") {
    std::vector<std::string> arguments = {ACCRUED_PATH, "--listen", listen, "--http", "none", "--state",
                                          folder_ + "/" + state, "--data-root", folder_ + "/data", "--ready-file",
                                          folder_ + "/ready.json", "--log-format", "json", "--worker-timeout", "60",
                                          "--reconnect-timeout", std::to_string(reconnect_seconds_)};
    if (!more.empty()) arguments.push_back(more);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    ASSERT_EQ(posix_spawn(&process_, ACCRUED_PATH, &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    log_ = fdopen(ends[0], "r");
  }

  // Reads until a line holds the text; false when the process has ended before.
  bool WaitForLine(const std::string& text) {
    char line[4096];
    while (fgets(line, sizeof(line), log_) != nullptr) {
      said_ += line;
      if (absl::StrContains(line, text)) return true;
    }
    return false;
  }

  void Serve() {
    Spawn();
    ASSERT_TRUE(WaitForLine("\"message\":\"serving\"")) << said_;
    const size_t begin = said_.rfind("\"grpc\":\"") + 8;
    address_ = said_.substr(begin, said_.find('"', begin) - begin);
    client_ = v1::JobService::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
    // Nobody else reads the pipe.
    drain_ = std::thread([log = log_] {
      char block[4096];
      while (fgets(block, sizeof(block), log) != nullptr) {
      }
    });
  }

  // The exit code, or minus the signal.
  int End(int signal) {
    if (signal != 0) kill(process_, signal);
    int status = 0;
    waitpid(process_, &status, 0);
    process_ = 0;
    if (drain_.joinable()) drain_.join();
    fclose(log_);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::unique_ptr<FakeWorker> DaemonWorker(const FakeWorkerLife& resume = {}) const {
    FakeWorkerOptions options;
    options.resume = resume;
    options.address = address_;
    return std::make_unique<FakeWorker>(options);
  }

  pid_t process_ = 0;
  FILE* log_ = nullptr;
  std::thread drain_;
  std::string said_, address_;
};

TEST_F(DaemonTest, Killed_MidJob_GoesOnAndReportsNothingTwice) {
  Serve();
  ASSERT_TRUE(Submit(LongRequest(300, 7)).ok());
  {
    const auto worker = DaemonWorker();
    Watch("headers", 0, [](const Watched& watched) { return watched.windows.size() >= 30; });
    EXPECT_EQ(End(SIGKILL), -SIGKILL);
  }
  Serve();
  const auto worker = DaemonWorker();
  const Watched watched = Watch("headers");
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED) << watched.statuses.back().reason();
  ExpectWholeLog(300);
  EXPECT_EQ(End(SIGTERM), 0);
}

TEST_F(DaemonTest, Killed_WorkerOutlivesIt_NoWindowIsLostOrComputedAgain) {
  reconnect_seconds_ = 30;
  Serve();
  ASSERT_TRUE(Submit(LongRequest(300, 0)).ok());
  auto worker = DaemonWorker();
  Watch("headers", 0, [](const Watched& watched) { return watched.windows.size() >= 30; });
  EXPECT_EQ(End(SIGKILL), -SIGKILL);
  const FakeWorkerLife life = worker->Outlive();
  Serve();
  worker = DaemonWorker(life);
  const Watched watched = Watch("headers");
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED) << watched.statuses.back().reason();
  EXPECT_EQ(watched.windows.back().timeline(), 0);
  ExpectWholeLog(300);
}

TEST_F(DaemonTest, Terminated_EndsCleanlyAndTakesItsReadyFileAlong) {
  Spawn();
  ASSERT_TRUE(WaitForLine("\"message\":\"serving\"")) << said_;
  EXPECT_EQ(End(SIGTERM), 0);
  EXPECT_FALSE(FileSystem::Real().Exists(folder_ + "/ready.json"));
}

TEST_F(DaemonTest, Start_PortInUse_ExitsWithTheReason) {
  StartServer();
  Spawn(server_->grpc_address(), "second");
  EXPECT_TRUE(WaitForLine("is in use")) << said_;
  EXPECT_EQ(End(0), 1);
}

TEST_F(DaemonTest, Start_BadFlag_IsAUsageError) {
  Spawn("127.0.0.1:0", "state", "--no-such-flag");
  EXPECT_TRUE(WaitForLine("no-such-flag")) << said_;
  EXPECT_EQ(End(0), 2);
}

}  // namespace
}  // namespace accrue
