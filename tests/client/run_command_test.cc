// `accrue run` with scripts in place of the daemons and a scripted coordinator within the test.
#include <signal.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/client_runner.h"
#include "tests/client/fake_job_service.h"
#include "tests/spec/job_text.h"

namespace accrue {
namespace {

using nlohmann::json;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

class RunCommandTest : public ::testing::Test {
 protected:
  RunCommandTest() {
    char name[] = "/tmp/accrue-run-XXXXXX";
    folder_ = mkdtemp(name);
    Write("job.yaml", kJob);
    service_.status = MakeStatus(v1::JOB_STATE_SUCCEEDED, 2, "all windows committed");
    address_ = service_.Start();
  }
  ~RunCommandTest() override { FileSystem::Real().RemoveAll(folder_).IgnoreError(); }

  std::string Path(const std::string& name) const { return JoinPath(folder_, name); }
  void Write(const std::string& name, absl::string_view text) {
    ASSERT_TRUE(FileSystem::Real().WriteAtomically(Path(name), text).ok());
  }
  void WriteScript(const std::string& name, absl::string_view body) {
    Write(name, absl::StrCat("#!/bin/sh\necho $$ >>", Path("pids"), "\n", body, "\n"));
    chmod(Path(name).c_str(), 0755);
  }
  // A coordinator that is ready at once, as the service within the test.
  void WriteGoodCoordinator() {
    WriteScript("accrued", absl::StrReplaceAll(R"(
echo "$@" >ARGS
while [ $# -gt 0 ]; do [ "$1" = --ready-file ] && ready=$2; shift; done
echo '{"grpc": "ADDRESS", "http": "127.0.0.1:99"}' >"$ready.part" && mv "$ready.part" "$ready"
exec sleep 1000)",
                                               {{"ARGS", Path("accrued.args")}, {"ADDRESS", address_}}));
  }
  ClientResult Run(std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"run", Path("job.yaml"), "--output", Path("out")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunAccrue(arguments, folder_);
  }
  // Of a named pipe; waits for who writes it, and until they have closed it.
  std::string ReadLine(const std::string& name) {
    std::ifstream pipe(Path(name));
    std::string line, rest;
    std::getline(pipe, line);
    while (std::getline(pipe, rest)) {
    }
    return line;
  }
  void ExpectNoChildLeft() {
    const absl::StatusOr<std::string> pids = FileSystem::Real().ReadAll(Path("pids"), 1 << 16);
    ASSERT_TRUE(pids.ok());
    for (const absl::string_view line : absl::StrSplit(*pids, '\n', absl::SkipEmpty())) {
      int pid = 0;
      ASSERT_TRUE(absl::SimpleAtoi(line, &pid));
      EXPECT_NE(kill(pid, 0), 0) << "process " << pid << " outlived its run";
    }
  }

