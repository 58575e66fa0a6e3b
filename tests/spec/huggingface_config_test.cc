// Shapes from config.json files: those of released models, variants that must be refused, and hostile text.
#include "common/spec/huggingface_config.h"

#include <cstdlib>
#include <string>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace accrue {
namespace {

using ::testing::HasSubstr;

class HuggingFaceConfigTest : public ::testing::Test {
 protected:
  HuggingFaceConfigTest() {
    char name[] = "/tmp/accrue-config-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~HuggingFaceConfigTest() override { FileSystem::Real().RemoveAll(folder_).IgnoreError(); }

  absl::StatusOr<v1::ModelSpec> Read(absl::string_view text) {
    EXPECT_TRUE(FileSystem::Real().WriteAtomically(JoinPath(folder_, "config.json"), text).ok());
    return ReadHuggingFaceConfig(FileSystem::Real(), folder_);
  }
  // The message without the folder's name.
  std::string ErrorOf(absl::string_view text) {
    const absl::Status status = Read(text).status();
    return absl::StrReplaceAll(status.message(), {{folder_ + "/", ""}});
  }

  std::string folder_;
};

constexpr char kGpt2[] = R"({"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
  "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_inner": null,
  "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "vocab_size": 50257})";
constexpr char kLlama[] =
    R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false, "hidden_act": "silu",
  "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings": 2048, "model_type": "llama",
  "num_attention_heads": 32, "num_hidden_layers": 22, "num_key_value_heads": 4, "rms_norm_eps": 1e-05,
  "rope_scaling": null, "rope_theta": 500000.0, "tie_word_embeddings": false, "vocab_size": 32000})";

TEST_F(HuggingFaceConfigTest, Gpt2_Shape) {
  const absl::StatusOr<v1::ModelSpec> model = Read(kGpt2);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->architecture(), "gpt2");
  EXPECT_EQ(model->vocabulary(), 50257);
  EXPECT_EQ(model->context(), 1024);
  EXPECT_EQ(model->layers(), 12);
  EXPECT_EQ(model->heads(), 12);
  EXPECT_EQ(model->width(), 768);
  EXPECT_EQ(model->hidden(), 3072);
  EXPECT_TRUE(model->tie_embeddings());
  EXPECT_EQ(model->norm_epsilon(), 1e-5);
  EXPECT_FALSE(model->has_dropout());
}

TEST_F(HuggingFaceConfigTest, Llama_Shape) {
  const absl::StatusOr<v1::ModelSpec> model = Read(kLlama);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->architecture(), "llama");
  EXPECT_EQ(model->kv_heads(), 4);
  EXPECT_EQ(model->hidden(), 5632);
  EXPECT_EQ(model->rope_theta(), 500000);
  EXPECT_FALSE(model->tie_embeddings());
  EXPECT_FALSE(model->qkv_bias());
}

TEST_F(HuggingFaceConfigTest, NewerRopeParameters_ThetaRead) {
  const absl::StatusOr<v1::ModelSpec> model = Read(absl::StrReplaceAll(
      kLlama, {{"\"rope_scaling\": null, \"rope_theta\": 500000.0",
                "\"rope_parameters\": {\"rope_theta\": 250000.0, \"rope_type\": \"default\"}"}}));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->rope_theta(), 250000);
}

TEST_F(HuggingFaceConfigTest, RopeScaling_Read) {
  const absl::StatusOr<v1::ModelSpec> model = Read(absl::StrReplaceAll(
      kLlama, {{"\"rope_scaling\": null",
                "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 32.0, \"low_freq_factor\": 1.0, "
                "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}"}}));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->rope_scaling().type(), "llama3");
  EXPECT_EQ(model->rope_scaling().factor(), 32);
  EXPECT_EQ(model->rope_scaling().low_freq_factor(), 1);
  EXPECT_EQ(model->rope_scaling().high_freq_factor(), 4);
  EXPECT_EQ(model->rope_scaling().original_max_position_embeddings(), 8192);
  EXPECT_EQ(ErrorOf(absl::StrReplaceAll(
                kLlama, {{"\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"linear\"}"}})),
            "config.json: rope_scaling.factor: expected a number, found null");
}

TEST_F(HuggingFaceConfigTest, MistralWithWindow_ContextIsTheWindow) {
  const absl::StatusOr<v1::ModelSpec> model =
      Read(absl::StrReplaceAll(kLlama, {{"LlamaForCausalLM", "MistralForCausalLM"},
                                        {"\"attention_bias\": false", "\"sliding_window\": 512"}}));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->context(), 512);
}

