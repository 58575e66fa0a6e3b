// Commands against a scripted coordinator: what they print, as text and JSON, and their exit codes.
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
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
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class CommandsTest : public ::testing::Test {
 protected:
  CommandsTest() {
    char name[] = "/tmp/accrue-client-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~CommandsTest() override { FileSystem::Real().RemoveAll(folder_).IgnoreError(); }

  std::string WriteJob(absl::string_view text) {
    const std::string path = JoinPath(folder_, "job.yaml");
    EXPECT_TRUE(FileSystem::Real().WriteAtomically(path, text).ok());
    return path;
  }
  ClientResult Run(std::vector<std::string> arguments) {
    if (address_.empty()) address_ = service_.Start();
    arguments.insert(arguments.begin(), {"--coordinator", address_});
    return RunAccrue(arguments);
  }

  std::string folder_;
  FakeJobService service_;
  std::string address_;
};

TEST_F(CommandsTest, Usage_ExitCode2) {
  EXPECT_EQ(RunAccrue({}).exit_code, 2);
  EXPECT_EQ(RunAccrue({"list", "--colour"}).exit_code, 2);
  EXPECT_EQ(RunAccrue({"list", "-o", "xml"}).exit_code, 2);
  EXPECT_EQ(RunAccrue({"describe"}).exit_code, 2);
  EXPECT_EQ(RunAccrue({"checkpoint"}).exit_code, 2);
  const ClientResult unknown = RunAccrue({"sumbit", "job.yaml"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_EQ(
      unknown.err,
      "accrue: unknown command \"sumbit\" (did you mean \"submit\"?); accrue --help lists the commands\n");
  EXPECT_EQ(unknown.out, "");
}

TEST_F(CommandsTest, UnknownCommand_EvenWithHelp_ExitCode2AndTheNearestOne) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"sumbit", "--help"}, "unknown command \"sumbit\" (did you mean \"submit\"?); accrue --help lists the commands"},
      {{"--help", "sumbit"}, "unknown command \"sumbit\" (did you mean \"submit\"?); accrue --help lists the commands"},
      {{"help", "sumbit"}, "unknown command \"sumbit\" (did you mean \"submit\"?); accrue --help lists the commands"},
      {{"data", "prepar"},
       "unknown command \"prepar\" (did you mean \"prepare\"?); accrue data --help lists the commands"},
      {{"data", "prepar", "--help"},
       "unknown command \"prepar\" (did you mean \"prepare\"?); accrue data --help lists the commands"},
      {{"checkpoint", "xyzzy", "a", "b"}, "unknown command \"xyzzy\"; accrue checkpoint --help lists the commands"},
      {{"data"},
       "accrue data: expected a command: prepare, inspect, bigram; accrue data --help says what they do"},
      {{"data", "inspect"}, "PATH is required; accrue data inspect --help says what is expected"},
      {{"list", "--colour"},
       "unknown option \"--colour\"; accrue list --help says what is expected"},
      {{"run", "job.yaml", "--worker", "2"},
       "unknown option \"--worker\" (did you mean \"--workers\"?); accrue run --help says what is expected"},
      {{"list", "headers"}, "unexpected argument \"headers\"; accrue list --help says what is expected"},
      {{"wait", "headers", "--timeout", "soon"},
       "--timeout: expected a number above 0, found \"soon\"; accrue wait --help says what is expected"},
      {{"watch", "headers", "--from", "-1"},
       "--from: expected a number of 0 or above, found \"-1\"; accrue watch --help says what is expected"},
      {{"list", "--coordinator", "somewhere"},
       "--coordinator: expected HOST:PORT, such as 127.0.0.1:7437, here or in ACCRUE_COORDINATOR; found \"somewhere\"; "
       "accrue list --help says what is expected"}};
  for (const auto& [arguments, error] : cases) {
    const ClientResult result = RunAccrue(arguments);
    EXPECT_EQ(result.exit_code, 2) << error;
    EXPECT_EQ(result.err, "accrue: " + error + "\n");
    EXPECT_EQ(result.out, "");
  }
}

