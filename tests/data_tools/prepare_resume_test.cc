// What is left after an interruption, and that going on gives what would have been written without one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/data_tools/prepare.h"
#include "common/data_tools/prepare_state.h"
#include "tests/data_tools/prepare_testing.h"

namespace accrue {
namespace {

using data_testing::FailingFileSystem;
using data_testing::FilesOf;
using data_testing::OptionsFor;
using data_testing::TemporaryFolder;
using testing::HasSubstr;

constexpr int kNever = 1 << 30;

// Runs to the end, without waiting for the disk.
PrepareReport Finish(const PrepareOptions& options, std::vector<std::string>* messages = nullptr) {
  FailingFileSystem file_system(kNever, absl::InternalError("unused"));
  PrepareHooks hooks;
  if (messages != nullptr) {
    messages->clear();
    hooks.message = [messages](const std::string& line) { messages->push_back(line); };
  }
  const auto report = PrepareData(file_system, options, hooks);
  EXPECT_TRUE(report.ok()) << report.status();
  return report.value_or(PrepareReport{});
}

class PrepareResumeTest : public testing::Test {
 protected:
  PrepareResumeTest() {
    data_testing::WriteTextCorpus(folder_, 40);
    options_ = OptionsFor(folder_, "out");
  }

  // Stops after every possible number of changes; goes on; compares.
  void ExpectResumesAnywhere() {
    Finish(options_);
    const auto expected = FilesOf(options_.output);
    bool failed = true;
    for (int changes = 0; failed; ++changes) {
      std::filesystem::remove_all(options_.output);
      FailingFileSystem file_system(changes, absl::InternalError("killed"));
      options_.threads = 1 + changes % 3;
      const auto report = PrepareData(file_system, options_, PrepareHooks());
      failed = !report.ok();
      if (!failed) continue;
      EXPECT_FALSE(FileSystem::Real().Exists(options_.output + "/manifest.json") &&
                   !ReadPrepareState(FileSystem::Real(), options_.output).ok());
      // Twice: the second run may be stopped as well.
      FailingFileSystem again(changes / 2 + 3, absl::InternalError("killed"));
      PrepareData(again, options_, PrepareHooks()).status().IgnoreError();
      Finish(options_);
      ASSERT_EQ(FilesOf(options_.output), expected) << "stopped after " << changes << " changes";
    }
  }

  TemporaryFolder folder_;
  PrepareOptions options_;
};

TEST_F(PrepareResumeTest, PrepareData_KilledAnywhere_GoesOnToTheSameBytes) { ExpectResumesAnywhere(); }

TEST_F(PrepareResumeTest, PrepareData_KilledAnywhereWithMasks_GoesOnToTheSameBytes) {
  std::filesystem::remove_all(folder_ / "in");
  data_testing::WriteExamples(folder_, 150);
  options_.tokenizer = "sentencepiece";
  ExpectResumesAnywhere();
}

TEST_F(PrepareResumeTest, PrepareData_Killed_FinishedShardsAreKept) {
  FailingFileSystem file_system(40, absl::InternalError("killed"));
  ASSERT_FALSE(PrepareData(file_system, options_, PrepareHooks()).ok());
  const auto state = ReadPrepareState(FileSystem::Real(), options_.output);
  ASSERT_TRUE(state.ok()) << state.status();
  ASSERT_GE(state->manifest.shards.size(), 2u);
  const auto written =
      std::filesystem::last_write_time(options_.output + "/" + state->manifest.shards[0].name);
  std::vector<std::string> messages;
  Finish(options_, &messages);
  EXPECT_THAT(messages, testing::Contains(absl::StrCat("going on after ", state->manifest.shards.size(),
                                                       " finished shards")));
  EXPECT_EQ(std::filesystem::last_write_time(options_.output + "/" + state->manifest.shards[0].name),
            written);
}

TEST_F(PrepareResumeTest, PrepareData_DiskFull_SaysHowToGoOn) {
  FailingFileSystem file_system(30, absl::ResourceExhaustedError("cannot write x: No space left on device"));
  const absl::Status status = PrepareData(file_system, options_, PrepareHooks()).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_EQ(status.message(),
            "cannot write x: No space left on device; free some space and run the same command again: it "
            "goes on where "
            "it stopped");
}

TEST_F(PrepareResumeTest, PrepareData_Complete_DoesNothing) {
  EXPECT_FALSE(Finish(options_).was_complete);
  FailingFileSystem file_system(0, absl::InternalError("nothing may be written"));
  const auto report = PrepareData(file_system, options_, PrepareHooks());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->was_complete);
  EXPECT_GT(report->train_tokens, 0);
}

TEST_F(PrepareResumeTest, PrepareData_InputChanged_StartsAgain) {
  Finish(options_);
  folder_.Write("in/d0/f0.txt", "something else\n");
  std::vector<std::string> messages;
  EXPECT_FALSE(Finish(options_, &messages).was_complete);
  EXPECT_THAT(messages,
              testing::Contains(options_.output + " was made from other inputs or options: starting again"));
  const auto files = FilesOf(options_.output);
  std::filesystem::remove_all(options_.output);
  Finish(options_);
  EXPECT_EQ(files, FilesOf(options_.output));
}

TEST_F(PrepareResumeTest, PrepareData_OtherTokenizer_LeavesNothingOfTheFirst) {
  options_.tokenizer = "sentencepiece";
  options_.shard_tokens = 100;
  Finish(options_);
  options_.tokenizer = "bytes";
  options_.shard_tokens = 1000;
  Finish(options_);
  const auto files = FilesOf(options_.output);
  std::filesystem::remove_all(options_.output);
  Finish(options_);
  EXPECT_EQ(files, FilesOf(options_.output));
}

TEST_F(PrepareResumeTest, PrepareData_DamagedOutput_IsMadeAgain) {
  const PrepareReport report = Finish(options_);
  const auto expected = FilesOf(options_.output);
  for (const char* name : {"/train-00001.bin", "/validation-00000.bin", "/manifest.json",
                           "/tokenizer/tokenizer.json", "/.prepare.json"}) {
    folder_.Write("out" + std::string(name), "damaged");
    std::vector<std::string> messages;
    Finish(options_, &messages);
    EXPECT_EQ(FilesOf(options_.output), expected) << name;
    std::filesystem::remove(options_.output + name);
    if (name == std::string("/.prepare.json")) break;  // without it the folder is somebody else's
    Finish(options_);
    EXPECT_EQ(FilesOf(options_.output), expected) << name;
  }
}

TEST_F(PrepareResumeTest, PrepareData_DataOfAnotherMaker_IsNotTouched) {
  folder_.Write("out/train-00000.bin", "precious");
  const absl::Status status = PrepareData(FileSystem::Real(), options_, PrepareHooks()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_EQ(
      status.message(),
      options_.output + " holds train-00000.bin, which this command did not make here: name another folder");
  EXPECT_EQ(folder_.Read("out/train-00000.bin"), "precious");
}

TEST(PrepareStateTest, IsShardFileName_OwnNamesOnly) {
  for (const char* name : {"train-00000.bin", "validation-00012.mask", "train-123456.bin.partial"}) {
    EXPECT_TRUE(IsShardFileName(name)) << name;
  }
  for (const char* name :
       {"train.bin", "train-1.bin", "train-0000x.bin", "test-00000.bin", "train-00000.bin.old", ""}) {
    EXPECT_FALSE(IsShardFileName(name)) << name;
  }
}

}  // namespace
}  // namespace accrue
