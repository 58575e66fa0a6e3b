#include "worker/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/accumulate/host_backend.h"
#include "tests/accumulate/units.h"
#include "tests/checkpoint/faulty_file_system.h"
#include "tests/checkpoint/temporary_folder.h"
#include "worker/checkpoint/safetensors.h"

namespace accrue {
namespace {

using testing::HasSubstr;

// A small model's state after some windows.
class Model {
 public:
  explicit Model(OptimizerKind kind = OptimizerKind::kAdamW, AccumulationMode mode = AccumulationMode::kExact,
                 int64_t width = 70)
      : layout(*ParameterLayout::Build({{"embedding", {300, width}}, {"bias", {33}}, {"weight", {64, 64}}})),
        state(*TrainingState::Create({.kind = kind}, mode, layout, backend)) {}

  void Train(int64_t windows) {
    auto accumulator = *Accumulator::Create(AccumulationMode::kExact, layout, backend);
    std::vector<float> arena(layout.arena_elements());
    for (size_t i = 0; i < arena.size(); ++i) arena[i] = static_cast<float>(i % 97) * 0.01f;
    state->Start(arena.data());
    state->SetExponents({44, 45, 46});
    for (int64_t window = 0; window < windows; ++window) {
      accumulator->Reset(state->exponents());
      AddUnit(*accumulator, layout, window);
      ReduceExact({accumulator.get()}, layout);
      state->Step(*accumulator, {.learning_rate = 1e-2f, .valid_tokens = 64, .next_exponents = {44, 45, 46}});
    }
    state->Skip();
  }

  HostBackend backend;
  ParameterLayout layout;
  std::unique_ptr<TrainingState> state;
};

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() { model_.Train(2); }

  absl::Status Write(FileSystem& file_system, Model& model, int64_t window, int shards) {
    const std::string directory = CheckpointDirectory(folder_.path(), window);
    CheckpointManifest manifest{.job_name = "test",
                                .window = model.state->window(),
                                .steps = model.state->steps(),
                                .optimizer = model.state->arrays().size() == 9 ? "adamw" : "sgd",
                                .digest = model.state->Digest().Hex(),
                                .exponents = model.state->exponents(),
                                .loss_scale = model.state->loss_scale()};
    for (const TensorInfo& tensor : model.layout.tensors()) manifest.tensors.push_back(tensor.name);
    for (int shard = 0; shard < shards; ++shard) {
      const auto file = WriteSnapshot(file_system, directory, TakeSnapshot(*model.state, shard, shards));
      if (!file.ok()) return file.status();
      manifest.files.push_back(*file);
    }
    return WriteManifest(file_system, directory, manifest);
  }

  absl::Status Load(int64_t window, Model& into) {
    return LoadCheckpoint(files_, CheckpointDirectory(folder_.path(), window), *into.state);
  }

  // Rewrites the checkpoint of window 3 with a manifest that was changed and still hashes right.
  void Lie(const std::function<void(CheckpointManifest&)>& change) {
    ASSERT_TRUE(Write(files_, model_, 3, 2).ok());
    CheckpointManifest manifest = *ReadManifest(files_, Directory());
    change(manifest);
    ASSERT_TRUE(WriteManifest(files_, Directory(), manifest).ok());
  }
  std::string Directory() const { return CheckpointDirectory(folder_.path(), 3); }