TEST_F(CommandsTest, Help_OfAGroupAndByWord_ExitCode0) {
  const ClientResult group = RunAccrue({"data", "--help"});
  EXPECT_EQ(group.exit_code, 0);
  EXPECT_EQ(group.err, "");
  EXPECT_THAT(group.out, HasSubstr("Usage: accrue data"));
  for (const char* const command : {"prepare", "inspect", "bigram"}) {
    EXPECT_THAT(group.out, HasSubstr(absl::StrCat("\n  ", command, " ")));
  }
  EXPECT_EQ(RunAccrue({"help", "data", "prepare"}).out, RunAccrue({"data", "prepare", "--help"}).out);
  EXPECT_EQ(RunAccrue({"help"}).out, RunAccrue({"--help"}).out);
  EXPECT_EQ(RunAccrue({"list", "extra", "--help"}).exit_code, 0);
}

TEST_F(CommandsTest, Help_EveryCommandHasAnExample) {
  EXPECT_EQ(RunAccrue({"--help"}).exit_code, 0);
  for (const char* const command : {"submit", "validate", "list", "watch", "describe", "wait", "cancel",
                                    "pause", "resume", "events", "workers", "compare", "version"}) {
    const ClientResult help = RunAccrue({command, "--help"});
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_THAT(help.out, HasSubstr(absl::StrCat("accrue ", command))) << command;
    EXPECT_THAT(help.out, HasSubstr("Example")) << command;
  }
}

TEST_F(CommandsTest, NoCoordinator_ExitCode6AndWhatToDo) {
  const ClientResult result = RunAccrue({"list", "--coordinator", "127.0.0.1:1"});
  EXPECT_EQ(result.exit_code, 6);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, HasSubstr("accrue: no coordinator answers at 127.0.0.1:1: start one with accrued"));
  EXPECT_EQ(RunAccrue({"watch", "x", "--coordinator", "127.0.0.1:1"}).exit_code, 6);
  EXPECT_EQ(RunAccrue({"wait", "x", "--coordinator", "127.0.0.1:1"}).exit_code, 6);
  EXPECT_EQ(RunAccrue({"events", "x", "--coordinator", "127.0.0.1:1"}).exit_code, 6);
}

TEST_F(CommandsTest, CoordinatorFromTheEnvironment_Used) {
  setenv("ACCRUE_COORDINATOR", service_.Start().c_str(), 1);
  EXPECT_EQ(RunAccrue({"list"}).exit_code, 0);
  unsetenv("ACCRUE_COORDINATOR");
}

TEST_F(CommandsTest, UnknownJob_ExitCode4) {
  for (const char* const command : {"describe", "cancel", "pause", "watch", "wait", "events"}) {
    const ClientResult result = Run({command, "nothing"});
    EXPECT_EQ(result.exit_code, 4) << command;
    EXPECT_EQ(result.err, "accrue: no job \"nothing\"; accrue list shows the jobs\n") << command;
  }
  EXPECT_EQ(Run({"checkpoint", "list", "nothing"}).exit_code, 4);
}

TEST_F(CommandsTest, List_Table) {
  service_.status.set_tokens_per_second(12345.6);
  service_.status.set_eta_seconds(125);
  service_.status.set_workers(2);
  EXPECT_EQ(Run({"list"}).out,
            "JOB        STATE    WINDOW  OF    LOSS  VALIDATION  TOKENS/S  WORKERS     ETA\n"
            "headers-1  running       2   4  3.2500           -    12,345        2  2m 05s\n");
}

TEST_F(CommandsTest, ListJson_NumbersAndNulls) {
  const json object = json::parse(Run({"list", "-o", "json"}).out);
  const json& job = object["jobs"][0];
  EXPECT_EQ(job["state"], "running");
  EXPECT_EQ(job["window"], 2);
  EXPECT_EQ(job["loss"], 3.25);
  EXPECT_TRUE(job["validation_loss"].is_null());
}

TEST_F(CommandsTest, Describe_StateAndSpec) {
  service_.status.set_reason("2 workers");
  const ClientResult result = Run({"describe", "headers"});
  EXPECT_THAT(
      result.out,
      HasSubstr(
          "job           headers-1 (headers)\nstate         running: 2 workers\nwindow        2 of 4\n"));
  EXPECT_THAT(result.out, HasSubstr("digest        0123456789abcdef0123456789abcdef\n"));
  EXPECT_THAT(result.out, HasSubstr("spec\n  name: \"headers\"\n"));
  EXPECT_EQ(json::parse(Run({"describe", "headers", "-o", "json"}).out)["job"]["spec"]["name"], "headers");
}