TEST_F(HuggingFaceConfigTest, Qwen2_HasQkvBias) {
  const absl::StatusOr<v1::ModelSpec> model = Read(absl::StrReplaceAll(
      kLlama, {{"LlamaForCausalLM", "Qwen2ForCausalLM"},
               {"\"attention_bias\": false", "\"use_sliding_window\": false, \"sliding_window\": 512"}}));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->qkv_bias());
  EXPECT_EQ(model->context(), 2048);
}

TEST_F(HuggingFaceConfigTest, OtherArchitecture_RefusedByNameWithTheList) {
  EXPECT_EQ(ErrorOf(R"({"architectures": ["BertForMaskedLM"]})"),
            "config.json: architecture \"BertForMaskedLM\" is not supported; supported are GPT2LMHeadModel, "
            "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM");
  EXPECT_EQ(Read(R"({"architectures": ["BertForMaskedLM"]})").status().code(),
            absl::StatusCode::kUnimplemented);
}

TEST_F(HuggingFaceConfigTest, VariantsThatWouldBeWrong_Refused) {
  EXPECT_EQ(ErrorOf(absl::StrReplaceAll(
                kLlama, {{"\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"yarn\"}"}})),
            "rope_scaling.rope_type is \"yarn\"; linear and llama3 are supported");
  EXPECT_EQ(ErrorOf(absl::StrReplaceAll(kLlama, {{"\"attention_bias\": false", "\"attention_bias\": true"}})),
            "config.json: attention_bias is true; only false is supported");
  EXPECT_EQ(ErrorOf(absl::StrReplaceAll(kLlama, {{"\"silu\"", "\"gelu\""}})),
            "config.json: hidden_act is \"gelu\"; only \"silu\" is supported");
  EXPECT_EQ(ErrorOf(absl::StrReplaceAll(kLlama, {{"\"attention_bias\": false", "\"head_dim\": 128"}})),
            "config.json: head_dim is 128; only 64 is supported");
  EXPECT_EQ(ErrorOf(absl::StrReplaceAll(kGpt2, {{"gelu_new", "relu"}})),
            "config.json: activation_function is \"relu\"; only \"gelu_new\" is supported");
}

TEST_F(HuggingFaceConfigTest, BadValues_FieldAndExpectation) {
  EXPECT_EQ(ErrorOf(absl::StrReplaceAll(kGpt2, {{"\"n_layer\": 12", "\"n_layer\": \"12\""}})),
            "config.json: n_layer: expected an integer from 1 to 2147483647, found \"12\"");
  EXPECT_EQ(ErrorOf(absl::StrReplaceAll(kGpt2, {{"\"n_layer\": 12,", ""}})),
            "config.json: n_layer: expected an integer, found nothing");
  EXPECT_EQ(ErrorOf(absl::StrReplaceAll(kGpt2, {{"\"n_embd\": 768", "\"n_embd\": 99999999999"}})),
            "config.json: n_embd: expected an integer from 1 to 2147483647, found 99999999999");
  EXPECT_EQ(ErrorOf(absl::StrReplaceAll(kLlama, {{"1e-05", "[]"}})),
            "config.json: rms_norm_eps: expected a number, found []");
}

TEST_F(HuggingFaceConfigTest, HostileText_Refused) {
  EXPECT_EQ(ErrorOf(""), "config.json: expected a JSON object, found text that is not JSON");
  EXPECT_EQ(ErrorOf("[1]"), "config.json: expected a JSON object, found array");
  EXPECT_EQ(ErrorOf("{}"), "config.json: architectures: expected a list of one name, found nothing");
  EXPECT_EQ(ErrorOf(std::string(500000, '[')),
            "config.json: expected a JSON object, found text that is not JSON");
  EXPECT_EQ(Read(std::string(3 << 20, ' ')).status().code(), absl::StatusCode::kResourceExhausted);
  const std::string text = kLlama;
  for (size_t length = 0; length < text.size(); length += 3) EXPECT_FALSE(Read(text.substr(0, length)).ok());
}

TEST_F(HuggingFaceConfigTest, NoFile_NotFound) {
  EXPECT_EQ(ReadHuggingFaceConfig(FileSystem::Real(), folder_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(HuggingFaceConfigTest, CompleteModel_KeepsFromAndDropout) {
  ASSERT_TRUE(Read(kGpt2).ok());
  v1::ModelSpec model;
  model.set_from("weights");
  model.set_dropout(0.25);
  ASSERT_TRUE(CompleteModel(FileSystem::Real(), folder_, model).ok());
  EXPECT_EQ(model.from(), "weights");
  EXPECT_EQ(model.dropout(), 0.25);
  EXPECT_EQ(model.width(), 768);
}

}  // namespace
}  // namespace accrue