  std::string folder_;
  FakeJobService service_;
  std::string address_;
};

TEST_F(RunCommandTest, NoBinaries_SaysWhichIsExpectedWhere) {
  const ClientResult result = Run();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(
      result.err,
      absl::StrCat("accrue: expected the program ", Path("accrued"),
                   ", found none that can be run (No such file or directory): build or install it beside "
                   "accrue\n"));
}

TEST_F(RunCommandTest, BadJobFile_ExitCode3AndNothingStarted) {
  Write("job.yaml", "name: x\n");
  EXPECT_EQ(Run().exit_code, 3);
  EXPECT_FALSE(FileSystem::Real().Exists(Path("out")));
}

TEST_F(RunCommandTest, Tf32OnACpu_ExitCode2AndNothingStarted) {
  Write("job.yaml", absl::StrReplaceAll(kJob, {{"precision: fp32 ", "precision: tf32 "}}));
  const ClientResult result = Run({"--backend", "cpu"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("tf32, which only GPUs compute"));
  EXPECT_FALSE(FileSystem::Real().Exists(Path("out")));
}

TEST_F(RunCommandTest, CoordinatorDies_EndOfItsLogShown) {
  WriteScript("accrued", "echo 'accrued: 127.0.0.1:0: the port is in use' >&2; exit 1");
  const ClientResult result = Run();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err, absl::StrCat("accrue: coordinator exited with code 1; the end of ",
                                     Path("out/logs/coordinator.log"),
                                     ":\n  accrued: 127.0.0.1:0: the port is in use\n"));
}

TEST_F(RunCommandTest, WorkerDiesAtStart_EndOfItsLogShown) {
  WriteGoodCoordinator();
  WriteScript("accrue-worker", "echo 'no such CPU' >&2; kill -9 $$");
  service_.before_workers = [] { return false; };
  const ClientResult result = Run({"--workers", "2"});
  EXPECT_EQ(result.exit_code, 1);
  // Whichever dies first.
  EXPECT_THAT(result.err, ContainsRegex("accrue: worker-[12] was killed by signal 9 .Killed.; the end of "));
  EXPECT_THAT(result.err, HasSubstr("\n  no such CPU\n"));
  ExpectNoChildLeft();
}

TEST_F(RunCommandTest, JobSucceeds_ResultAsJsonLast) {
  WriteGoodCoordinator();
  WriteScript("accrue-worker", absl::StrCat("echo \"$@\" >", Path("worker.args"), "\nexec sleep 1000"));
  service_.before_workers = [this] { return FileSystem::Real().Exists(Path("worker.args")); };
  v1::WindowRecord second = MakeRecord(1, 3.5);
  service_.watches = {
      {{FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 0)),
        FakeJobService::Update(MakeRecord(0, 4)), FakeJobService::Update(second),
        FakeJobService::Update(MakeStatus(v1::JOB_STATE_SUCCEEDED, 2, "all windows committed"))}}};
  const ClientResult result = Run({"-o", "json", "--threads", "3", "--until", "2"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const json object = json::parse(result.out);
  EXPECT_EQ(object["state"], "succeeded");
  EXPECT_EQ(object["window"], 2);
  EXPECT_EQ(object["loss"], 3.25);
  EXPECT_TRUE(object["validation_loss"].is_null());
  EXPECT_EQ(object["tokens_per_second"], 500);  // the second window's 1000 tokens, 2 s after the first
  EXPECT_EQ(object["digest"], "0123456789abcdef0123456789abcdef");
  EXPECT_THAT(result.err, HasSubstr("window 2/4  loss 3.5000"));
  const v1::SubmitRequest request = service_.submitted();
  EXPECT_EQ(request.output_directory(), Path("out"));
  EXPECT_EQ(request.base_directory(), folder_);
  EXPECT_EQ(request.until(), 2);
  EXPECT_EQ(*FileSystem::Real().ReadAll(Path("worker.args"), 4096),
            absl::StrCat("--coordinator ", address_, " --threads 3 --name worker-1\n"));
  EXPECT_THAT(
      *FileSystem::Real().ReadAll(Path("accrued.args"), 4096),
      HasSubstr(absl::StrCat("--listen 127.0.0.1:0 --http 127.0.0.1:0 --state ", Path("out/coordinator"))));
  ExpectNoChildLeft();
}

TEST_F(RunCommandTest, JobFails_ExitCode10) {
  WriteGoodCoordinator();
  WriteScript("accrue-worker", "exec sleep 1000");
  service_.status = MakeStatus(v1::JOB_STATE_FAILED, 1, "disk full");
  service_.watches = {{{FakeJobService::Update(service_.status)}}};
  const ClientResult result = Run();
  EXPECT_EQ(result.exit_code, 10);
  EXPECT_THAT(result.out, HasSubstr("headers-1 failed after window 1 of 4, loss 3.2500: disk full\n"));
  EXPECT_THAT(result.err, HasSubstr("To go on: accrue run "));
  ExpectNoChildLeft();
}

TEST_F(RunCommandTest, SubmitRefused_ExitCode5AndChildrenStopped) {
  WriteGoodCoordinator();
  WriteScript("accrue-worker", "exec sleep 1000");
  service_.submit_error =
      grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "another job: batch.sequences: 64 -> 128");
  const ClientResult result = Run();
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_EQ(result.err, "accrue: another job: batch.sequences: 64 -> 128\n");
  ExpectNoChildLeft();
}

TEST_F(RunCommandTest, Interrupt_CancelsWithACheckpointAndSaysHowToGoOn) {
  WriteGoodCoordinator();
  WriteScript("accrue-worker", "exec sleep 1000");
  service_.status = MakeStatus(v1::JOB_STATE_CANCELLED, 1, "interrupted");
  FakeJobService::Script script;
  script.updates = {FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 0)),
                    FakeJobService::Update(MakeRecord(0, 4))};
  script.then = [] { kill(getpid(), SIGINT); };
  script.until_cancelled = true;
  service_.watches = {script};
  const ClientResult result = Run();
  EXPECT_EQ(result.exit_code, 11);
  EXPECT_TRUE(service_.cancelled().checkpoint());
  EXPECT_THAT(result.out, HasSubstr("Interrupted: writing a checkpoint, then stopping."));
  EXPECT_THAT(result.err, HasSubstr(absl::StrCat("To go on: accrue run ", Path("job.yaml"),
                                                 " --workers 1 --output ", Path("out"))));
  ExpectNoChildLeft();
}

TEST_F(RunCommandTest, InterruptDuringSubmit_StopsBeforeTheJobStarts) {
  WriteGoodCoordinator();
  WriteScript("accrue-worker", "exec sleep 1000");
  service_.during_submit = [] { kill(getpid(), SIGINT); };
  const ClientResult result = Run();
  EXPECT_EQ(result.exit_code, 11);
  EXPECT_THAT(result.err, HasSubstr("interrupted before the job started"));
  ExpectNoChildLeft();
}

