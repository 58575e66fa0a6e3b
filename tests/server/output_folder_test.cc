#include "coordinator/server/output_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "common/checkpoint/manifest.h"
#include "common/hash.h"
#include "common/spec/job_spec.h"
#include "coordinator/server/checkpoint_keeper.h"
#include "coordinator/server/submission.h"
#include "coordinator/server/translate.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class OutputFolderTest : public testing::Test {
 protected:
  OutputFolderTest() {
    std::string pattern = testing::TempDir() + "/accrue_folder_XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    job_.mutable_spec()->set_name("headers");
    job_.mutable_spec()->set_seed(1);
    job_.mutable_spec()->mutable_checkpoint()->set_keep(2);
    v1::ShardPin& pin = *job_.add_train();
    pin.set_path("/data/a.bin");
    pin.set_xxh3_128("00");
    job_.set_output_directory(folder_);
  }
  ~OutputFolderTest() override { FileSystem::Real().RemoveAll(folder_).IgnoreError(); }

  void WriteCheckpoint(int64_t window) const {
    const std::string directory = CheckpointDirectory(CheckpointRoot(job_), window);
    ASSERT_TRUE(FileSystem::Real().CreateDirectories(directory).ok());
    const std::string contents = "state " + std::to_string(window), name = ShardFileName(0, 1);
    ASSERT_TRUE(FileSystem::Real().WriteAtomically(JoinPath(directory, name), contents).ok());
    CheckpointManifest manifest;
    manifest.job_name = "headers";
    manifest.spec_json = CanonicalJson(job_.spec());
    manifest.spec_hash = SpecHash(job_.spec());
    manifest.timeline = 3;
    manifest.window = window;
    manifest.steps = window;
    manifest.optimizer = "adamw";
    manifest.digest = HashBytes(contents.data(), contents.size()).Hex();
    manifest.exponents = {5};
    manifest.tensors = {"w"};
    manifest.files = {{name, contents.size(), HashBytes(contents.data(), contents.size()).Hex()}};
    const absl::Status written = WriteManifest(FileSystem::Real(), directory, manifest);
    ASSERT_TRUE(written.ok()) << written;
  }
  void Damage(int64_t window) const {
    const std::string directory = CheckpointDirectory(CheckpointRoot(job_), window);
    ASSERT_TRUE(FileSystem::Real().WriteAtomically(JoinPath(directory, ShardFileName(0, 1)), "stste").ok());
  }
  absl::StatusOr<FolderStart> Prepare(FolderRequest request = {}) const {
    return PrepareFolder(FileSystem::Real(), job_, request);
  }
  FolderRequest From(int64_t window) const {
    FolderRequest request;
    request.resume_from = window;
    return request;
  }
  std::vector<int64_t> Checkpoints() const {
    std::vector<int64_t> windows;
    const auto entries = ListCheckpoints(FileSystem::Real(), CheckpointRoot(job_));
    for (const CheckpointEntry& entry : *entries) windows.push_back(entry.window);
    return windows;
  }

  std::string folder_;
  v1::ResolvedJob job_;
};

TEST_F(OutputFolderTest, Prepare_Empty_StartsFromScratchAndLeavesJobJson) {
  const auto found = Prepare();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->start.checkpoint_directory, "");
  EXPECT_EQ(found->start.window, Window(0));
  const auto text = FileSystem::Real().ReadAll(folder_ + "/job.json", 1 << 20);
  EXPECT_EQ(ResolvedJobFromJson(*text)->spec().name(), "headers");
}

TEST_F(OutputFolderTest, Prepare_SameJob_ResumesFromTheNewest) {
  ASSERT_TRUE(Prepare().ok());
  WriteCheckpoint(2);
  WriteCheckpoint(10);
  const auto found = Prepare();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->start.window, Window(10));
  EXPECT_EQ(found->start.steps, 10);
  EXPECT_EQ(found->start.checkpoint_directory, folder_ + "/checkpoints/window-00000010");
  EXPECT_EQ(found->start.timeline, Timeline(4));
  EXPECT_THAT(found->start.exponents, ElementsAre(5));
  EXPECT_THAT(found->warnings, IsEmpty());
}

TEST_F(OutputFolderTest, Prepare_NewestDamaged_FallsBackAndSaysSo) {
  ASSERT_TRUE(Prepare().ok());
  WriteCheckpoint(2);
  WriteCheckpoint(10);
  Damage(10);
  const auto found = Prepare();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->start.window, Window(2));
  ASSERT_THAT(found->warnings, SizeIs(1));
  EXPECT_THAT(found->warnings[0], HasSubstr("window 10"));
  EXPECT_THAT(Checkpoints(), ElementsAre(2));
}

