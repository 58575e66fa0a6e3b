#include "common/checkpoint/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "common/hash.h"
#include "tests/checkpoint/faulty_file_system.h"
#include "tests/checkpoint/temporary_folder.h"

namespace accrue {
namespace {

using testing::HasSubstr;

CheckpointManifest Example() {
  return {.job_name = "headers",
          .spec_hash = std::string(32, 'a'),
          .spec_json = "{\"name\":\"headers\"}",
          .timeline = 2,
          .window = 500,
          .steps = 499,
          .optimizer = "adamw",
          .digest = std::string(32, 'b'),
          .exponents = {40, -3},
          .tensors = {"a", "b"},
          .files = {{"state-00001-of-00001.safetensors", 4, HashBytes("data", 4).Hex()}},
          .loss_json = "{\"loss\":1.5}",
          .numeric_class = "cpu/avx2",
          .mixed = "cpu/avx512 joined at window 7"};
}

class ManifestTest : public testing::Test {
 protected:
  FileSystem& files_ = FileSystem::Real();
  TemporaryFolder folder_;
  const std::string path_ = folder_.File("manifest.json");
};

TEST_F(ManifestTest, ReadManifest_OfWhatWasWritten_ReturnsIt) {
  const CheckpointManifest written = Example();
  ASSERT_TRUE(WriteManifest(files_, folder_.path(), written).ok());
  const auto read = ReadManifest(files_, folder_.path());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->job_name, written.job_name);
  EXPECT_EQ(read->spec_hash, written.spec_hash);
  EXPECT_EQ(read->spec_json, written.spec_json);
  EXPECT_EQ(read->timeline, 2);
  EXPECT_EQ(read->window, 500);
  EXPECT_EQ(read->steps, 499);
  EXPECT_EQ(read->optimizer, "adamw");
  EXPECT_EQ(read->digest, written.digest);
  EXPECT_EQ(read->exponents, written.exponents);
  EXPECT_EQ(read->tensors, written.tensors);
  ASSERT_EQ(read->files.size(), 1u);
  EXPECT_EQ(read->files[0].name, written.files[0].name);
  EXPECT_EQ(read->files[0].size_bytes, 4u);
  EXPECT_EQ(read->files[0].xxh3_128, written.files[0].xxh3_128);
  EXPECT_EQ(read->loss_json, written.loss_json);
  EXPECT_EQ(read->numeric_class, written.numeric_class);
  EXPECT_EQ(read->mixed, written.mixed);
}

TEST_F(ManifestTest, LossScale_OfWhatWasWritten_ReturnsIt) {
  CheckpointManifest written = Example();
  for (const std::optional<LossScale>& scale : {std::optional<LossScale>(), std::make_optional(LossScale{0, 0}),
                                                std::make_optional(LossScale{24, 1'000'000'000'000})}) {
    written.loss_scale = scale;
    ASSERT_TRUE(WriteManifest(files_, folder_.path(), written).ok());
    const auto read = ReadManifest(files_, folder_.path());
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->loss_scale, scale);
  }
  for (const LossScale& wrong : {LossScale{-1, 0}, LossScale{25, 0}, LossScale{3, -1}}) {
    written.loss_scale = wrong;
    EXPECT_THAT(std::string(WriteManifest(files_, folder_.path(), written).message()), HasSubstr("loss scale"));
  }
}

