// `accrue data` as people and programs call it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "client/data_progress.h"
#include "tests/client/client_runner.h"
#include "tests/data_tools/prepare_testing.h"

namespace accrue {
namespace {

using data_testing::TemporaryFolder;
using testing::HasSubstr;
using testing::Not;

TEST(DataCommandsTest, Prepare_Json_EndsWithOneObject) {
  TemporaryFolder folder;
  data_testing::WriteTextCorpus(folder, 20);
  const std::vector<std::string> command = {"data",     "prepare",     folder / "in", "--tokenizer",
                                            "bytes",    "--output",    folder / "out", "--validation-fraction",
                                            "0.2",      "-o",          "json"};
  const ClientResult result = RunAccrue(command);
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["vocabulary"], 257);
  EXPECT_EQ(json["train_documents"].get<int>() + json["validation_documents"].get<int>(), 20);
  EXPECT_EQ(json["was_complete"], false);
  EXPECT_THAT(result.err, HasSubstr("tokenizing"));
  EXPECT_EQ(nlohmann::json::parse(RunAccrue(command).out)["was_complete"], true);
  EXPECT_TRUE(FileSystem::Real().Exists(json["manifest"].get<std::string>()));

  EXPECT_EQ(RunAccrue({"data", "inspect", folder / "out"}).exit_code, kExitOk);
  const ClientResult bigram = RunAccrue({"data", "bigram", folder / "out", "-o", "json"});
  ASSERT_EQ(bigram.exit_code, kExitOk) << bigram.err;
  EXPECT_GT(nlohmann::json::parse(bigram.out)["loss"], 0.1);
  EXPECT_THAT(RunAccrue({"data", "bigram", folder / "out"}).out, HasSubstr(" nats a token: bigram model of "));

  folder.Write("out/train-00000.bin", "damaged");
  const ClientResult damaged = RunAccrue({"data", "inspect", folder / "out", "-o", "json"});
  EXPECT_EQ(damaged.exit_code, kExitError);
  EXPECT_EQ(nlohmann::json::parse(damaged.out)["ok"], false);
}

TEST(DataCommandsTest, Prepare_BadCalls_ExitCodesMeanTheOutcome) {
  TemporaryFolder folder;
  EXPECT_EQ(RunAccrue({"data"}).exit_code, kExitUsage);
  EXPECT_EQ(RunAccrue({"data", "prepare", folder.path(), "--output", "x"}).exit_code, kExitUsage);
  EXPECT_EQ(RunAccrue({"data", "prepare", "x", "--output", "y", "--tokenizer", "words"}).exit_code, kExitUsage);
  const ClientResult missing =
      RunAccrue({"data", "prepare", folder / "none", "--tokenizer", "bytes", "--output", folder / "out"});
  EXPECT_EQ(missing.exit_code, kExitNotFound);
  EXPECT_THAT(missing.err, HasSubstr("none does not exist; expected a file or a folder"));
  folder.Write("bad.jsonl", "oops\n");
  const ClientResult bad =
      RunAccrue({"data", "prepare", folder / "bad.jsonl", "--tokenizer", "bytes", "--output", folder / "out"});
  EXPECT_EQ(bad.exit_code, kExitError);
  EXPECT_THAT(bad.err, HasSubstr("bad.jsonl:1:1: expected a JSON object"));
  EXPECT_EQ(RunAccrue({"data", "inspect", folder / "none"}).exit_code, kExitNotFound);
}

TEST(DataProgressTest, Update_NoTerminal_ALineEveryFiveSeconds) {
  FakeClock clock;
  std::ostringstream err;
  CommandContext context;
  context.err = &err;
  context.clock = &clock;
  DataProgress progress(context);
  for (int i = 0; i <= 100; ++i) {
    progress.Update({"tokenizing", static_cast<uint64_t>(i) << 20, uint64_t{100} << 20, i});
    clock.AdvanceNs(100'000'000);
  }
  const std::string text = err.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  EXPECT_THAT(text, HasSubstr("50%  50.0 MiB of 100.0 MiB  50 tokens  10.0 MiB/s  5.0s left"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(DataProgressTest, Update_Terminal_RepaintsABarAndTakesItAway) {
  FakeClock clock;
  std::ostringstream err;
  CommandContext context;
  context.err = &err;
  context.clock = &clock;
  context.err_terminal.interactive = true;
  {
    DataProgress progress(context);
    progress.Update({"tokenizing", 50, 100, 1});
    progress.Say("a line that stays");
  }
  EXPECT_THAT(err.str(), HasSubstr("\u2588\u2591"));
  EXPECT_THAT(err.str(), HasSubstr("a line that stays\n"));
}

}  // namespace
}  // namespace accrue
