// common/philox.h, common/permutation.h and common/hash.h against what their sources publish.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "common/hash.h"
#include "common/permutation.h"
#include "common/philox.h"

namespace accrue {
namespace {

// The known-answer vectors that come with Random123 (kat_vectors, "philox4x32 10").
TEST(Philox4x32, OfThePublishedVectors_GivesTheirAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, 0), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(Philox4x32({ones, ones, ones, ones}, ~uint64_t{0}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, uint64_t{0x299f31d0a4093822}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// The outputs that the generator's authors list for seed 1234567.
TEST(SplitMix64, OfSeed1234567_GivesThePublishedSequence) {
  const uint64_t expected[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                               4593380528125082431u, 16408922859458223821u};
  uint64_t state = 1234567;
  for (uint64_t value : expected) {
    EXPECT_EQ(SplitMix64(state), value);
    state += 0x9E3779B97F4A7C15;
  }
}

TEST(Permutation, OfAnySize_IsABijection) {
  for (uint64_t size : {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4096, 4097, 65537}) {
    const Permutation permutation(size, 42, 0);
    std::vector<bool> seen(size);
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t to = permutation(i);
      ASSERT_LT(to, size);
      ASSERT_FALSE(seen[to]) << size;
      seen[to] = true;
    }
  }
}

TEST(Permutation, OfAHugeSize_StaysInRangeAndDoesNotRepeat) {
  const uint64_t size = (uint64_t{1} << 61) + 12345;
  const Permutation permutation(size, 7, 3);
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 1000; ++i) {
    const uint64_t to = permutation(size - 1 - i * (size / 1000));
    EXPECT_LT(to, size);
    EXPECT_TRUE(seen.insert(to).second);
  }
}

TEST(Permutation, OfOtherSeedsAndEpochs_IsAnotherAndNotTheIdentity) {
  const uint64_t size = 1000;
  const Permutation base(size, 1, 0), same(size, 1, 0), epoch(size, 1, 1), seed(size, 2, 0);
  int fixed = 0, as_epoch = 0, as_seed = 0;
  for (uint64_t i = 0; i < size; ++i) {
    EXPECT_EQ(base(i), same(i));
    fixed += base(i) == i;
    as_epoch += base(i) == epoch(i);
    as_seed += base(i) == seed(i);
  }
  // About one each is expected of independent permutations.
  EXPECT_LT(fixed, 10);
  EXPECT_LT(as_epoch, 10);
  EXPECT_LT(as_seed, 10);
}

// Neighbours must not stay neighbours, or a window would be one document.
TEST(Permutation, OfNeighbours_SpreadsThemOverTheWholeRange) {
  const uint64_t size = 100000;
  const Permutation permutation(size, 5, 0);
  int eighths[8] = {};
  for (uint64_t i = 0; i < 800; ++i) ++eighths[permutation(i) * 8 / size];
  for (int count : eighths) {
    EXPECT_GT(count, 60);
    EXPECT_LT(count, 140);
  }
}

// Values of the reference implementation's command (xxhsum -H128).
TEST(HashBytes, OfKnownInputs_IsXxh3Of128Bits) {
  EXPECT_EQ(HashBytes("", 0).Hex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(HashBytes("abc", 3).Hex(), "06b05ab6733a618578af5f94892f3950");
}

TEST(Hasher, OverPieces_EqualsTheWhole) {
  std::string text(100000, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(SplitMix64(i));
  for (size_t piece : {1, 7, 255, 256, 257, 99999, 100000}) {
    Hasher hasher;
    for (size_t begin = 0; begin < text.size(); begin += piece) {
      hasher.Update(text.data() + begin, std::min(piece, text.size() - begin));
    }
    EXPECT_EQ(hasher.Finish(), HashBytes(text.data(), text.size()));
    EXPECT_EQ(hasher.Finish(), hasher.Finish());
  }
  Hasher empty;
  EXPECT_EQ(empty.Finish(), HashBytes("", 0));
}

TEST(Hash128, FromHex_OfTextOfAnyKind_AcceptsHashesOnly) {
  const Hash128 hash = HashBytes("abc", 3);
  EXPECT_EQ(*Hash128::FromHex(hash.Hex()), hash);
  for (const char* bad : {"", "06b05ab6733a618578af5f94892f395", "06b05ab6733a618578af5f94892f39500",
                          "g6b05ab6733a618578af5f94892f3950", "0x6b05ab6733a618578af5f94892f395"}) {
    EXPECT_EQ(Hash128::FromHex(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace accrue