TEST_F(CommandsTest, WorkersAndCheckpoints_Tables) {
  EXPECT_THAT(Run({"workers"}).out,
              HasSubstr("host:42            7  computing  headers-1  cpu     31.5 ms"));
  EXPECT_EQ(Run({"checkpoint", "list", "headers"}).out,
            "WINDOW  VERIFIED     SIZE  WRITTEN  DIGEST                            FOLDER\n"
            "     2  yes       3.0 MiB        -  0123456789abcdef0123456789abcdef  "
            "/out/checkpoints/window-00000002\n");
}

TEST_F(CommandsTest, Cancel_WithACheckpointUnlessRefused) {
  const ClientResult result = Run({"cancel", "headers", "--reason", "wrong data"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "headers-1 is cancelled at window 2 of 4: wrong data\n");
  EXPECT_TRUE(service_.cancelled().checkpoint());
  service_.state_after_cancel = v1::JOB_STATE_RUNNING;
  EXPECT_EQ(Run({"cancel", "headers"}).out,
            "headers-1 is running at window 2 of 4: it writes a checkpoint, then it is cancelled\n");
  Run({"cancel", "headers", "--no-checkpoint"});
  EXPECT_FALSE(service_.cancelled().checkpoint());
}

TEST_F(CommandsTest, Validate_GoodFile_DefaultsShown) {
  const ClientResult result = RunAccrue({"validate", WriteJob(kJob)});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("is valid"));
  EXPECT_THAT(result.out, HasSubstr("batch_rule: \"none\""));
  EXPECT_THAT(result.out,
              HasSubstr("A window has 16 units and 16,384 tokens; the model has 6.9M parameters."));
  EXPECT_THAT(result.err,
              HasSubstr("data.train: nothing matches data/headers/train-*.bin relative to the job file"));
  const json object = json::parse(RunAccrue({"validate", WriteJob(kJob), "-o", "json"}).out);
  EXPECT_EQ(object["valid"], true);
  EXPECT_GT(object["memory"]["total_bytes"], 20 * object["parameters"].get<int64_t>());
  EXPECT_EQ(object["memory"]["optimizer_bytes"], 2 * object["memory"]["parameters_bytes"].get<int64_t>());
  // GPT-2: tables, six layers of four norm vectors, attention and MLP, and the last norm.
  EXPECT_EQ(object["parameters"],
            8192 * 256 + 256 * 256 + 6 * (4 * 256 + 4 * 256 * 257 + 2 * 256 * 1024 + 1280) + 512);
}

TEST_F(CommandsTest, ValidateEstimate_OnlyTheMemory) {
  const ClientResult result = RunAccrue({"validate", "--estimate", WriteJob(kJob)});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, StartsWith("A worker needs memory, whatever the number of workers:\n\n"
                                     "  parameters     26.3 MiB  6.9M in fp32\n"
                                     "  optimizer      52.7 MiB  adamw, fp32\n"
                                     "  accumulator    52.7 MiB  int64: exact\n"));
  EXPECT_THAT(result.out, HasSubstr("\n  total "));
  EXPECT_THAT(result.out, HasSubstr("one unit: 4 x 256 tokens"));
  EXPECT_THAT(result.out, HasSubstr("are 20 bytes a parameter.\n"));
  EXPECT_THAT(result.out, HasSubstr(", which this machine has available.\n"));
  EXPECT_EQ(RunAccrue({"validate", WriteJob(kJob), "--estimate", "--memory", "1GiB", "-o", "json"}).out,
            RunAccrue({"validate", WriteJob(kJob), "--memory", "1GiB", "-o", "json"}).out);
}