TEST_F(OutputFolderTest, Prepare_AllDamaged_StartsFromTheBeginning) {
  ASSERT_TRUE(Prepare().ok());
  WriteCheckpoint(2);
  Damage(2);
  const auto found = Prepare();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->start.checkpoint_directory, "");
  EXPECT_THAT(found->warnings, SizeIs(2));
}

TEST_F(OutputFolderTest, Prepare_AnotherSpec_IsRefusedWithTheDifferences) {
  ASSERT_TRUE(Prepare().ok());
  job_.mutable_spec()->set_seed(2);
  job_.mutable_train(0)->set_xxh3_128("11");
  const absl::Status status = Prepare().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("seed: 1 -> 2"));
  EXPECT_THAT(status.message(), HasSubstr("data.train[0]"));
}

TEST_F(OutputFolderTest, Prepare_OtherFleetMemoryOrPlace_IsTheSameJob) {
  ASSERT_TRUE(Prepare().ok());
  job_.mutable_spec()->set_recompute("block");
  job_.mutable_spec()->mutable_workers()->set_max(7);
  job_.mutable_train(0)->set_path("/elsewhere/a.bin");
  job_.set_job_id("headers-2");
  EXPECT_TRUE(Prepare().ok());
}

TEST_F(OutputFolderTest, Prepare_Fresh_DiscardsTheSameJobOnly) {
  ASSERT_TRUE(Prepare().ok());
  WriteCheckpoint(2);
  job_.mutable_spec()->set_seed(2);
  FolderRequest fresh;
  fresh.fresh = true;
  ASSERT_TRUE(FileSystem::Real().WriteAtomically(folder_ + "/notes.txt", "mine").ok());
  const auto found = Prepare(fresh);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->start.window, Window(0));
  EXPECT_THAT(Checkpoints(), IsEmpty());
  EXPECT_TRUE(FileSystem::Real().Exists(folder_ + "/notes.txt"));
  job_.mutable_spec()->set_name("other");
  EXPECT_EQ(Prepare(fresh).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(OutputFolderTest, Prepare_CheckpointsOfNobody_AreNotTaken) {
  WriteCheckpoint(2);
  EXPECT_EQ(Prepare().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(OutputFolderTest, Prepare_ResumeFrom_RewindsAndDropsWhatCameAfter) {
  ASSERT_TRUE(Prepare().ok());
  for (int64_t window : {2, 4, 6}) WriteCheckpoint(window);
  const auto found = Prepare(From(4));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->start.window, Window(4));
  EXPECT_THAT(Checkpoints(), ElementsAre(2, 4));
  const absl::Status missing = Prepare(From(5)).status();
  EXPECT_TRUE(absl::IsNotFound(missing));
  EXPECT_THAT(missing.message(), HasSubstr("it has 2, 4"));
  Damage(4);
  EXPECT_TRUE(absl::IsDataLoss(Prepare(From(4)).status()));
}

TEST_F(OutputFolderTest, Prune_KeepsTheNewestAndDropsTheUnfinished) {
  ASSERT_TRUE(Prepare().ok());
  for (int64_t window : {2, 4, 6}) WriteCheckpoint(window);
  const std::string root = CheckpointRoot(job_);
  for (int64_t window : {5, 8}) {
    ASSERT_TRUE(FileSystem::Real().CreateDirectories(CheckpointDirectory(root, window)).ok());
  }
  ASSERT_TRUE(PruneCheckpoints(FileSystem::Real(), root, 2).ok());
  EXPECT_THAT(*FileSystem::Real().List(root),
              ElementsAre("window-00000004", "window-00000006", "window-00000008"));
}

TEST_F(OutputFolderTest, RemoveLeftovers_OtherShardCountAndOldManifest_Go) {
  const std::string directory = CheckpointDirectory(CheckpointRoot(job_), 2);
  ASSERT_TRUE(FileSystem::Real().CreateDirectories(directory).ok());
  CheckpointManifest manifest;
  for (int shard : {0, 1}) manifest.files.push_back({ShardFileName(shard, 2), 1, ""});
  for (const std::string& name : {ShardFileName(0, 2), ShardFileName(1, 2), ShardFileName(0, 3), ShardFileName(2, 3),
                                  ShardFileName(1, 2) + ".partial", std::string("manifest.json"), std::string("manifest.json.damaged"), std::string("notes.txt")}) {
    ASSERT_TRUE(FileSystem::Real().WriteAtomically(JoinPath(directory, name), "x").ok());
  }
  ASSERT_TRUE(RemoveLeftovers(FileSystem::Real(), directory, manifest).ok());
  EXPECT_THAT(*FileSystem::Real().List(directory),
              ElementsAre("manifest.json", "notes.txt", ShardFileName(0, 2), ShardFileName(1, 2)));
}

}  // namespace
}  // namespace accrue
