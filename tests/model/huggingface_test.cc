#include "worker/model/huggingface.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/spec/huggingface_config.h"
#include "common/status.h"
#include "tests/backend/reference_ops.h"
#include "tests/model/model_testing.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/model/parameters.h"
#include "worker/model/spec/model_spec.h"

namespace accrue {
namespace {

using ::testing::HasSubstr;

ModelConfig Untied(ModelConfig model) {
  model.tie_embeddings = false;
  return model;
}
ModelConfig PlainLlama() {
  ModelConfig model = TinyLlama();
  model.qkv_bias = false;
  return model;
}

ModelConfig ScaledLlama(RopeScaling scaling) {
  ModelConfig model = PlainLlama();
  model.rope_scaling = scaling;
  return model;
}

struct Entry {
  std::string name;
  SafetensorsDType dtype = SafetensorsDType::kF32;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

class HuggingFaceTest : public ::testing::Test {
 protected:
  HuggingFaceTest() {
    folder_ = absl::StrCat(::testing::TempDir(), "/",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name());
    EXPECT_TRUE(files_.RemoveAll(folder_).ok());
    EXPECT_TRUE(files_.CreateDirectories(folder_).ok());
  }
  ~HuggingFaceTest() override { files_.RemoveAll(folder_).IgnoreError(); }

  static ParameterLayout Layout(const ModelConfig& model) {
    return *ParameterLayout::Build(DescribeTensors(model).shapes);
  }
  static std::vector<float> Arena(const ModelConfig& model) {
    std::vector<float> arena(Layout(model).arena_elements());
    InitializeArena(Layout(model), DescribeTensors(model).initial, 5, arena.data());
    return arena;
  }

  absl::Status Export(const HuggingFaceExport& description) {
    const ParameterLayout layout = Layout(description.model);
    const std::vector<float> arena = Arena(description.model);
    return WriteHuggingFaceFolder(files_, folder_, description, layout, [&](int tensor, float* values) {
      const TensorInfo& info = layout.tensors()[tensor];
      std::copy_n(arena.begin() + info.arena_offset, info.elements, values);
      return absl::OkStatus();
    });
  }

  absl::StatusOr<std::vector<float>> Load(const ModelConfig& model) {
    std::vector<float> arena(Layout(model).arena_elements(), 99.0f);
    ACCRUE_RETURN_IF_ERROR(LoadHuggingFaceWeights(files_, folder_, Layout(model), arena.data()));
    return arena;
  }

  // The model's tensors as entries of a file, to be spoilt by a test.
  static std::vector<Entry> Entries(const ModelConfig& model) {
    const std::vector<float> arena = Arena(model);
    std::vector<Entry> entries;
    const ParameterLayout layout = Layout(model);
    for (const TensorInfo& info : layout.tensors()) {
      const auto begin = arena.begin() + info.arena_offset;
      entries.push_back({info.name, SafetensorsDType::kF32, info.shape, {begin, begin + info.elements}});
    }
    return entries;
  }

  void Write(const std::string& name, const std::vector<Entry>& entries) {
    std::vector<SafetensorsTensor> tensors;
    for (const Entry& entry : entries) {
      tensors.push_back({.name = entry.name, .dtype = entry.dtype, .shape = entry.shape});
      tensors.back().elements = static_cast<int64_t>(entry.values.size());
    }
    auto writer = *SafetensorsWriter::Create(files_, JoinPath(folder_, name), tensors, {{"format", "pt"}});
    for (const Entry& entry : entries) {
      for (float value : entry.values) {
        const uint16_t bf16 = RoundToBf16(value);
        const bool narrow = entry.dtype == SafetensorsDType::kBF16;
        ASSERT_TRUE((narrow ? writer->Append(&bf16, 2) : writer->Append(&value, 4)).ok());
      }
    }
    ASSERT_TRUE(writer->Finish().ok());
  }

  std::string LoadError(const ModelConfig& model, const std::vector<Entry>& entries) {
    Write("model.safetensors", entries);
    const absl::Status status = Load(model).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  }