TEST_F(CommandsTest, ValidateEstimate_MemoryOfADevice_WhatFitsAtEveryLevel) {
  const std::string path = WriteJob(absl::StrCat(kJob, "recompute: attention\n"));
  const json memory =
      json::parse(RunAccrue({"validate", path, "--memory", "1GB", "-o", "json"}).out)["memory"];
  EXPECT_EQ(memory["available_bytes"], 1'000'000'000);
  EXPECT_EQ(memory["recompute"], "attention");
  ASSERT_EQ(memory["levels"].size(), 4u);
  EXPECT_EQ(memory["levels"][0]["recompute"], "none");
  EXPECT_EQ(memory["levels"][2]["total_bytes"], memory["total_bytes"]);
  EXPECT_EQ(memory["levels"][2]["activations_bytes"], memory["activations_bytes"]);
  EXPECT_EQ(memory["levels"][0]["fits"], true);
  EXPECT_EQ(memory["levels"][0]["largest_micro_batch"], 16);
  EXPECT_EQ(memory["levels"][3]["largest_micro_batch"], 64);

  const ClientResult result = RunAccrue({"validate", "--estimate", path, "--memory", "200MiB"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("divide batch.sequences, 64, the one that fits in 200.0 MiB.\n"));
  EXPECT_THAT(result.out, ContainsRegex("\n  attention +[0-9.]+ MiB +[0-9.]+ MiB +[a-z0-9]+ +<- this job\n"));
  EXPECT_THAT(RunAccrue({"validate", "--estimate", path, "--memory", "1MiB"}).out,
              HasSubstr("The job as it is does not fit.\n"));
}

TEST_F(CommandsTest, ValidateEstimate_MemoryInOtherUnits_UnderstoodOrRefused) {
  const std::string path = WriteJob(kJob);
  const auto available = [&path](const std::string& size) -> json {
    return json::parse(RunAccrue({"validate", path, "--memory", size, "-o", "json"}).out)["memory"]["available_bytes"];
  };
  EXPECT_EQ(available("1.5GiB"), 3LL << 29);
  EXPECT_EQ(available("80 g"), 80'000'000'000);
  EXPECT_EQ(available("2ti"), 2LL << 40);
  EXPECT_EQ(available("1048576"), 1 << 20);
  for (const std::string size : {"80", "0", "-1GiB", "much", "80Gigs", "1023KiB", "GiB", "1e3PiB", ""}) {
    const ClientResult result = RunAccrue({"validate", path, "--memory", size});
    EXPECT_EQ(result.exit_code, 2) << size;
    EXPECT_EQ(result.err, absl::StrCat("accrue: --memory: expected a size such as 80GiB, 80GB or a number of bytes, 1 MiB at "
                                       "least; found \"", size, "\"", size == "80" || size == "0" ? ", which is bytes" : "",
                                       "; accrue validate --help says what is expected\n"));
  }
}

TEST_F(CommandsTest, ValidateEstimate_ShapeNotKnownHere_ExitCode4) {
  const std::string path = WriteJob(
      "name: tuned\nmodel: {from: no-such-folder}\ndata: {train: [a.bin]}\nbatch: {sequences: 8, sequence_length: 16}\n"
      "windows: 2\n");
  EXPECT_EQ(RunAccrue({"validate", "--estimate", path}).exit_code, 4);
  EXPECT_TRUE(json::parse(RunAccrue({"validate", path, "-o", "json"}).out)["memory"].is_null());
}

TEST_F(CommandsTest, Validate_BadFile_EveryErrorOnStandardError) {
  const std::string path =
      WriteJob(absl::StrReplaceAll(kJob, {{"clip_norm", "clip_nrom"}, {"seed: 1234", "seed: x"}}));
  const ClientResult result = RunAccrue({"validate", path});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err, path + ":23:1: unknown field \"clip_nrom\" (did you mean \"clip_norm\"?)\n" + path +
                            ":28:7: seed: expected an integer that is not negative, found \"x\"\n");
  EXPECT_EQ(json::parse(RunAccrue({"validate", path, "-o", "json"}).out)["valid"], false);
  EXPECT_EQ(RunAccrue({"submit", path, "--coordinator", "127.0.0.1:1"}).exit_code, 3);
  EXPECT_EQ(RunAccrue({"validate", JoinPath(folder_, "none.yaml")}).exit_code, 4);
}

TEST_F(CommandsTest, Submit_SpecAndOptionsSent) {
  const ClientResult result = Run({"submit", WriteJob(kJob), "--output", folder_, "--until", "3", "--fresh"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "Submitted headers-1.\n");
  EXPECT_EQ(result.err, "Watch it: accrue watch headers-1\n");
  const v1::SubmitRequest request = service_.submitted();
  EXPECT_EQ(request.spec().batch().sequences(), 64);
  EXPECT_EQ(request.output_directory(), folder_);
  EXPECT_EQ(request.until(), 3);
  EXPECT_TRUE(request.fresh());
  EXPECT_FALSE(request.has_resume_from());
}

TEST_F(CommandsTest, Submit_Refused_ExitCode5) {
  service_.submit_error = grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "a job named headers is running");
  const ClientResult result = Run({"submit", WriteJob(kJob)});
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_EQ(result.err, "accrue: a job named headers is running\n");
}

TEST_F(CommandsTest, Watch_PlainLinesToTheEnd) {
  service_.watches = {
      {{FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 0)),
        FakeJobService::Update(MakeRecord(0, 4)), FakeJobService::Update(MakeRecord(1, 3.5)),
        FakeJobService::Update(MakeStatus(v1::JOB_STATE_SUCCEEDED, 2, "all windows committed"))},
       grpc::Status::OK}};
  const ClientResult result = Run({"watch", "headers"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out,
            "headers-1 is running\n"
            "window 1/4  loss 4.0000  norm 0.5000  lr 1.00e-03  12,345 tokens/s  eta 6.0s\n"
            "window 2/4  loss 3.5000  norm 0.5000  lr 1.00e-03  12,345 tokens/s  eta 4.0s\n"
            "headers-1 succeeded after window 2 of 4, loss 3.2500: all windows committed\n");
}

TEST_F(CommandsTest, Watch_BrokenConnection_GoesOnFromTheNextWindow) {
  service_.watches = {{{FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 0)),
                        FakeJobService::Update(MakeRecord(0, 4))},
                       grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken")},
                      {{FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 1)),
                        FakeJobService::Update(MakeRecord(0, 4)), FakeJobService::Update(MakeRecord(1, 3.5)),
                        FakeJobService::Update(MakeStatus(v1::JOB_STATE_FAILED, 2, "disk full"))},
                       grpc::Status::OK}};
  const ClientResult result = Run({"watch", "headers"});
  EXPECT_EQ(result.exit_code, 10);
  EXPECT_THAT(service_.watched_from(), ElementsAre(0, 1));
  // Once the job is known, by its id: a newer one may take the name.
  EXPECT_THAT(service_.watched_jobs(), ElementsAre("headers", "headers-1"));
  EXPECT_THAT(result.out, HasSubstr("connection lost; trying again from window 2: no coordinator answers at "));
  EXPECT_THAT(result.out, HasSubstr("(broken)\nconnected again, from window 2\nwindow 2/4"));
  EXPECT_THAT(result.out, HasSubstr("headers-1 failed after window 2 of 4, loss 3.2500: disk full\n"));
}

