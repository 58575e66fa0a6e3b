// export, verify and sample on a small checkpoint made here.
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/sampler.h"
#include "common/checkpoint/manifest.h"
#include "common/spec/job_spec.h"
#include "common/tokenizer/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/client_runner.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/model/spec/model_spec.h"
#include "worker/model/transformer.h"

namespace accrue {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kTinyJob[] =
    "name: tiny\nmodel: {architecture: gpt2, vocabulary: 257, context: 16, layers: 1, heads: 2, width: 16}\n"
    "data: {train: [a.bin]}\nbatch: {sequences: 2}\nwindows: 10\n";

// A run's folder with checkpoints at windows 5 and 10, and a byte tokenizer.
class ModelCommandsTest : public ::testing::Test {
 protected:
  ModelCommandsTest() : backend_(CreateCpuBackend(1)) {
    char name[] = "/tmp/accrue-model-XXXXXX";
    folder_ = mkdtemp(name);
    spec_ = *ParseJobText(kTinyJob, "job.yaml");
    EXPECT_TRUE(FillDefaults(spec_).ok());
    for (const Tokenizer::File& file : NewByteTokenizer()->Files())
      Write("tokenizer/" + file.name, file.contents);
    Write("run/job.json", absl::StrCat(R"({"tokenizer_directory": ")", Path("tokenizer"), R"("})"));
    digest5_ = WriteCheckpoint(5);
    digest10_ = WriteCheckpoint(10);
  }
  ~ModelCommandsTest() override { FileSystem::Real().RemoveAll(folder_).IgnoreError(); }

  std::string Path(const std::string& name) const { return JoinPath(folder_, name); }
  void Write(const std::string& name, absl::string_view text) {
    ASSERT_TRUE(FileSystem::Real().CreateDirectories(DirectoryOf(Path(name))).ok());
    ASSERT_TRUE(FileSystem::Real().WriteAtomically(Path(name), text).ok());
  }
  std::string Checkpoint(int64_t window) const {
    return CheckpointDirectory(Path("run/checkpoints"), window);
  }

  // Parameters drawn from the window's number; in two shards. Returns the digest.
  std::string WriteCheckpoint(int64_t window) {
    auto engine = *CreateTransformer(
        {.model = *ModelConfigFromSpec(spec_.model()), .rows = 1, .sequence_length = 16}, *backend_);
    std::vector<float> values(static_cast<size_t>(engine->layout().arena_elements()));
    engine->InitializeParameters(static_cast<uint64_t>(window), values.data());
    auto state = *TrainingState::Create({}, AccumulationMode::kExact, engine->layout(), *backend_);
    state->Start(values.data());
    state->SetProgress(window, window, std::vector<int>(engine->layout().tensors().size(), 3));
    CheckpointManifest manifest;
    manifest.job_name = "tiny";
    manifest.spec_json = CanonicalJson(spec_);
    manifest.spec_hash = SpecHash(spec_);
    manifest.window = manifest.steps = window;
    manifest.optimizer = "adamw";
    manifest.digest = state->Digest().Hex();
    manifest.exponents = state->exponents();
    for (const TensorInfo& tensor : engine->layout().tensors()) manifest.tensors.push_back(tensor.name);
    for (int shard = 0; shard < 2; ++shard) {
      const auto file = WriteSnapshot(FileSystem::Real(), Checkpoint(window), TakeSnapshot(*state, shard, 2));
      EXPECT_TRUE(file.ok()) << file.status();
      manifest.files.push_back(*file);
    }
    const absl::Status written = WriteManifest(FileSystem::Real(), Checkpoint(window), manifest);
    EXPECT_TRUE(written.ok()) << written;
    return manifest.digest;
  }

  std::unique_ptr<Backend> backend_;
  v1::JobSpec spec_;
  std::string folder_, digest5_, digest10_;
};

TEST_F(ModelCommandsTest, Verify_RunFolder_EveryCheckpoint) {
  const ClientResult result = RunAccrue({"verify", Path("run")});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, absl::StrCat("window 5  digest ", digest5_, "  verified\nwindow 10  digest ",
                                     digest10_, "  verified\n"));
  const json object = json::parse(RunAccrue({"verify", Checkpoint(5), "-o", "json"}).out);
  EXPECT_EQ(object["ok"], true);
  EXPECT_EQ(object["window"], 5);
  EXPECT_EQ(object["digest"], digest5_);
}

TEST_F(ModelCommandsTest, Verify_ChangedByte_Refused) {
  const std::string file = JoinPath(Checkpoint(10), ShardFileName(0, 2));
  std::string bytes = *FileSystem::Real().ReadAll(file, 1 << 24);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  ASSERT_TRUE(FileSystem::Real().WriteAtomically(file, bytes).ok());
  const ClientResult result = RunAccrue({"verify", Path("run"), "-o", "json"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr(Checkpoint(10)));
  EXPECT_EQ(json::parse(result.out)["ok"], false);
  EXPECT_EQ(json::parse(result.out)["checkpoints"][0]["ok"], true);
  EXPECT_EQ(RunAccrue({"export", Path("run"), Path("weights")}).exit_code, 1);
}

TEST_F(ModelCommandsTest, Verify_WindowsLogDisagrees_Refused) {
  Write("run/windows.jsonl",
        "{\"window\":4,\"digest\":\"" + digest5_ + "\"}\n{\"window\":9,\"digest\":\"" + digest5_ + "\"}\n");
  const ClientResult result = RunAccrue({"verify", Path("run")});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("window 5  digest"));
  EXPECT_THAT(result.err,
              HasSubstr(absl::StrCat("expected digest ", digest5_, " (windows.jsonl), found ", digest10_)));
}