  FileSystem& files_ = FileSystem::Real();
  std::string folder_;
};

TEST_F(HuggingFaceTest, WriteHuggingFaceFolder_AnyModel_ReadsBackAsItWas) {
  for (const ModelConfig& model : {TinyGpt2(), Untied(TinyGpt2()), PlainLlama(), TinyLlama(),
                                   ScaledLlama({.kind = RopeScalingKind::kLinear, .factor = 2}),
                                   ScaledLlama({.kind = RopeScalingKind::kLlama3,
                                   .factor = 8,
                                   .low_frequency_factor = 1,
                                   .high_frequency_factor = 4,
                                   .original_context = 16})}) {
    ASSERT_TRUE(Export({.model = model}).ok());
    const auto spec = ReadHuggingFaceConfig(files_, folder_);
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_TRUE(*ModelConfigFromSpec(*spec) == model);
    EXPECT_EQ(*Load(model), Arena(model));
    EXPECT_FALSE(files_.Exists(JoinPath(folder_, "model.safetensors.tmp")));
    EXPECT_EQ(SafetensorsFile::Open(files_, JoinPath(folder_, "model.safetensors"))->metadata().at("format"),
              "pt");
  }
}

TEST_F(HuggingFaceTest, WriteHuggingFaceFolder_TokenizerFiles_AreCopiedAndNamedInConfigs) {
  ASSERT_TRUE(files_.CreateDirectories(JoinPath(folder_, "source")).ok());
  ASSERT_TRUE(files_.WriteAtomically(JoinPath(folder_, "source/vocab.json"), "{}").ok());
  ASSERT_TRUE(Export({.model = TinyGpt2(),
                      .bos_token = 3,
                      .eos_token = 4,
                      .tokenizer_files = {JoinPath(folder_, "source/vocab.json")}})
                  .ok());
  EXPECT_EQ(*files_.ReadAll(JoinPath(folder_, "vocab.json"), 10), "{}");
  for (const char* name : {"config.json", "generation_config.json"}) {
    const auto config = nlohmann::json::parse(*files_.ReadAll(JoinPath(folder_, name), 10000));
    EXPECT_EQ(config["bos_token_id"], 3);
    EXPECT_EQ(config["eos_token_id"], 4);
  }
}

TEST_F(HuggingFaceTest, WriteHuggingFaceFolder_ReaderFails_LeavesNoWeights) {
  const absl::Status status = WriteHuggingFaceFolder(
      files_, folder_, {.model = TinyGpt2()}, Layout(TinyGpt2()),
      [](int tensor, float*) { return absl::DataLossError(absl::StrCat("tensor ", tensor)); });
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(files_.Exists(JoinPath(folder_, "model.safetensors")));
  EXPECT_FALSE(files_.Exists(JoinPath(folder_, "model.safetensors.tmp")));
}

TEST_F(HuggingFaceTest, LoadHuggingFaceWeights_PrefixedNamesAndBuffers_AreTaken) {
  std::vector<Entry> entries = Entries(TinyGpt2());
  for (Entry& entry : entries) entry.name = "transformer." + entry.name;
  entries.push_back({"transformer.h.0.attn.bias", SafetensorsDType::kF32, {1, 1, 2, 2}, {1, 0, 1, 1}});
  entries.push_back({"transformer.h.0.attn.masked_bias", SafetensorsDType::kF32, {}, {-1e4f}});
  Write("model.safetensors", entries);
  EXPECT_EQ(*Load(TinyGpt2()), Arena(TinyGpt2()));
}

TEST_F(HuggingFaceTest, LoadHuggingFaceWeights_Bf16_IsWidened) {
  std::vector<Entry> entries = Entries(TinyGpt2());
  for (Entry& entry : entries) entry.dtype = SafetensorsDType::kBF16;
  Write("model.safetensors", entries);
  std::vector<float> expected = Arena(TinyGpt2());
  for (float& value : expected) value = Bf16ToFloat(RoundToBf16(value));
  EXPECT_EQ(*Load(TinyGpt2()), expected);
}

TEST_F(HuggingFaceTest, LoadHuggingFaceWeights_Shards_AreJoined) {
  const std::vector<Entry> entries = Entries(TinyLlama());
  nlohmann::json index;
  std::vector<Entry> parts[2];
  for (size_t i = 0; i < entries.size(); ++i) {
    parts[i % 2].push_back(entries[i]);
    index["weight_map"][entries[i].name] = absl::StrCat("part-", i % 2, ".safetensors");
  }
  for (int i = 0; i < 2; ++i) Write(absl::StrCat("part-", i, ".safetensors"), parts[i]);
  const std::string path = JoinPath(folder_, "model.safetensors.index.json");
  ASSERT_TRUE(files_.WriteAtomically(path, index.dump()).ok());
  EXPECT_EQ(*Load(TinyLlama()), Arena(TinyLlama()));

  index["weight_map"]["lm_head.weight"] = "../part-0.safetensors";
  ASSERT_TRUE(files_.WriteAtomically(path, index.dump()).ok());
  EXPECT_THAT(std::string(Load(TinyLlama()).status().message()),
              HasSubstr("\"../part-0.safetensors\"; expected the name of a file in the same folder"));
}

TEST_F(HuggingFaceTest, LoadHuggingFaceWeights_WrongTensors_AreNamed) {
  const std::vector<Entry> good = Entries(TinyGpt2());
  std::vector<Entry> entries = good;
  entries.erase(entries.begin() + 1);
  EXPECT_THAT(LoadError(TinyGpt2(), entries), HasSubstr("tensor \"wpe.weight\" is missing"));

  entries = good;
  entries.push_back({"h.9.ln_1.weight", SafetensorsDType::kF32, {1}, {1}});
  EXPECT_THAT(LoadError(TinyGpt2(), entries),
              HasSubstr("tensor \"h.9.ln_1.weight\" is no part of the model"));

  entries = good;
  std::swap(entries[0].shape[0], entries[0].shape[1]);
  EXPECT_THAT(LoadError(TinyGpt2(), entries),
              HasSubstr("tensor \"wte.weight\" has shape [8, 13]; expected [13, 8]"));

  entries = good;
  entries[0].dtype = SafetensorsDType::kI32;
  EXPECT_THAT(LoadError(TinyGpt2(), entries), HasSubstr("has type I32; expected F32, BF16 or F16"));

  entries = good;
  entries.push_back(good[1]);
  entries.back().name = "transformer.wpe.weight";
  EXPECT_THAT(LoadError(TinyGpt2(), entries), HasSubstr("wpe.weight\" is there twice"));
}

TEST_F(HuggingFaceTest, LoadHuggingFaceWeights_HeadBesideTiedTable_MustBeTheTable) {
  std::vector<Entry> entries = Entries(TinyGpt2());
  entries.push_back(entries[0]);
  entries.back().name = "lm_head.weight";
  Write("model.safetensors", entries);
  EXPECT_EQ(*Load(TinyGpt2()), Arena(TinyGpt2()));
  entries.back().values[7] += 1;
  EXPECT_THAT(LoadError(TinyGpt2(), entries),
              HasSubstr("tensor \"lm_head.weight\" differs from \"wte.weight\""));
}

TEST_F(HuggingFaceTest, LoadHuggingFaceWeights_NoWeights_SaysWhatWasSought) {
  const absl::Status status = Load(TinyGpt2()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
}

}  // namespace
}  // namespace accrue