  FileSystem& files_ = FileSystem::Real();
  TemporaryFolder folder_;
  Model model_;
};

TEST_F(CheckpointTest, LoadCheckpoint_FromAnyNumberOfShards_RestoresTheDigest) {
  for (int shards : {1, 2, 3, 5, 12}) {
    ASSERT_TRUE(Write(files_, model_, shards, shards).ok());
    Model loaded;
    const absl::Status status = Load(shards, loaded);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(loaded.state->Digest(), model_.state->Digest());
    EXPECT_EQ(loaded.state->window(), 3);
    EXPECT_EQ(loaded.state->steps(), 2);
    EXPECT_EQ(loaded.state->exponents(), model_.state->exponents());
    EXPECT_EQ(*ComputeCheckpointDigest(files_, CheckpointDirectory(folder_.path(), shards)),
              model_.state->Digest());
  }
}

TEST_F(CheckpointTest, LoadCheckpoint_WithALossScale_RestoresItAndTheDigest) {
  const Hash128 without = model_.state->Digest();
  model_.state->SetLossScale(LossScale{13, 77});
  ASSERT_TRUE(Write(files_, model_, 1, 2).ok());
  Model loaded;
  ASSERT_TRUE(Load(1, loaded).ok());
  EXPECT_EQ(loaded.state->loss_scale(), (LossScale{13, 77}));
  EXPECT_EQ(loaded.state->Digest(), model_.state->Digest());
  EXPECT_NE(loaded.state->Digest(), without);
  EXPECT_EQ(*ComputeCheckpointDigest(files_, CheckpointDirectory(folder_.path(), 1)), model_.state->Digest());
}

TEST_F(CheckpointTest, LoadCheckpoint_OfSgdInFastMode_RestoresTheDigest) {
  Model sgd(OptimizerKind::kSgd, AccumulationMode::kFast),
      loaded(OptimizerKind::kSgd, AccumulationMode::kFast);
  sgd.state->Start(std::vector<float>(sgd.layout.arena_elements(), 0.5f).data());
  ASSERT_TRUE(Write(files_, sgd, 0, 2).ok());
  ASSERT_TRUE(Load(0, loaded).ok());
  EXPECT_EQ(loaded.state->Digest(), sgd.state->Digest());
  EXPECT_EQ(*ComputeCheckpointDigest(files_, CheckpointDirectory(folder_.path(), 0)), sgd.state->Digest());
}

TEST_F(CheckpointTest, TakeSnapshot_OverShards_DealsEachArrayOnceAndEvenly) {
  for (int shards : {1, 2, 3}) {
    size_t arrays = 0;
    int64_t least = INT64_MAX, most = 0;
    for (int shard = 0; shard < shards; ++shard) {
      const CheckpointSnapshot snapshot = TakeSnapshot(*model_.state, shard, shards);
      arrays += snapshot.arrays.size();
      int64_t elements = 0;
      for (const auto& values : snapshot.values) elements += static_cast<int64_t>(values.size());
      least = std::min(least, elements);
      most = std::max(most, elements);
    }
    EXPECT_EQ(arrays, 9u);
    EXPECT_LE(most - least, 300 * 70) << shards;
  }
}

TEST_F(CheckpointTest, Write_OnAFullDisk_LeavesThePreviousCheckpointAndNoHalfOne) {
  ASSERT_TRUE(Write(files_, model_, 3, 2).ok());
  Model next;
  next.Train(4);
  FaultyFileSystem faulty(files_);
  bool done = false;
  int failures = 0;
  for (int64_t operations = 0; !done; ++operations) {
    ASSERT_LT(operations, 200);
    faulty.operations_left = operations;
    const absl::Status status = Write(faulty, next, 5, 2);
    done = status.ok();
    if (done) break;
    ++failures;
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    const auto entries = ListCheckpoints(files_, folder_.path());
    ASSERT_TRUE(entries.ok());
    ASSERT_GE(entries->size(), 1u);
    EXPECT_EQ((*entries)[0].window, 3);
    // When only the folder's last sync failed, the new one is there, and then it is whole.
    for (const CheckpointEntry& entry : *entries) {
      Model loaded;
      EXPECT_TRUE(LoadCheckpoint(files_, entry.directory, *loaded.state).ok()) << operations;
    }
    const std::string half = CheckpointDirectory(folder_.path(), 5);
    const std::vector<std::string> names = files_.List(half).value_or(std::vector<std::string>());
    EXPECT_THAT(names, testing::Each(testing::Not(HasSubstr("partial"))));
    ASSERT_TRUE(files_.RemoveAll(half).ok());
  }
  EXPECT_GT(failures, 20);
  Model loaded;
  ASSERT_TRUE(Load(5, loaded).ok());
  EXPECT_EQ(loaded.state->Digest(), next.state->Digest());
}

TEST_F(CheckpointTest, WriteSnapshot_OnADiskThatFlipsABit_IsDataLossAndLeavesNothing) {
  FaultyFileSystem faulty(files_);
  faulty.flip_in = "state-00001";
  const auto file = WriteSnapshot(faulty, Directory(), TakeSnapshot(*model_.state, 0, 2));
  EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(files_.List(Directory())->empty());
}

TEST_F(CheckpointTest, LoadCheckpoint_WithADamagedFile_NamesIt) {
  for (int shard : {0, 1}) {
    for (const std::string damage : {"flip", "cut", "grow", "remove"}) {
      ASSERT_TRUE(Write(files_, model_, 3, 2).ok());
      const std::string path = JoinPath(Directory(), ShardFileName(shard, 2));
      std::string bytes = *files_.ReadAll(path, size_t{1} << 30);
      if (damage == "flip") bytes[bytes.size() - 5] = static_cast<char>(bytes[bytes.size() - 5] ^ 16);
      if (damage == "cut") bytes.resize(bytes.size() / 2);
      if (damage == "grow") bytes += '\0';
      ASSERT_TRUE(damage == "remove" ? files_.RemoveAll(path).ok()
                                     : files_.WriteAtomically(path, bytes).ok());
      Model loaded;
      const absl::Status status = Load(3, loaded);
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << damage;
      EXPECT_THAT(std::string(status.message()), HasSubstr(path));
    }
  }
}

TEST_F(CheckpointTest, LoadCheckpoint_WithoutAManifest_IsNotFound) {
  ASSERT_TRUE(WriteSnapshot(files_, Directory(), TakeSnapshot(*model_.state, 0, 1)).ok());
  Model loaded;
  EXPECT_EQ(Load(3, loaded).code(), absl::StatusCode::kNotFound);
}

TEST_F(CheckpointTest, LoadCheckpoint_WithALyingManifest_IsDataLoss) {
  const std::vector<std::pair<std::string, std::function<void(CheckpointManifest&)>>> lies = {
      {"digest", [](auto& m) { m.digest = std::string(32, '0'); }},
      {"digest", [](auto& m) { m.window += 1; }},
      {"digest", [](auto& m) { m.steps -= 1; }},
      {"digest", [](auto& m) { m.exponents[1] += 1; }},
      {"digest", [](auto& m) { m.exponents.clear(); }},
      {"another optimizer", [](auto& m) { m.optimizer = "sgd"; }},
      {"not the model's", [](auto& m) { m.tensors[0] = "other"; }},
      {"not the model's",
       [](auto& m) {
         m.tensors.pop_back();
         m.exponents.pop_back();
       }},
      {"arrays", [](auto& m) { m.files.pop_back(); }},
  };
  for (const auto& [message, change] : lies) {
    Lie(change);
    Model loaded;
    const absl::Status status = Load(3, loaded);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    const auto digest = ComputeCheckpointDigest(files_, Directory());
    EXPECT_TRUE(!digest.ok() || digest->Hex() != ReadManifest(files_, Directory())->digest) << message;
  }
}

// Files that are sound in themselves, and hold something else than the state.
TEST_F(CheckpointTest, LoadCheckpoint_WithOtherArrays_IsDataLoss) {
  const auto replace = [&](const std::vector<SafetensorsTensor>& tensors) {
    Lie([&](CheckpointManifest& manifest) {
      const std::string name = ShardFileName(0, 1);
      auto writer = SafetensorsWriter::Create(files_, JoinPath(Directory(), name), tensors, {});
      for (const SafetensorsTensor& tensor : tensors) {
        int64_t elements = 1;
        for (int64_t size : tensor.shape) elements *= size;
        const std::string zeros(elements * SafetensorsDTypeBytes(tensor.dtype), '\0');
        ASSERT_TRUE((*writer)->Append(zeros.data(), zeros.size()).ok());
      }
      ASSERT_TRUE((*writer)->Finish().ok());
      manifest.files = {{name, (*writer)->size_bytes(), (*writer)->hash().Hex()}};
    });
    Model loaded;
    const absl::Status status = Load(3, loaded);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    return std::string(status.message());
  };
  std::vector<SafetensorsTensor> tensors;
  for (const StateArray& array : model_.state->arrays()) {
    tensors.push_back({.name = array.tensor + "|" + array.array, .shape = array.shape});
  }
  EXPECT_THAT(replace(tensors), HasSubstr("digest"));
  auto changed = tensors;
  changed[0].shape = {70, 300};
  EXPECT_THAT(replace(changed), HasSubstr("has shape [70, 300], the model's is [300, 70]"));
  changed = tensors;
  changed[1].dtype = SafetensorsDType::kI32;
  EXPECT_THAT(replace(changed), HasSubstr("embedding|m is not F32"));
  changed = tensors;
  changed[2].name = "embedding|x";
  EXPECT_THAT(replace(changed), HasSubstr("embedding|v is in none"));
  changed = tensors;
  changed.push_back({.name = "surplus|p", .shape = {1}});
  EXPECT_THAT(replace(changed), HasSubstr("10 arrays, expected 9"));
}

TEST_F(CheckpointTest, LoadCheckpoint_IntoAnotherModelOrMode_IsDataLoss) {
  ASSERT_TRUE(Write(files_, model_, 3, 2).ok());
  Model wider(OptimizerKind::kAdamW, AccumulationMode::kExact, 71);
  EXPECT_EQ(Load(3, wider).code(), absl::StatusCode::kDataLoss);
  Model sgd(OptimizerKind::kSgd);
  EXPECT_EQ(Load(3, sgd).code(), absl::StatusCode::kDataLoss);
  Model fast(OptimizerKind::kAdamW, AccumulationMode::kFast);
  EXPECT_EQ(Load(3, fast).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace accrue