TEST_F(ModelCommandsTest, CheckpointList_RunFolder_WithoutACoordinator) {
  const ClientResult result = RunAccrue({"checkpoint", "list", Path("run"), "-o", "json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const json object = json::parse(result.out);
  EXPECT_EQ(object["checkpoints"].size(), 2u);
  EXPECT_EQ(object["checkpoints"][1]["digest"], digest10_);
  EXPECT_EQ(RunAccrue({"checkpoint", "list", Path("tokenizer")}).exit_code, 4);
}

TEST_F(ModelCommandsTest, Export_FolderThatReadsBackTheSame) {
  const ClientResult result = RunAccrue({"export", Path("run"), Path("weights")});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("Exported window 10 of "));
  for (const char* const name :
       {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}) {
    EXPECT_TRUE(FileSystem::Real().Exists(Path(absl::StrCat("weights/", name)))) << name;
  }
  EXPECT_EQ(json::parse(*FileSystem::Real().ReadAll(Path("weights/config.json"), 1 << 20))["eos_token_id"],
            256);
  // The exported folder is a source of its own.
  EXPECT_EQ(RunAccrue({"export", Path("weights"), Path("again")}).exit_code, 0);
  EXPECT_EQ(*FileSystem::Real().ReadAll(Path("weights/model.safetensors"), 1 << 24),
            *FileSystem::Real().ReadAll(Path("again/model.safetensors"), 1 << 24));
}

TEST_F(ModelCommandsTest, Export_FolderInUse_RefusedUnlessForced) {
  Write("weights/notes.txt", "mine");
  const ClientResult result = RunAccrue({"export", Path("run"), Path("weights")});
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_THAT(result.err, HasSubstr("is not empty; --force"));
  EXPECT_EQ(RunAccrue({"export", Path("run"), Path("weights"), "--force", "--window", "5"}).exit_code, 0);
  EXPECT_EQ(RunAccrue({"export", Path("run"), Path("weights"), "--force", "--window", "7"}).exit_code, 4);
}

TEST_F(ModelCommandsTest, Sample_SameSeedSameText) {
  const std::vector<std::string> arguments = {"sample",   Path("run"), "--prompt", "int ",
                                              "--tokens", "40",        "--seed",   "3"};
  const ClientResult first = RunAccrue(arguments);
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(first.out.substr(0, 4), "int ");
  EXPECT_EQ(RunAccrue(arguments).out, first.out);
  std::vector<std::string> other = arguments;
  other.back() = "4";
  EXPECT_NE(RunAccrue(other).out, first.out);
}

TEST_F(ModelCommandsTest, SampleJson_TextAndCounts) {
  const json object = json::parse(
      RunAccrue({"sample", Checkpoint(5), "--tokens", "20", "--temperature", "0", "-o", "json"}).out);
  EXPECT_EQ(object["window"], 5);
  EXPECT_LE(object["tokens"], 20);
  EXPECT_TRUE(object["text"].is_string());
}

TEST_F(ModelCommandsTest, Sample_NoTokenizer_SaysWhatToDo) {
  ASSERT_TRUE(FileSystem::Real().RemoveAll(Path("run/job.json")).ok());
  const ClientResult result = RunAccrue({"sample", Path("run")});
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, HasSubstr("--tokenizer DIR"));
  EXPECT_EQ(RunAccrue({"sample", Path("run"), "--tokenizer", Path("tokenizer"), "--tokens", "1"}).exit_code,
            0);
}

TEST(Sampler, TopKAndTemperature_Restrict) {
  const float logits[4] = {1, 3, 2, 3};
  Sampler greedy({.temperature = 0});
  EXPECT_EQ(greedy.Draw(logits, 4), 1);
  Sampler top1({.temperature = 5, .top_k = 1});
  Sampler top2({.temperature = 5, .top_k = 2});
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(top1.Draw(logits, 4), 1);
    EXPECT_THAT(top2.Draw(logits, 4), ::testing::AnyOf(1, 3));
  }
}

TEST(Sampler, Draws_FollowTheDistribution) {
  const float logits[3] = {0, std::log(2.0f), std::log(5.0f)};
  Sampler sampler({.temperature = 1, .seed = 9});
  int counts[3] = {};
  for (int i = 0; i < 8000; ++i) ++counts[sampler.Draw(logits, 3)];
  EXPECT_NEAR(counts[0], 1000, 120);
  EXPECT_NEAR(counts[1], 2000, 150);
  EXPECT_NEAR(counts[2], 5000, 180);
}

TEST(Sampler, NotFinite_NeverDrawn) {
  const float nan = std::nanf("");
  const float logits[3] = {nan, 0, -INFINITY};
  Sampler sampler({.temperature = 1});
  for (int i = 0; i < 50; ++i) EXPECT_EQ(sampler.Draw(logits, 3), 1);
  const float all[2] = {nan, nan};
  EXPECT_EQ(sampler.Draw(all, 2), 0);
}

}  // namespace
}  // namespace accrue
