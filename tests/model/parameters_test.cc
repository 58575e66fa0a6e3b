#include "worker/model/parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/model/model_testing.h"
#include "worker/model/elementary.h"
#include "worker/model/rope.h"

namespace accrue {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Names(const TransformerTensors& tensors) {
  std::vector<std::string> names;
  for (const TensorShape& shape : tensors.shapes) names.push_back(shape.name);
  return names;
}

TEST(DescribeTensors, Gpt2_HasHuggingFaceNamesInForwardOrder) {
  ModelConfig model = TinyGpt2();
  model.layers = 1;
  const TransformerTensors tensors = DescribeTensors(model);
  EXPECT_THAT(
      Names(tensors),
      ElementsAre("wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.0.ln_1.bias", "h.0.attn.c_attn.weight",
                  "h.0.attn.c_attn.bias", "h.0.attn.c_proj.weight", "h.0.attn.c_proj.bias", "h.0.ln_2.weight",
                  "h.0.ln_2.bias", "h.0.mlp.c_fc.weight", "h.0.mlp.c_fc.bias", "h.0.mlp.c_proj.weight",
                  "h.0.mlp.c_proj.bias", "ln_f.weight", "ln_f.bias"));
  EXPECT_THAT(tensors.shapes[4].shape, ElementsAre(8, 24));
  EXPECT_THAT(tensors.shapes[10].shape, ElementsAre(8, 20));
}

TEST(DescribeTensors, Llama_HasHuggingFaceNamesInForwardOrder) {
  ModelConfig model = TinyLlama();
  model.layers = 1;
  const TransformerTensors tensors = DescribeTensors(model);
  EXPECT_THAT(
      Names(tensors),
      ElementsAre("model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                  "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.bias",
                  "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.k_proj.bias",
                  "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.v_proj.bias",
                  "model.layers.0.self_attn.o_proj.weight", "model.layers.0.post_attention_layernorm.weight",
                  "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight",
                  "model.layers.0.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"));
  EXPECT_THAT(tensors.shapes[4].shape, ElementsAre(8, 16));
  EXPECT_THAT(tensors.shapes[12].shape, ElementsAre(16, 12));
}

TEST(InitializeArena, Gpt2_HasStatedDistributions) {
  ModelConfig model = TinyGpt2();
  model.width = 96;
  model.hidden = 401;  // odd, so that a last pair is cut
  const TransformerTensors tensors = DescribeTensors(model);
  const ParameterLayout layout = *ParameterLayout::Build(tensors.shapes);
  std::vector<float> arena(layout.arena_elements(), 99.0f);
  InitializeArena(layout, tensors.initial, 1234, arena.data());
  auto moments = [&](const char* name) {
    const TensorInfo& tensor = layout.tensors()[layout.TensorIndex(name)];
    double sum = 0, square = 0;
    for (int64_t i = 0; i < tensor.elements; ++i) {
      const double value = arena[tensor.arena_offset + i];
      sum += value;
      square += value * value;
    }
    return std::pair(sum / tensor.elements, std::sqrt(square / tensor.elements));
  };
  EXPECT_NEAR(moments("h.0.mlp.c_fc.weight").first, 0, 5e-4);
  EXPECT_NEAR(moments("h.0.mlp.c_fc.weight").second, 0.02, 3e-4);
  EXPECT_NEAR(moments("h.1.mlp.c_proj.weight").second, 0.01, 2e-4);  // 0.02 / sqrt(2 x 2 layers)
  EXPECT_EQ(moments("ln_f.weight"), std::pair(1.0, 1.0));
  EXPECT_EQ(moments("h.0.attn.c_attn.bias"), std::pair(0.0, 0.0));
  EXPECT_NE(arena[layout.tensors()[0].arena_offset], arena[layout.tensors()[1].arena_offset]);
  const TensorInfo& odd = layout.tensors()[layout.TensorIndex("h.0.mlp.c_fc.bias")];
  for (int64_t i = odd.elements; i % kTensorAlignment != 0; ++i) EXPECT_EQ(arena[odd.arena_offset + i], 0.0f);
}

// The bits are a promise: a job's result follows from its seed on any machine.
TEST(InitializeArena, Seed1234_HasFixedBits) {
  const TransformerTensors tensors = DescribeTensors(TinyGpt2());
  const ParameterLayout layout = *ParameterLayout::Build(tensors.shapes);
  std::vector<float> arena(layout.arena_elements());
  InitializeArena(layout, tensors.initial, 1234, arena.data());
  EXPECT_EQ(HashBytes(arena.data(), arena.size() * sizeof(float)).Hex(), "1c0d4747a3cadec796f1a3076d7c7de0");
}

TEST(Elementary, AgainstLibm_IsWithinAFewUlps) {
  for (int i = 1; i < 4000; ++i) {
    const double x = std::ldexp(1 + (i % 97) / 97.0, i % 120 - 60);
    EXPECT_NEAR(PortableLog(x), std::log(x), 1e-15 * std::max(1.0, std::abs(std::log(x)))) << x;
    const double y = (i - 2000) / 7.0;
    EXPECT_NEAR(PortableExp(y) / std::exp(y), 1, 1e-13) << y;
    const double turns = (i - 2000) / 313.0;
    const SineCosine value = PortableSineCosine(turns);
    EXPECT_NEAR(value.sine, std::sin(2 * M_PI * turns), 2e-14) << turns;
    EXPECT_NEAR(value.cosine, std::cos(2 * M_PI * turns), 2e-14) << turns;
  }
}

TEST(MakeRopeTables, Llama3Scaling_KeepsShortWavesAndStretchesLongOnes) {
  ModelConfig model = TinyLlama();
  model.head_size = 64;
  model.rope_theta = 500000;
  const RopeTables plain = MakeRopeTables(model, 2);
  model.rope_scaling = {.kind = RopeScalingKind::kLlama3, .factor = 8, .original_context = 8192};
  const RopeTables scaled = MakeRopeTables(model, 2);
  EXPECT_FLOAT_EQ(scaled.sine[32], plain.sine[32]);  // position 1, frequency 1
  // The slowest wave, of period 2 pi 500000^(62/64), is eight times as long.
  EXPECT_FLOAT_EQ(scaled.sine[63], plain.sine[63] / 8);
  EXPECT_FLOAT_EQ(plain.sine[63], std::sin(std::pow(500000.0, -62.0 / 64)));
  model.rope_scaling = {.kind = RopeScalingKind::kLinear, .factor = 2};
  EXPECT_FLOAT_EQ(MakeRopeTables(model, 3).cosine[2 * 32], plain.cosine[32]);
}

TEST(ValidateModelConfig, ImpossibleValue_NamesFieldAndExpectation) {
  struct {
    void (*change)(ModelConfig&);
    const char* message;
  } const cases[] = {
      {[](ModelConfig& m) { m.vocabulary = 0; }, "model.vocabulary is 0; expected 1 to"},
      {[](ModelConfig& m) { m.heads = 3; }, "model.width is 16; expected a multiple of heads, 3"},
      {[](ModelConfig& m) { m.kv_heads = 3; }, "model.kv_heads is 3; expected a divisor of heads, 4"},
      {[](ModelConfig& m) { m.dropout = 1; }, "model.dropout is 1; expected 0 <= dropout < 1"},
      {[](ModelConfig& m) { m.norm_epsilon = 0; }, "model.norm_epsilon is 0"},
      {[](ModelConfig& m) { m.head_size = 5; }, "heads of an even size"},
      {[](ModelConfig& m) { m.rope_theta = NAN; }, "model.rope_theta is nan"},
      {[](ModelConfig& m) { m.rope_scaling = {.kind = RopeScalingKind::kLlama3, .low_frequency_factor = 4}; },
       "model.rope_scaling.high_freq_factor is 4; expected more than low_freq_factor, 4"},
      {[](ModelConfig& m) { m.layers = 4096, m.width = m.hidden = 1 << 20; }, "parameters; expected at most"},
      {[](ModelConfig& m) { m.architecture = Architecture::kGpt2; }, "gpt2 has no grouped queries"},
  };
  for (const auto& c : cases) {
    ModelConfig model = TinyLlama();
    ASSERT_TRUE(ValidateModelConfig(model).ok());
    c.change(model);
    const absl::Status status = ValidateModelConfig(model);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

}  // namespace
}  // namespace accrue