TEST_F(RunCommandTest, WorkerDies_StartedAgain) {
  WriteGoodCoordinator();
  ASSERT_EQ(mkfifo(Path("started").c_str(), 0600), 0);
  WriteScript("accrue-worker", absl::StrCat("echo $$ >", Path("started"), "\nexec sleep 1000"));
  service_.watches.resize(2);
  service_.watches[0].updates = {FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 0))};
  int first = 0, second = 0;
  service_.watches[0].then = [&] {
    ASSERT_TRUE(absl::SimpleAtoi(ReadLine("started"), &first));
    kill(first, SIGKILL);
    ASSERT_TRUE(absl::SimpleAtoi(ReadLine("started"), &second));
  };
  service_.watches[1].updates = {FakeJobService::Update(MakeStatus(v1::JOB_STATE_SUCCEEDED, 2))};
  const ClientResult result = Run({"-o", "json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(first, second);
  EXPECT_THAT(result.err, HasSubstr("worker-1 was killed by signal 9 (Killed); it is started again. The end of "));
  const json object = json::parse(result.out);
  EXPECT_EQ(object["worker_restarts"], 1);
  EXPECT_EQ(object["coordinator_restarts"], 0);
  ExpectNoChildLeft();
}

TEST_F(RunCommandTest, CoordinatorDies_StartedAgainOnItsAddressesAndState) {
  WriteGoodCoordinator();
  ASSERT_EQ(mkfifo(Path("started").c_str(), 0600), 0);
  const absl::StatusOr<std::string> good = FileSystem::Real().ReadAll(Path("accrued"), 1 << 16);
  WriteScript("accrued", absl::StrReplaceAll("[ -e ARGS ] && echo \"$@\" >STARTED && exec sleep 1000\n",
                                             {{"ARGS", Path("accrued.args")}, {"STARTED", Path("started")}}) +
                             *good);
  WriteScript("accrue-worker", "exec sleep 1000");
  service_.watches.resize(2);
  service_.watches[0].updates = {FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 0))};
  std::string arguments;
  service_.watches[0].then = [&] {
    int coordinator = 0;
    const absl::StatusOr<std::string> pids = FileSystem::Real().ReadAll(Path("pids"), 1 << 16);
    ASSERT_TRUE(absl::SimpleAtoi(pids->substr(0, pids->find('\n')), &coordinator));
    kill(coordinator, SIGKILL);
    arguments = ReadLine("started");
  };
  service_.watches[1].updates = {FakeJobService::Update(MakeStatus(v1::JOB_STATE_SUCCEEDED, 2))};
  const ClientResult result = Run({"-o", "json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(arguments, HasSubstr(absl::StrCat("--listen ", address_, " --http 127.0.0.1:99 --state ",
                                                Path("out/coordinator"), " ")));
  EXPECT_THAT(result.err, HasSubstr("coordinator was killed by signal 9 (Killed); it is started again"));
  EXPECT_EQ(json::parse(result.out)["coordinator_restarts"], 1);
  ExpectNoChildLeft();
}

TEST_F(RunCommandTest, EveryWorkerLeaves_EndsWithError) {
  WriteGoodCoordinator();
  WriteScript("accrue-worker", absl::StrCat("read go <", Path("go")));
  ASSERT_EQ(mkfifo(Path("go").c_str(), 0600), 0);
  FakeJobService::Script script;
  script.updates = {FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 0))};
  script.then = [this] { std::ofstream(Path("go")) << "go" << std::endl; };
  script.until_cancelled = true;
  service_.watches = {script};
  const ClientResult result = Run();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("worker-1 has left"));
  EXPECT_THAT(result.err, HasSubstr("accrue: worker-1 exited with code 0"));
  EXPECT_THAT(result.err, HasSubstr("To go on: accrue run "));
  ExpectNoChildLeft();
}

TEST_F(RunCommandTest, LeftOverJob_CancelledBeforeSubmit) {
  WriteGoodCoordinator();
  WriteScript("accrue-worker", "exec sleep 1000");
  service_.status = MakeStatus(v1::JOB_STATE_WAITING, 1);
  service_.watches = {{{FakeJobService::Update(MakeStatus(v1::JOB_STATE_SUCCEEDED, 2))}}};
  Run();
  EXPECT_EQ(service_.cancelled().job(), "headers-1");
  EXPECT_FALSE(service_.cancelled().checkpoint());
  EXPECT_EQ(service_.submitted().spec().name(), "headers");
}

TEST_F(RunCommandTest, FolderInUse_ExitCode5) {
  WriteGoodCoordinator();
  WriteScript("accrue-worker", "exec sleep 1000");
  ClientResult second;
  FakeJobService::Script script;
  script.updates = {FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 0))};
  script.then = [&] { second = Run(); };
  service_.watches = {script};
  service_.watches[0].updates.push_back(FakeJobService::Update(MakeStatus(v1::JOB_STATE_SUCCEEDED, 2)));
  EXPECT_EQ(Run().exit_code, 0);
  EXPECT_EQ(second.exit_code, 5);
  EXPECT_THAT(second.err, HasSubstr("another accrue run is at work in "));
}

}  // namespace
}  // namespace accrue
