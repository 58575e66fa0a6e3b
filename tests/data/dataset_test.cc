// Which tokens a sequence has: docs/numerics.md, section 10.
#include "common/data/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "common/data/data_manifest.h"
#include "common/data/mask.h"
#include "common/permutation.h"
#include "tests/data/data_testing.h"

namespace accrue {
namespace {

using data_testing::LlmcBytes;
using data_testing::MegatronIndexBytes;
using data_testing::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<uint32_t> Count(uint32_t first, uint32_t count) {
  std::vector<uint32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

class DatasetTest : public testing::Test {
 protected:
  std::unique_ptr<Dataset> Open(const std::vector<ShardReference>& shards, const Dataset::Options& options) {
    auto dataset = Dataset::Open(FileSystem::Real(), shards, options);
    EXPECT_TRUE(dataset.ok()) << dataset.status();
    return dataset.ok() ? *std::move(dataset) : nullptr;
  }
  absl::Status OpenError(const std::vector<ShardReference>& shards, const Dataset::Options& options) {
    return Dataset::Open(FileSystem::Real(), shards, options).status();
  }
  // Three shards with tokens 0..16 in turn, the middle one in Megatron's format and an empty one between.
  std::vector<ShardReference> Spanning() {
    std::string megatron;
    for (uint32_t token : Count(4, 6)) data_testing::Append(&megatron, static_cast<uint16_t>(token));
    folder_.Write("b.idx", MegatronIndexBytes({5, 1}, 8));
    return {{.path = folder_.Write("a.bin", LlmcBytes(Count(0, 4)))},
            {.path = folder_.Write("empty.bin", LlmcBytes({}))},
            {.path = folder_.Write("b.bin", megatron)},
            {.path = folder_.Write("c.bin", LlmcBytes(Count(10, 7), 4))}};
  }
  // Examples 10..12, 20, 30..36 with every second token a target.
  ShardReference Masked() {
    std::vector<uint32_t> tokens = Count(10, 3);
    tokens.push_back(20);
    for (uint32_t token : Count(30, 7)) tokens.push_back(token);
    std::vector<uint8_t> mask(11);
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 2;
    ShardReference reference;
    reference.path = folder_.Write("masked.bin", LlmcBytes(tokens));
    reference.mask_path = folder_.Write("masked.mask", MaskSidecar::Encode({0, 3, 4, 11}, mask));
    return reference;
  }

  TemporaryFolder folder_;
};

TEST_F(DatasetTest, Read_SequencesSpanShards_GivesConcatenatedTokens) {
  for (const int64_t length : {1, 2, 3, 5, 8, 16}) {
    const auto dataset = Open(Spanning(), {.sequence_length = length});
    EXPECT_EQ(dataset->tokens(), 17);
    ASSERT_EQ(dataset->sequences(), 16 / length);
    for (int64_t i = 0; i < dataset->sequences(); ++i) {
      std::vector<int32_t> tokens(length, -7), targets(length, -7);
      dataset->Read(i, tokens.data(), targets.data());
      for (int64_t t = 0; t < length; ++t) {
        EXPECT_EQ(tokens[t], i * length + t);
        EXPECT_EQ(targets[t], i * length + t + 1);
      }
    }
  }
}

TEST_F(DatasetTest, RangesOf_SequencesSpanShards_AgreesWithRead) {
  const std::vector<ShardReference> shards = Spanning();
  const auto dataset = Open(shards, {.sequence_length = 5});
  for (int64_t i = 0; i < dataset->sequences(); ++i) {
    std::vector<int32_t> expected(6), tokens(5), targets(5);
    dataset->Read(i, tokens.data(), targets.data());
    std::vector<int32_t> from_ranges;
    for (const Dataset::Range& range : dataset->RangesOf(i)) {
      EXPECT_GT(range.count, 0);
      const auto shard = Shard::Open(FileSystem::Real(), shards[range.shard].path);
      ASSERT_TRUE(shard.ok());
      std::vector<int32_t> part(range.count);
      (*shard)->Copy(range.first_token, range.count, part.data());
      from_ranges.insert(from_ranges.end(), part.begin(), part.end());
    }
    tokens.push_back(targets.back());
    EXPECT_EQ(from_ranges, tokens);
  }
  EXPECT_EQ(dataset->RangesOf(1).size(), 2u);  // tokens 5..10: the last of b and the first of c
}

TEST_F(DatasetTest, Open_TailShorterThanASequence_IsDropped) {
  const std::vector<ShardReference> shards = {{.path = folder_.Write("a.bin", LlmcBytes(Count(0, 12)))}};
  EXPECT_EQ(Open(shards, {.sequence_length = 4})->sequences(), 2);  // 11 targets
  EXPECT_EQ(Open(shards, {.sequence_length = 11})->sequences(), 1);
  const absl::Status status = OpenError(shards, {.sequence_length = 12});
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(
      std::string(status.message()),
      HasSubstr("too little data: 12 tokens in 1 shards, expected at least 13 (sequence_length + 1)"));
}

TEST_F(DatasetTest, SequenceAt_Sequential_CountsThroughEpochs) {
  const auto dataset = Open(Spanning(), {.sequence_length = 5, .order = DataOrder::kSequential});
  ASSERT_EQ(dataset->sequences(), 3);
  EXPECT_EQ(dataset->SequenceAt(0), 0);
  EXPECT_EQ(dataset->SequenceAt(2), 2);
  EXPECT_EQ(dataset->SequenceAt(3), 0);
  EXPECT_EQ(dataset->SequenceAt(3'000'000'001), 1);
}

TEST_F(DatasetTest, SequenceAt_Shuffled_CoversEveryEpochOnceInAnotherOrder) {
  const std::vector<ShardReference> shards = {{.path = folder_.Write("a.bin", LlmcBytes(Count(0, 1001)))}};
  const auto dataset = Open(shards, {.sequence_length = 1, .seed = 5});
  const auto other_seed = Open(shards, {.sequence_length = 1, .seed = 6});
  std::vector<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> order;
    for (int64_t s = 0; s < 1000; ++s) {
      order.push_back(dataset->SequenceAt(epoch * 1000 + s));
      EXPECT_EQ(order.back(), static_cast<int64_t>(Permutation(1000, 5, epoch)(s)));
    }
    EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), 1000u);
    EXPECT_EQ(*std::max_element(order.begin(), order.end()), 999);
    orders.push_back(order);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
  std::vector<int64_t> other;
  for (int64_t s = 0; s < 1000; ++s) other.push_back(other_seed->SequenceAt(s));
  EXPECT_NE(orders[0], other);
}

TEST_F(DatasetTest, Read_Masked_OneExampleASequence) {
  const auto dataset = Open({Masked(), Masked()}, {.sequence_length = 4});
  ASSERT_TRUE(dataset->masked());
  ASSERT_EQ(dataset->sequences(), 6);
  const auto read = [&](int64_t sequence) {
    std::vector<int32_t> both(8, -7);
    dataset->Read(sequence, both.data(), both.data() + 4);
    return both;
  };
  for (const int64_t copy : {0, 3}) {
    EXPECT_THAT(read(copy + 0), ElementsAre(10, 11, 12, 0, 11, -1, -1, -1));   // padded
    EXPECT_THAT(read(copy + 1), ElementsAre(20, 0, 0, 0, -1, -1, -1, -1));     // nothing to predict
    EXPECT_THAT(read(copy + 2), ElementsAre(30, 31, 32, 33, 31, -1, 33, -1));  // cut after T + 1
  }
  const auto ranges = dataset->RangesOf(5);
  ASSERT_EQ(ranges.size(), 1u);
  EXPECT_EQ(ranges[0].shard, 1);
  EXPECT_EQ(ranges[0].first_token, 4);
  EXPECT_EQ(ranges[0].count, 5);
  EXPECT_EQ(dataset->RangesOf(0)[0].count, 3);
}

TEST_F(DatasetTest, Open_MasksForSomeShardsOnly_IsRefused) {
  const absl::Status status = OpenError({Masked(), Spanning()[0]}, {.sequence_length = 2});
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("expected masks for all shards of a data set, or for none"));
}

TEST_F(DatasetTest, Open_ShardDiffersFromPin_GivesBothHashes) {
  const std::string path = folder_.Write("a.bin", LlmcBytes(Count(0, 9)));
  const auto pin = PinShard(FileSystem::Real(), path);
  ASSERT_TRUE(pin.ok()) << pin.status();
  EXPECT_TRUE(OpenError({*pin}, {.sequence_length = 2}).ok());
  folder_.Write("a.bin", LlmcBytes(Count(1, 9)));
  const std::string found = *HashFile(FileSystem::Real(), path);
  absl::Status status = OpenError({*pin}, {.sequence_length = 2});
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_EQ(status.message(), path + ": expected XXH3-128 " + pin->xxh3_128 +
                                  " (as pinned by the job), found " + found +
                                  "; the file has changed, or this is another copy");
  folder_.Write("a.bin", "gone");
  status = OpenError({*pin}, {.sequence_length = 2});
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected 1042 bytes, XXH3-128 " + pin->xxh3_128));
  EXPECT_THAT(std::string(status.message()), HasSubstr("found 4 bytes, XXH3-128 "));
}

TEST_F(DatasetTest, Open_MaskDiffersFromPin_IsRefused) {
  ShardReference reference = Masked();
  reference.mask_xxh3_128 = std::string(32, '0');
  EXPECT_TRUE(absl::IsFailedPrecondition(OpenError({reference}, {.sequence_length = 2})));
}

TEST_F(DatasetTest, Open_SeveralBadShards_ReportsTheFirst) {
  std::vector<ShardReference> shards = Spanning();
  shards[0].path = folder_.Write("bad.bin", LlmcBytes({1, 2, 99}));
  shards[3].path = folder_ / "none.bin";
  const absl::Status status = OpenError(shards, {.sequence_length = 2, .vocabulary = 50});
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("bad.bin: token 2 is 99, expected below 50"));
  EXPECT_TRUE(absl::IsInvalidArgument(OpenError({}, {.sequence_length = 2})));
}

TEST_F(DatasetTest, PinShard_ManifestBesideIt_AddsTheMask) {
  const ShardReference masked = Masked();
  DataManifest manifest;
  manifest.tokenizer = "bytes";
  manifest.tokenizer_directory = "tokenizer";
  manifest.shards.push_back({.name = "masked.bin",
                             .split = "train",
                             .size_bytes = *FileSystem::Real().SizeBytes(masked.path),
                             .xxh3_128 = *HashFile(FileSystem::Real(), masked.path),
                             .mask_name = "masked.mask",
                             .mask_xxh3_128 = *HashFile(FileSystem::Real(), masked.mask_path)});
  folder_.Write("manifest.json", DataManifestToJson(manifest));
  const auto pin = PinShard(FileSystem::Real(), masked.path);
  ASSERT_TRUE(pin.ok()) << pin.status();
  EXPECT_EQ(pin->mask_path, masked.mask_path);
  EXPECT_EQ(pin->mask_xxh3_128, manifest.shards[0].mask_xxh3_128);
  EXPECT_EQ(TokenizerDirectoryOf(FileSystem::Real(), masked.path), folder_ / "tokenizer");
  folder_.Write("masked.mask", "changed");
  EXPECT_TRUE(absl::IsFailedPrecondition(PinShard(FileSystem::Real(), masked.path).status()));
  folder_.Write("masked.bin", LlmcBytes({1}));
  EXPECT_TRUE(absl::IsFailedPrecondition(PinShard(FileSystem::Real(), masked.path).status()));
  // A shard that the manifest does not name is pinned as it is.
  EXPECT_TRUE(PinShard(FileSystem::Real(), folder_.Write("other.bin", LlmcBytes({1, 2}))).ok());
}

}  // namespace
}  // namespace accrue
