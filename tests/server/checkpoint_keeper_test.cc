// What makes the shards that workers wrote a checkpoint, and when an older one may go.
#include "coordinator/server/checkpoint_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <optional>

#include "common/hash.h"
#include "common/spec/job_spec.h"
#include "coordinator/journal/sqlite_journal.h"
#include "coordinator/server/output_folder.h"
#include "coordinator/server/submission.h"
#include "coordinator/server/translate.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class CheckpointKeeperTest : public testing::Test {
 protected:
  CheckpointKeeperTest() {
    std::string pattern = testing::TempDir() + "/accrue_keeper_XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    auto job = std::make_shared<v1::ResolvedJob>();
    job->mutable_spec()->set_name("headers");
    job->mutable_spec()->mutable_checkpoint()->set_keep(1);
    job->mutable_spec()->mutable_optimizer()->set_name("adamw");
    job->set_output_directory(folder_);
    job_ = std::move(job);
  }
  ~CheckpointKeeperTest() override { FileSystem::Real().RemoveAll(folder_).IgnoreError(); }

  std::string Directory(int64_t window) const { return CheckpointDirectory(CheckpointRoot(*job_), window); }

  // A worker has written `on_disk` as its shard and reported that it wrote `reported`.
  core::CheckpointFinished Finish(int64_t window, const std::string& reported, const std::string& on_disk) const {
    const std::string name = ShardFileName(0, 1);
    EXPECT_TRUE(FileSystem::Real().CreateDirectories(Directory(window)).ok());
    EXPECT_TRUE(FileSystem::Real().WriteAtomically(JoinPath(Directory(window), name), on_disk).ok());
    CheckpointWork work;
    work.checkpoint.job = "headers-1";
    work.checkpoint.window = Window(window);
    work.checkpoint.steps = window;
    work.checkpoint.digest = HashBytes("state", 5).Hex();
    work.checkpoint.files = {{name, reported.size(), HashBytes(reported.data(), reported.size()).Hex()}};
    work.job = job_;
    work.tensors = {"w"};
    work.window_line = "{}";

    SqliteJournalOptions options;
    options.directory = folder_;
    auto journal = OpenSqliteJournal(options);
    EXPECT_TRUE(journal.ok()) << journal.status();
    std::optional<core::CheckpointFinished> finished;
    {
      CheckpointKeeper keeper(FileSystem::Real(), *journal->journal,
                              [&](core::CheckpointFinished event) { finished = std::move(event); });
      keeper.Finish(std::move(work));
    }
    EXPECT_TRUE(finished.has_value());
    return finished.value_or(core::CheckpointFinished{});
  }
  std::vector<int64_t> Checkpoints() const {
    std::vector<int64_t> windows;
    const auto entries = ListCheckpoints(FileSystem::Real(), CheckpointRoot(*job_));
    EXPECT_TRUE(entries.ok()) << entries.status();
    for (const CheckpointEntry& entry : *entries) windows.push_back(entry.window);
    return windows;
  }

  std::string folder_;
  std::shared_ptr<const v1::ResolvedJob> job_;
};

TEST_F(CheckpointKeeperTest, FilesAreAsReported_OlderOnesBeyondKeepGo) {
  EXPECT_EQ(Finish(3, "state 3", "state 3").error, "");
  EXPECT_THAT(Checkpoints(), ElementsAre(3));
  EXPECT_EQ(Finish(6, "state 6", "state 6").error, "");
  EXPECT_THAT(Checkpoints(), ElementsAre(6));
}

TEST_F(CheckpointKeeperTest, FileDiffersFromItsReport_IsNoCheckpointAndTheOldOneStays) {
  EXPECT_EQ(Finish(3, "state 3", "state 3").error, "");
  const core::CheckpointFinished finished = Finish(6, "state 6", "stale 6");
  EXPECT_THAT(finished.error, HasSubstr(JoinPath(Directory(6), ShardFileName(0, 1))));
  EXPECT_THAT(Checkpoints(), ElementsAre(3));
}

TEST_F(CheckpointKeeperTest, FileIsCutShort_IsNoCheckpoint) {
  EXPECT_THAT(Finish(6, "state 6", "stat").error, HasSubstr("4"));
  EXPECT_THAT(Checkpoints(), IsEmpty());
}

}  // namespace
}  // namespace accrue