TEST_F(CommandsTest, WatchJson_OneObjectALine) {
  service_.watches = {{{FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 0)),
                        FakeJobService::Update(MakeRecord(0, 4)),
                        FakeJobService::Update(MakeStatus(v1::JOB_STATE_CANCELLED, 1))},
                       grpc::Status::OK}};
  const ClientResult result = Run({"watch", "headers", "-o", "json"});
  EXPECT_EQ(result.exit_code, 11);
  std::vector<std::string> types;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) types.push_back(json::parse(line)["type"]);
  EXPECT_THAT(types, ElementsAre("status", "window", "status"));
}

TEST_F(CommandsTest, Wait_OutcomeOnly) {
  service_.watches = {{{FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 0)),
                        FakeJobService::Update(MakeStatus(v1::JOB_STATE_FAILED, 2, "disk full"))},
                       grpc::Status::OK}};
  const ClientResult result = Run({"wait", "headers"});
  EXPECT_EQ(result.exit_code, 10);
  EXPECT_EQ(result.out, "headers-1 failed after window 2 of 4, loss 3.2500: disk full\n");
  EXPECT_EQ(json::parse(Run({"wait", "headers", "-o", "json"}).out)["state"], "failed");
}

TEST_F(CommandsTest, Events_TextAndJson) {
  v1::LedgerEntry entry;
  entry.set_sequence(3);
  entry.set_unix_ns(1'700'000'000'000'000'000);
  entry.set_kind("seal");
  entry.set_window(5);
  entry.set_reason("all units reported");
  service_.events = {entry};
  service_.status = MakeStatus(v1::JOB_STATE_SUCCEEDED, 4);
  EXPECT_EQ(Run({"events", "headers"}).out, "2023-11-14T22:13:20Z  #3  seal  window 5  all units reported\n");
  EXPECT_EQ(json::parse(Run({"events", "headers", "-o", "json"}).out)["kind"], "seal");
  EXPECT_EQ(Run({"events", "headers", "--from", "4"}).out, "");
}

TEST_F(CommandsTest, Version_TextAndJson) {
  EXPECT_THAT(RunAccrue({"version"}).out, HasSubstr("accrue 0."));
  EXPECT_TRUE(json::parse(RunAccrue({"version", "-o", "json"}).out)["version"].is_string());
}

}  // namespace
}  // namespace accrue
