// The shard formats, and every way in which a file can contradict itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "common/data/dataset.h"
#include "common/data/mask.h"
#include "tests/data/data_testing.h"

namespace accrue {
namespace {

using data_testing::Append;
using data_testing::LlmcBytes;
using data_testing::MegatronIndexBytes;
using data_testing::Patch;
using data_testing::TemporaryFolder;

class ShardFormatTest : public testing::Test {
 protected:
  // The message of InspectShard, without the folder.
  std::string ErrorOf(const std::string& name, const std::string& bytes) {
    const auto info = InspectShard(FileSystem::Real(), folder_.Write(name, bytes));
    if (info.ok()) return "OK";
    EXPECT_TRUE(absl::IsInvalidArgument(info.status())) << info.status();
    return Shorten(info.status());
  }
  std::string Shorten(const absl::Status& status) {
    std::string message(status.message());
    for (size_t at; (at = message.find(folder_.path() + "/")) != std::string::npos;) {
      message.erase(at, folder_.path().size() + 1);
    }
    return message;
  }

  TemporaryFolder folder_;
};

TEST_F(ShardFormatTest, InspectShard_LlmcUint16_SaysFormatAndTokens) {
  const auto info = InspectShard(FileSystem::Real(), folder_.Write("a.bin", LlmcBytes({1, 2, 65535})));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->format, "llm.c v1 uint16");
  EXPECT_EQ(info->tokens, 3);
  EXPECT_EQ(info->size_bytes, 1030u);
}

TEST_F(ShardFormatTest, InspectShard_LlmcUint32_SaysFormatAndTokens) {
  const auto info = InspectShard(FileSystem::Real(), folder_.Write("a.bin", LlmcBytes({1, 2, 100000}, 4)));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->format, "llm.c v7 uint32");
  EXPECT_EQ(info->tokens, 3);
}

TEST_F(ShardFormatTest, InspectShard_Megatron_SaysFormatAndTokens) {
  folder_.Write("a.idx", MegatronIndexBytes({2, 1}, 8));
  auto info = InspectShard(FileSystem::Real(), folder_.Write("a.bin", std::string("\1\0\2\0\3\0", 6)));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->format, "megatron uint16");
  EXPECT_EQ(info->tokens, 3);
  folder_.Write("b.idx", MegatronIndexBytes({1}, 4));
  info = InspectShard(FileSystem::Real(), folder_.Write("b.bin", std::string("\1\0\2\0", 4)));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->format, "megatron int32");
  EXPECT_EQ(info->tokens, 1);
}

TEST_F(ShardFormatTest, InspectShard_BadLlmc_SaysWhatWasExpected) {
  EXPECT_EQ(ErrorOf("a.bin", ""), "a.bin: expected a token shard of at least 1024 bytes, found 0");
  EXPECT_EQ(ErrorOf("a.bin", std::string(1023, '\0')),
            "a.bin: expected a token shard of at least 1024 bytes, found 1023");
  EXPECT_EQ(
      ErrorOf("a.bin", std::string(2000, '\0')),
      "a.bin: expected magic number 20240520 or 20240801 (llm.c), or an .idx beside it (Megatron), found 0");
  const std::string good = LlmcBytes({1, 2, 3});
  std::string bad = good;
  Patch<int32_t>(&bad, 4, 2);
  EXPECT_EQ(ErrorOf("a.bin", bad), "a.bin: expected version 1 for magic number 20240520, found 2");
  bad = good;
  Patch<int32_t>(&bad, 0, 20240801);
  EXPECT_EQ(ErrorOf("a.bin", bad), "a.bin: expected version 7 for magic number 20240801, found 1");
  bad = good;
  Patch<int32_t>(&bad, 8, -1);
  EXPECT_EQ(ErrorOf("a.bin", bad), "a.bin: the header says -1 tokens, which is negative");
  bad = good;
  Patch<int32_t>(&bad, 8, INT32_MAX);
  EXPECT_EQ(ErrorOf("a.bin", bad),
            "a.bin: the header says 2147483647 tokens, so expected 4294968318 bytes, found 1030; the file is "
            "truncated");
  EXPECT_EQ(ErrorOf("a.bin", good + "x"),
            "a.bin: the header says 3 tokens, so expected 1030 bytes, found 1031");
  EXPECT_EQ(ErrorOf("a.bin", good.substr(0, 1029)),
            "a.bin: the header says 3 tokens, so expected 1030 bytes, found 1029; the file is truncated");
}

