// What is kept of a layer at each recompute level: docs/memory.md gives these formulas.
#include "worker/model/activations.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace accrue {
namespace {

constexpr int64_t kBatch = 4, kLength = 64, kTokens = kBatch * kLength;

ModelConfig Gpt2() {
  return {.architecture = Architecture::kGpt2,
          .vocabulary = 1000,
          .context = 64,
          .layers = 12,
          .heads = 8,
          .kv_heads = 8,
          .width = 256,
          .hidden = 1024};
}

ModelConfig Llama() {
  return {.architecture = Architecture::kLlama,
          .vocabulary = 1000,
          .context = 64,
          .layers = 12,
          .heads = 8,
          .kv_heads = 2,
          .head_size = 48,
          .width = 256,
          .hidden = 704};
}

// Bytes that one layer more takes, per token.
int64_t BytesOfLayer(ModelConfig model, DType precision, Recompute recompute) {
  const int64_t before = PlanTraining(model, precision, kBatch, kLength, recompute).size_bytes;
  ++model.layers;
  const int64_t bytes = PlanTraining(model, precision, kBatch, kLength, recompute).size_bytes - before;
  EXPECT_EQ(bytes % kTokens, 0);
  return bytes / kTokens;
}

// The head's weight crosses memory once a chunk, its gradient twice: docs/numerics.md, section 4, has the rule.
TEST(PlanTraining, HeadRows_FewChunksOfLogitsThatNeverExistWhole) {
  ModelConfig model = Gpt2();
  const auto rows = [&](int64_t vocabulary, int64_t batch, int64_t length) {
    model.vocabulary = vocabulary;
    model.context = length;
    return PlanTraining(model, DType::kBF16, batch, length, Recompute::kNone).head_rows;
  };
  EXPECT_EQ(rows(50257, 1, 100), 100);      // the whole unit
  EXPECT_EQ(rows(50257, 4, 256), 256);      // the least
  EXPECT_EQ(rows(8192, 8, 256), 1024);      // 32 MiB of binary32 logits
  EXPECT_EQ(rows(50257, 32, 1024), 4096);   // an eighth
  EXPECT_EQ(rows(50257, 33, 1000), 4160);   // rounded up
}

TEST(PlanTraining, OneLayerMore_TakesWhatItsLevelKeeps) {
  for (const ModelConfig& model : {Gpt2(), Llama()}) {
    for (const DType precision : {DType::kF32, DType::kBF16, DType::kF16}) {
      const int64_t e = SizeOf(precision), C = model.width, Q = model.heads * model.HeadSize(),
                    H = model.hidden;
      const int64_t K = model.kv_heads * model.HeadSize();
      const int64_t G =
          model.architecture == Architecture::kLlama ? 2 : 1;  // matrices before the activation function
      const auto bytes = [&](Recompute recompute) { return BytesOfLayer(model, precision, recompute); };
      EXPECT_EQ(bytes(Recompute::kNone), e * (4 * C + 2 * Q + 2 * K + (G + 1) * H) + 16 + 4 * model.heads);
      EXPECT_EQ(bytes(Recompute::kNorms), e * (2 * C + 2 * Q + 2 * K + G * H) + 4 * model.heads);
      EXPECT_EQ(bytes(Recompute::kAttention), e * (2 * C + G * H));
      EXPECT_EQ(bytes(Recompute::kBlock), e * C);
    }
  }
}

TEST(PlanTraining, WhatIsDropped_IsHeldOnce) {
  for (const ModelConfig& model : {Gpt2(), Llama()}) {
    for (const DType precision : {DType::kF32, DType::kBF16, DType::kF16}) {
      const int64_t e = SizeOf(precision), C = model.width, Q = model.heads * model.HeadSize(),
                    H = model.hidden;
      const int64_t K = model.kv_heads * model.HeadSize(),
                    G = model.architecture == Architecture::kLlama ? 2 : 1;
      // Of a token, beyond what the layers keep.
      const auto others = [&](Recompute recompute) {
        const int64_t bytes = PlanTraining(model, precision, kBatch, kLength, recompute).size_bytes;
        return bytes / kTokens - model.layers * BytesOfLayer(model, precision, recompute);
      };
      const auto once = [&](Recompute recompute) { return others(recompute) - others(Recompute::kNone); };
      EXPECT_EQ(once(Recompute::kNorms), e * (C + H) + 8);
      EXPECT_EQ(once(Recompute::kAttention),
                std::max(e * (C + H) + 8, e * (C + 2 * Q + 2 * K) + 8 + 4 * model.heads));
      EXPECT_EQ(once(Recompute::kBlock), e * (3 * C + 2 * Q + 2 * K + (G + 1) * H) + 16 + 4 * model.heads);
    }
  }
}

TEST(PlanForward, OneLayerMore_TakesNothing) {
  ModelConfig model = Gpt2();
  const int64_t before = PlanForward(model, DType::kF32, kBatch, kLength).size_bytes;
  ++model.layers;
  EXPECT_EQ(PlanForward(model, DType::kF32, kBatch, kLength).size_bytes, before);
  EXPECT_LT(before, PlanTraining(model, DType::kF32, kBatch, kLength, Recompute::kBlock).size_bytes);
}

}  // namespace
}  // namespace accrue
