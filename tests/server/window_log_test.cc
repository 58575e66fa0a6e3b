#include "coordinator/server/window_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_split.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

class WindowLogTest : public testing::Test {
 protected:
  WindowLogTest() {
    std::string pattern = testing::TempDir() + "/accrue_log_XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~WindowLogTest() override { FileSystem::Real().RemoveAll(folder_).IgnoreError(); }

  static CommitRecord Commit(int64_t window) {
    CommitRecord commit;
    commit.window.window = Window(window);
    commit.window.loss = 1.0 / static_cast<double>(window + 3);
    commit.window.digest = "digest-" + std::to_string(window);
    return commit;
  }

  std::unique_ptr<WindowLog> Open(int64_t next, const std::vector<CommitRecord>& journaled = {},
                                  const std::vector<EvaluationRecord>& evaluations = {}) {
    warnings_.clear();
    auto log = WindowLog::Open(FileSystem::Real(), folder_, Window(next), journaled, evaluations, warnings_);
    EXPECT_TRUE(log.ok()) << log.status();
    return *std::move(log);
  }

  std::string Contents(const std::string& name = "windows.jsonl") const {
    return FileSystem::Real().ReadAll(folder_ + "/" + name, 1 << 20).value_or("");
  }
  void Put(const std::string& contents) const {
    EXPECT_TRUE(FileSystem::Real().WriteAtomically(folder_ + "/windows.jsonl", contents).ok());
  }
  std::vector<int64_t> Windows(const std::string& name = "windows.jsonl") const {
    std::vector<int64_t> windows;
    const std::string contents = Contents(name);
    for (absl::string_view line : absl::StrSplit(contents, '\n', absl::SkipEmpty())) {
      windows.push_back(nlohmann::json::parse(line.begin(), line.end())["window"]);
    }
    return windows;
  }

  std::string folder_;
  std::vector<std::string> warnings_;
};

TEST_F(WindowLogTest, WindowLine_BeginsWithTheDocumentedFields) {
  CommitRecord commit = Commit(7);
  commit.window.gradient_norm = std::numeric_limits<double>::quiet_NaN();
  commit.window.learning_rate = 0.001;
  commit.window.tokens = 9;
  EXPECT_THAT(WindowLine(commit), StartsWith("{\"window\":7,\"loss\":0.1,\"gradient_norm\":null,\"learning_rate\":0.001,"
                                             "\"tokens\":9,\"digest\":\"digest-7\","));
}

TEST_F(WindowLogTest, WindowLine_LossScale_IsThereInFp16Alone) {
  CommitRecord commit = Commit(7);
  EXPECT_FALSE(nlohmann::json::parse(WindowLine(commit)).contains("loss_scale"));
  commit.window.loss_scale = LossScale{12, 5};
  EXPECT_EQ(nlohmann::json::parse(WindowLine(commit))["loss_scale"], 4096);
}

TEST_F(WindowLogTest, WindowLine_Workers_HaveMemoryAndSecondsOfEachPhase) {
  CommitRecord commit = Commit(7);
  core::WorkerWindow& worker = commit.window.workers.emplace_back();
  worker.name = "a";
  worker.units = 3;
  worker.memory_bytes = 1 << 20;
  worker.phases.compute_ns = 1'500'000'000;
  worker.phases.wait_seal_ns = 250'000'000;
  const nlohmann::json line = nlohmann::json::parse(WindowLine(commit)).at("workers").at(0);
  EXPECT_EQ(line["memory_bytes"], 1 << 20);
  EXPECT_EQ(line["seconds"]["compute"], 1.5);
  EXPECT_EQ(line["seconds"]["wait_seal"], 0.25);
  EXPECT_THAT(line["seconds"], SizeIs(std::size(core::kPhases)));
}

TEST_F(WindowLogTest, WindowLine_Doubles_KeepAllDigits) {
  CommitRecord commit = Commit(0);
  commit.window.loss = 0.1 + 0.2;
  EXPECT_EQ(nlohmann::json::parse(WindowLine(commit))["loss"].get<double>(), 0.1 + 0.2);
}

TEST_F(WindowLogTest, Append_Twice_IsThereOnce) {
  auto log = Open(0);
  EXPECT_TRUE(log->Append(Commit(0)).ok());
  EXPECT_TRUE(log->Append(Commit(1)).ok());
  EXPECT_TRUE(log->Append(Commit(1)).ok());
  EXPECT_TRUE(log->Append(EvaluationRecord{Window(1), 2.5, 10}).ok());
  EXPECT_TRUE(log->Append(EvaluationRecord{Window(1), 2.5, 10}).ok());
  EXPECT_THAT(Windows(), ElementsAre(0, 1));
  EXPECT_EQ(Contents("evaluations.jsonl"), "{\"window\":1,\"loss\":2.5,\"tokens\":10}\n");
  EXPECT_EQ(log->last().digest, "digest-1");
}

TEST_F(WindowLogTest, Open_TornLine_IsMendedFromTheJournal) {
  Put(WindowLine(Commit(0)) + "\n" + WindowLine(Commit(1)).substr(0, 20));
  auto log = Open(2, {Commit(0), Commit(1)});
  EXPECT_THAT(warnings_, IsEmpty());
  EXPECT_THAT(Windows(), ElementsAre(0, 1));
  EXPECT_EQ(Contents(), WindowLine(Commit(0)) + "\n" + WindowLine(Commit(1)) + "\n");
}

TEST_F(WindowLogTest, Open_BeyondTheResumePoint_IsCut) {
  std::string contents;
  for (int window = 0; window < 5; ++window) contents += WindowLine(Commit(window)) + "\n";
  Put(contents);
  auto log = Open(3);
  EXPECT_THAT(Windows(), ElementsAre(0, 1, 2));
  EXPECT_EQ(log->last().digest, "digest-2");
  EXPECT_TRUE(log->Append(Commit(3)).ok());
  EXPECT_THAT(Windows(), ElementsAre(0, 1, 2, 3));
}

TEST_F(WindowLogTest, Open_EvaluationsBeyondTheResumePoint_AreCut) {
  {
    auto log = Open(0);
    for (int window : {0, 1, 2, 3}) EXPECT_TRUE(log->Append(Commit(window)).ok());
    for (int window : {2, 4}) EXPECT_TRUE(log->Append(EvaluationRecord{Window(window), 1, 1}).ok());
  }
  auto log = Open(2);
  EXPECT_THAT(Windows("evaluations.jsonl"), ElementsAre(2));
  EXPECT_TRUE(log->Append(EvaluationRecord{Window(4), 1, 1}).ok());
  EXPECT_THAT(Windows("evaluations.jsonl"), ElementsAre(2, 4));
}

TEST_F(WindowLogTest, Open_EvaluationsMissing_AreTakenFromTheJournal) {
  const std::vector<EvaluationRecord> journaled = {{Window(2), 0.5, 7}, {Window(4), 0.25, 7}, {Window(6), 0.125, 7}};
  {
    auto log = Open(4, {Commit(0), Commit(1), Commit(2), Commit(3)});
    EXPECT_TRUE(log->Append(journaled[0]).ok());
  }
  auto log = Open(4, {}, {journaled[0], journaled[1]});
  EXPECT_EQ(Contents("evaluations.jsonl"), EvaluationLine(journaled[0]) + "\n" + EvaluationLine(journaled[1]) + "\n");
  EXPECT_TRUE(log->Append(journaled[1]).ok());  // it is there
  EXPECT_TRUE(log->Append(journaled[2]).ok());
  EXPECT_THAT(Windows("evaluations.jsonl"), ElementsAre(2, 4, 6));
}

TEST_F(WindowLogTest, Open_WindowsMissing_SaysSo) {
  auto log = Open(5, {Commit(4)});
  ASSERT_THAT(warnings_, SizeIs(1));
  EXPECT_THAT(warnings_[0], HasSubstr("lacks windows before 5"));
  EXPECT_THAT(Windows(), ElementsAre(4));
}

TEST_F(WindowLogTest, Open_NothingToMend_LeavesTheFileAlone) {
  Put(WindowLine(Commit(0)) + "\n");
  auto log = Open(1, {Commit(0)});
  EXPECT_THAT(warnings_, IsEmpty());
  EXPECT_EQ(Contents(), WindowLine(Commit(0)) + "\n");
}

TEST_F(WindowLogTest, Open_EvaluationLostWithTheCrash_IsTakenFromTheJournal) {
  {
    const auto log = Open(0);
    for (int64_t window = 0; window < 4; ++window) ASSERT_TRUE(log->Append(Commit(window)).ok());
    ASSERT_TRUE(log->Append(EvaluationRecord{Window(2), 2.5, 10}).ok());
  }
  // The state after window 4 was evaluated before its commit was on record.
  const std::vector<EvaluationRecord> evaluated = {{Window(2), 2.5, 10}, {Window(4), 2.25, 10}, {Window(5), 2.125, 10}};
  const auto log = Open(4, {Commit(0), Commit(1), Commit(2), Commit(3)}, evaluated);
  EXPECT_THAT(Windows("evaluations.jsonl"), ElementsAre(2, 4, 5));
  ASSERT_TRUE(log->Append(EvaluationRecord{Window(5), 2.125, 10}).ok());
  EXPECT_THAT(Windows("evaluations.jsonl"), ElementsAre(2, 4, 5));
}

}  // namespace
}  // namespace accrue
