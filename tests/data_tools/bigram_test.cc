#include "common/data_tools/bigram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "common/data/mask.h"
#include "tests/data/data_testing.h"

namespace accrue {
namespace {

using data_testing::LlmcBytes;
using data_testing::TemporaryFolder;
using Pairs = std::vector<std::pair<uint32_t, uint32_t>>;

std::vector<uint32_t> RandomTokens(int count, int vocabulary, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> tokens;
  uint32_t token = 0;
  for (int i = 0; i < count; ++i) {
    token = (token * 3 + random() % 4) % static_cast<uint32_t>(vocabulary);
    tokens.push_back(token);
  }
  return tokens;
}

Pairs PairsOf(const std::vector<uint32_t>& tokens) {
  Pairs pairs;
  for (size_t i = 1; i < tokens.size(); ++i) pairs.emplace_back(tokens[i - 1], tokens[i]);
  return pairs;
}

// The formula of bigram.h, straight.
double NaiveLoss(const Pairs& train, const Pairs& test, double vocabulary, double k) {
  std::map<std::pair<uint32_t, uint32_t>, double> pairs;
  std::map<uint32_t, double> firsts, seconds;
  for (const auto& [a, b] : train) ++pairs[{a, b}], ++firsts[a], ++seconds[b];
  double loss = 0;
  for (const auto& [a, b] : test) {
    const double unigram = (seconds[b] + 1) / (static_cast<double>(train.size()) + vocabulary);
    loss -= std::log((pairs[{a, b}] + k * unigram) / (firsts[a] + k));
  }
  return loss / static_cast<double>(test.size());
}

TEST(BigramTest, BigramLoss_RandomTokens_AgreesWithTheFormula) {
  TemporaryFolder folder;
  const std::vector<uint32_t> train = RandomTokens(5000, 40, 1), validation = RandomTokens(700, 40, 2);
  const std::vector<uint32_t> first(train.begin(), train.begin() + 1234),
      second(train.begin() + 1234, train.end());
  const std::vector<ShardReference> train_shards = {{.path = folder.Write("a.bin", LlmcBytes(first))},
                                                    {.path = folder.Write("b.bin", LlmcBytes(second))}};
  const auto result = BigramLoss(FileSystem::Real(), train_shards,
                                 {{.path = folder.Write("v.bin", LlmcBytes(validation))}}, 40);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->train_pairs, 4999);  // shards are one stream
  EXPECT_EQ(result->validation_pairs, 699);
  EXPECT_NEAR(result->loss, NaiveLoss(PairsOf(train), PairsOf(validation), 40, result->k), 1e-12);
  // k is the best of its kind on the pairs that were held out for it.
  Pairs counted, held_out;
  const Pairs pairs = PairsOf(train);
  const size_t run = pairs.size() / (20 * 16);
  for (size_t i = 0; i < pairs.size(); ++i) (i / run % 20 == 19 ? held_out : counted).push_back(pairs[i]);
  for (int log2 = -3; log2 <= 14; ++log2) {
    EXPECT_GE(NaiveLoss(counted, held_out, 40, std::ldexp(1.0, log2)) + 1e-12,
              NaiveLoss(counted, held_out, 40, result->k));
  }
  const auto guessed = BigramLoss(FileSystem::Real(), train_shards, {{.path = folder / "v.bin"}}, 0);
  EXPECT_EQ(guessed->vocabulary, 40);
}

TEST(BigramTest, BigramLoss_Masked_CountsTargetsWithinExamples) {
  TemporaryFolder folder;
  std::vector<uint32_t> tokens;
  std::vector<uint64_t> offsets = {0};
  std::vector<uint8_t> mask;
  Pairs expected;
  std::mt19937 random(4);
  for (int example = 0; example < 50; ++example) {
    const std::vector<uint32_t> part = RandomTokens(1 + static_cast<int>(random() % 9), 20, random());
    for (size_t i = 0; i < part.size(); ++i) {
      mask.push_back(random() % 2);
      if (i > 0 && mask.back() != 0) expected.emplace_back(part[i - 1], part[i]);
      tokens.push_back(part[i]);
    }
    offsets.push_back(tokens.size());
  }
  ShardReference shard;
  shard.path = folder.Write("a.bin", LlmcBytes(tokens));
  shard.mask_path = folder.Write("a.mask", MaskSidecar::Encode(offsets, mask));
  const auto result = BigramLoss(FileSystem::Real(), {shard}, {shard}, 20);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->train_pairs, static_cast<int64_t>(expected.size()));
  EXPECT_NEAR(result->loss, NaiveLoss(expected, expected, 20, result->k), 1e-12);
}

TEST(BigramTest, BigramLoss_TooLittleData_SaysSo) {
  TemporaryFolder folder;
  const ShardReference few{.path = folder.Write("few.bin", LlmcBytes({1, 2, 3}))};
  const ShardReference many{.path = folder.Write("many.bin", LlmcBytes(RandomTokens(100, 9, 1)))};
  const ShardReference one{.path = folder.Write("one.bin", LlmcBytes({1}))};
  EXPECT_EQ(BigramLoss(FileSystem::Real(), {few}, {many}, 9).status().message(),
            "expected at least 20 pairs of training tokens for a bigram model, found 2");
  EXPECT_EQ(BigramLoss(FileSystem::Real(), {many}, {one}, 9).status().message(),
            "the validation part has no pair of tokens");
  EXPECT_TRUE(absl::IsInvalidArgument(BigramLoss(FileSystem::Real(), {many}, {few}, 3).status()));
  EXPECT_TRUE(absl::IsNotFound(BigramLossOfFolder(FileSystem::Real(), folder.path()).status()));
}

}  // namespace
}  // namespace accrue