TEST_F(ShardFormatTest, InspectShard_BadMegatron_SaysWhatWasExpected) {
  const std::string tokens("\1\0\2\0\3\0", 6);
  const auto error = [&](const std::string& index) {
    folder_.Write("m.idx", index);
    return ErrorOf("m.bin", tokens);
  };
  const std::string good = MegatronIndexBytes({2, 1}, 8);
  EXPECT_EQ(error(good), "OK");
  EXPECT_EQ(error(""), "m.idx: expected a Megatron index of at least 34 bytes, found 0");
  EXPECT_EQ(error(std::string(100, 'x')),
            "m.idx: expected a Megatron index that begins with MMIDIDX, found other bytes");
  std::string bad = good;
  Patch<uint64_t>(&bad, 9, 2);
  EXPECT_EQ(error(bad), "m.idx: expected Megatron index version 1, found 2");
  bad = good;
  Patch<uint8_t>(&bad, 17, 7);
  EXPECT_EQ(error(bad), "m.idx: expected token type 4 (int32) or 8 (uint16), found 7");
  bad = good;
  Patch<uint64_t>(&bad, 18, uint64_t{1} << 62);
  EXPECT_EQ(error(bad),
            "m.idx: the header says 4611686018427387904 sequences and 2 document bounds, which 74 bytes "
            "contradict; is the file truncated?");
  EXPECT_EQ(error(good.substr(0, good.size() - 1)),
            "m.idx: the header says 2 sequences and 2 document bounds, which 73 bytes contradict; is the "
            "file truncated?");
  bad = good;
  Patch<int32_t>(&bad, 34, -2);
  EXPECT_EQ(error(bad), "m.idx: sequence 0 has the negative length -2");
  bad = good;
  Patch<int64_t>(&bad, 50, 2);
  EXPECT_EQ(error(bad),
            "m.idx: sequence 1 begins at byte 2, expected 4: only sequences that lie one after the other "
            "are read");
  EXPECT_EQ(error(MegatronIndexBytes({2, 2}, 8)),
            "m.idx: its sequences take 8 bytes, but m.bin has 6; do the two belong together?");
  EXPECT_EQ(ErrorOf("x.idx", good),
            "x.idx is an index: name the .bin beside it, the index is found from there");
}