TEST_F(ManifestTest, ReadManifest_WithoutOne_IsNotFound) {
  EXPECT_EQ(ReadManifest(files_, folder_.path()).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ManifestTest, ReadManifest_WithAnyByteChangedOrCut_IsDataLoss) {
  ASSERT_TRUE(WriteManifest(files_, folder_.path(), Example()).ok());
  const std::string good = *files_.ReadAll(path_, 100000);
  for (size_t i = 0; i + 1 < good.size(); ++i) {  // the last byte is a line end
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    ASSERT_TRUE(files_.RemoveAll(path_).ok());  // cutting the old one would wait for the disk
    std::ofstream(path_, std::ios::binary) << bad;
    EXPECT_EQ(ReadManifest(files_, folder_.path()).status().code(), absl::StatusCode::kDataLoss) << i;
  }
  for (size_t size : {size_t{0}, size_t{1}, good.size() / 2, good.size() - 2}) {
    ASSERT_TRUE(files_.WriteAtomically(path_, good.substr(0, size)).ok());
    EXPECT_EQ(ReadManifest(files_, folder_.path()).status().code(), absl::StatusCode::kDataLoss) << size;
  }
}

TEST_F(ManifestTest, ReadManifest_NestedDeeply_IsDataLoss) {
  const std::string deep = std::string(1000000, '[') + std::string(1000000, ']');
  ASSERT_TRUE(files_.WriteAtomically(path_, "{\"a\":" + deep + "}").ok());
  EXPECT_EQ(ReadManifest(files_, folder_.path()).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ManifestTest, WriteManifest_ThatContradictsItself_IsRefused) {
  const std::vector<std::pair<std::string, std::function<void(CheckpointManifest&)>>> cases = {
      {"format version 2", [](auto& m) { m.format_version = 2; }},
      {"steps 501", [](auto& m) { m.steps = 501; }},
      {"window -1", [](auto& m) { m.window = -1; }},
      {"unknown optimizer", [](auto& m) { m.optimizer = "lion"; }},
      {"digest", [](auto& m) { m.digest = "beef"; }},
      {"3 exponents for 2 tensors", [](auto& m) { m.exponents.push_back(1); }},
      {"exponent 127", [](auto& m) { m.exponents[0] = 127; }},
      {"no tensors",
       [](auto& m) {
         m.tensors.clear();
         m.exponents.clear();
       }},
      {"tensor a is listed twice", [](auto& m) { m.tensors[1] = "a"; }},
      {"no files", [](auto& m) { m.files.clear(); }},
      {"listed twice", [](auto& m) { m.files.push_back(m.files[0]); }},
      {"plain name", [](auto& m) { m.files[0].name = "../secret"; }},
      {"plain name", [](auto& m) { m.files[0].name = ".."; }},
      {"plain name", [](auto& m) { m.files[0].name = "manifest.json"; }},
      {"hexadecimal", [](auto& m) { m.files[0].xxh3_128 = "x"; }},
  };
  for (const auto& [message, change] : cases) {
    CheckpointManifest manifest = Example();
    change(manifest);
    const absl::Status status = WriteManifest(files_, folder_.path(), manifest);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_FALSE(files_.Exists(path_));
  }
}

TEST_F(ManifestTest, WriteManifest_OnAFullDisk_LeavesTheOldOneOrTheNew) {
  ASSERT_TRUE(WriteManifest(files_, folder_.path(), Example()).ok());
  CheckpointManifest next = Example();
  next.window = 600;
  FaultyFileSystem faulty(files_);
  bool done = false;
  for (int64_t operations = 0; !done; ++operations) {
    ASSERT_LT(operations, 20);
    faulty.operations_left = operations;
    const absl::Status status = WriteManifest(faulty, folder_.path(), next);
    done = status.ok();
    EXPECT_TRUE(done || absl::IsResourceExhausted(status)) << status;
    const auto read = ReadManifest(files_, folder_.path());
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_TRUE(read->window == 500 || read->window == 600);
    EXPECT_EQ(files_.List(folder_.path())->size(), 1u);
  }
}

TEST_F(ManifestTest, VerifyFiles_OfDamagedFiles_NamesTheFirst) {
  CheckpointManifest manifest = Example();
  const std::string file = folder_.File(manifest.files[0].name);
  const auto verify = [&] { return VerifyFiles(files_, folder_.path(), manifest); };
  EXPECT_EQ(verify().code(), absl::StatusCode::kDataLoss);
  for (const char* bad : {"Data", "dat", "data+", ""}) {
    ASSERT_TRUE(files_.WriteAtomically(file, bad).ok());
    EXPECT_EQ(verify().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(verify().message()), HasSubstr(file));
  }
  ASSERT_TRUE(files_.WriteAtomically(file, "data").ok());
  EXPECT_TRUE(verify().ok());
}

TEST_F(ManifestTest, ListCheckpoints_AmongOtherThings_FindsFoldersWithAManifest) {
  const std::string root = folder_.File("checkpoints");
  EXPECT_TRUE(ListCheckpoints(files_, root)->empty());
  for (const std::string& directory :
       {CheckpointDirectory(root, 1000), CheckpointDirectory(root, 20), CheckpointDirectory(root, 123456789),
        root + "/window-7", root + "/window-00000008.old", root + "/window--0000009", root + "/other"}) {
    ASSERT_TRUE(files_.CreateDirectories(directory).ok());
    ASSERT_TRUE(WriteManifest(files_, directory, Example()).ok());
  }
  ASSERT_TRUE(files_.CreateDirectories(CheckpointDirectory(root, 30)).ok());  // not finished
  const auto entries = ListCheckpoints(files_, root);
  ASSERT_TRUE(entries.ok());
  std::vector<int64_t> windows;
  for (const CheckpointEntry& entry : *entries) windows.push_back(entry.window);
  EXPECT_EQ(windows, (std::vector<int64_t>{20, 1000, 123456789}));
  EXPECT_EQ((*entries)[0].directory, root + "/window-00000020");
}

TEST(ShardFileName, OfTheFirst_CountsFromOne) {
  EXPECT_EQ(ShardFileName(0, 2), "state-00001-of-00002.safetensors");
}

}  // namespace
}  // namespace accrue