TEST_F(ShardFormatTest, InspectShard_MissingFileOrFolder_NamesThePath) {
  EXPECT_TRUE(absl::IsNotFound(InspectShard(FileSystem::Real(), folder_ / "none.bin").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(InspectShard(FileSystem::Real(), folder_.path()).status()));
}

TEST_F(ShardFormatTest, CheckTokens_TokenBeyondVocabulary_NamesItsPlace) {
  std::vector<uint32_t> tokens(10000, 7);
  tokens[9001] = 300;
  tokens[9500] = 301;
  auto shard = Shard::Open(FileSystem::Real(), folder_.Write("a.bin", LlmcBytes(tokens)));
  ASSERT_TRUE(shard.ok());
  EXPECT_TRUE((*shard)->CheckTokens(302).ok());
  EXPECT_TRUE((*shard)->CheckTokens(0).ok());
  EXPECT_EQ(Shorten((*shard)->CheckTokens(300)),
            "a.bin: token 9001 is 300, expected below 300 (the model's vocabulary); was the shard made with "
            "another "
            "tokenizer?");
  tokens[4096] = 0x80000000u;
  shard = Shard::Open(FileSystem::Real(), folder_.Write("b.bin", LlmcBytes(tokens, 4)));
  ASSERT_TRUE(shard.ok());
  EXPECT_EQ(Shorten((*shard)->CheckTokens(0)),
            "b.bin: token 4096 is 2147483648, expected below 2147483648 (the most that a token id may be)");
}

TEST_F(ShardFormatTest, MaskOpen_BadSidecar_SaysWhatWasExpected) {
  const std::vector<uint64_t> offsets = {0, 2, 5};
  const std::vector<uint8_t> mask = {0, 1, 0, 0, 1};
  const std::string good = MaskSidecar::Encode(offsets, mask);
  const auto error = [&](const std::string& bytes, int64_t tokens = 5) {
    return Shorten(MaskSidecar::Open(FileSystem::Real(), folder_.Write("m.mask", bytes), tokens).status());
  };
  EXPECT_EQ(error(good), "");
  EXPECT_EQ(error(good, 6), "m.mask: the mask is for 5 tokens, its shard has 6");
  EXPECT_EQ(error("short"), "m.mask: expected a mask of at least 32 bytes, found 5");
  EXPECT_EQ(error(std::string(64, 'x')), "m.mask: expected a mask that begins with ACCRMASK");
  std::string bad = good;
  Patch<uint32_t>(&bad, 8, 9);
  EXPECT_EQ(error(bad), "m.mask: expected mask version 1, found 9");
  bad = good;
  Patch<uint64_t>(&bad, 24, UINT64_MAX);
  EXPECT_EQ(error(bad),
            "m.mask: the header says 5 tokens and 18446744073709551615 examples, which 61 bytes contradict; "
            "is the file truncated?");
  EXPECT_EQ(
      error(good.substr(0, 60)),
      "m.mask: the header says 5 tokens and 2 examples, which 60 bytes contradict; is the file truncated?");
  bad = good;
  Patch<uint64_t>(&bad, 32, 1);
  EXPECT_EQ(error(bad), "m.mask: example 0 begins at token 1, expected 0");
  bad = good;
  Patch<uint64_t>(&bad, 40, 0);
  EXPECT_EQ(error(bad), "m.mask: example 1 begins at token 0, expected more than 0");
  bad = good;
  Patch<uint64_t>(&bad, 48, 4);
  EXPECT_EQ(error(bad), "m.mask: the examples end at token 4, expected 5");
}

// Mutated files are refused or read, and never crash.
TEST_F(ShardFormatTest, Open_MutatedFiles_NeverCrash) {
  std::mt19937 random(1);
  const std::string shard = LlmcBytes({1, 2, 3, 4, 5, 6, 7, 8, 9}, 2);
  const std::string index = MegatronIndexBytes({1, 0, 2}, 8);
  const std::string mask = MaskSidecar::Encode({0, 4, 9}, std::vector<uint8_t>(9, 1));
  const auto mutate = [&](std::string bytes) {
    const int changes = 1 + static_cast<int>(random() % 3);
    for (int i = 0; i < changes; ++i) {
      switch (random() % 3) {
        case 0:
          bytes[random() % std::min<size_t>(bytes.size(), 80)] = static_cast<char>(random());
          break;
        case 1:
          bytes.resize(1 + random() % (bytes.size() + 8));
          break;
        default:
          bytes[random() % bytes.size()] = static_cast<char>(0xff);
          break;
      }
    }
    return bytes;
  };
  for (int round = 0; round < 300; ++round) {
    ShardReference reference;
    reference.path = folder_.Write("a.bin", mutate(shard));
    reference.mask_path = folder_.Write("a.mask", mutate(mask));
    folder_.Write("m.idx", mutate(index));
    ShardReference megatron;
    megatron.path = folder_.Write("m.bin", std::string("\1\0\2\0\3\0", 6));
    for (const auto& references :
         {std::vector<ShardReference>{reference}, {megatron}, {{.path = reference.path}, megatron}}) {
      const auto dataset =
          Dataset::Open(FileSystem::Real(), references, {.sequence_length = 2, .vocabulary = 1000});
      if (!dataset.ok()) continue;
      int32_t tokens[2], targets[2];
      for (int64_t i = 0; i < (*dataset)->sequences(); ++i) (*dataset)->Read(i, tokens, targets);
    }
  }
}

}  // namespace
}  // namespace accrue
