// XXH3-128 (seed 0, default secret) in pieces that a block's threads can share. Source: the XXH3 algorithm of
// xxHash 0.8, doc/xxhash_spec.md.
//
// An input of more than 240 bytes is read in stripes of 64 bytes, eight lanes of a 64-bit word each; 16
// stripes make a block. Within a block, what a stripe adds to the lanes does not depend on what they hold, so
// blocks are summed by many threads (LaneSums); a lane then goes through its blocks in order (ChainLane): a
// short chain, eight lanes wide. Last, the lanes are merged into the two halves of the hash (MergeLanes).
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/body.h"
#include "worker/backend/cuda/kernels/memory.h"

namespace accrue::cuda::xxh3 {

inline constexpr int kLanes = 8;
inline constexpr int kStripeBytes = 64;
inline constexpr int kStripesPerBlock = 16;
inline constexpr int kBlockBytes = kStripeBytes * kStripesPerBlock;
inline constexpr int kShortBytes = 240;  // up to here HashShort, beyond it lanes
inline constexpr int kSecretWords = 24;
inline constexpr int kSecretBytes = 8 * kSecretWords;

inline constexpr uint64_t kPrime32_1 = 0x9E3779B1, kPrime32_2 = 0x85EBCA77, kPrime32_3 = 0xC2B2AE3D;
inline constexpr uint64_t kPrime64_1 = 0x9E3779B185EBCA87, kPrime64_2 = 0xC2B2AE3D27D4EB4F,
                          kPrime64_3 = 0x165667B19E3779F9, kPrime64_4 = 0x85EBCA77C2B2AE63,
                          kPrime64_5 = 0x27D4EB2F165667C5;

// As it lies in memory: the most significant byte first, high half first.
struct Canonical {
  uint64_t halves[2];
};

// The default secret, read as little-endian words. Threads read it from a copy in shared memory.
ACCRUE_BODY uint64_t SecretWord(int index) {
  static constexpr uint64_t kWords[kSecretWords] = {
      0xbe4ba423396cfeb8, 0x1cad21f72c81017c, 0xdb979083e96dd4de, 0x1f67b3b7a4a44072, 0x78e5c0cc4ee679cb,
      0x2172ffcc7dd05a82, 0x8e2443f7744608b8, 0x4c263a81e69035e0, 0xcb00c391bb52283c, 0xa32e531b8b65d088,
      0x4ef90da297486471, 0xd8acdea946ef1938, 0x3f349ce33f76faa8, 0x1d4f0bc7c7bbdcf9, 0x3159b4cd4be0518a,
      0x647378d9c97e9fc8, 0xc3ebd33483acc5ea, 0xeb6313faffa081c5, 0x49daf0b751dd0d17, 0x9e68d429265516d3,
      0xfca1477d58be162b, 0xce31d07ad1b8f88f, 0x280416958f3acb45, 0x7e404bbbcafbd7af};
  return kWords[index];
}
ACCRUE_BODY uint64_t ReadSecret(const uint64_t* secret, int offset_bytes) {
  const int word = offset_bytes / 8, shift = offset_bytes % 8 * 8;
  if (shift == 0) return secret[word];
  return secret[word] >> shift | secret[word + 1] << (64 - shift);
}

// Of inputs aligned to kAlignment; a word of one that is less aligned is put together from smaller ones.
template <int kAlignment>
ACCRUE_BODY uint64_t LoadWord(const unsigned char* from) {
  uint64_t word;
  CopyAligned<8, kAlignment, 8>(&word, from);
  return word;
}
ACCRUE_BODY uint64_t LoadWord(const unsigned char* from) {
  if (IsAligned(from, 8)) return LoadWord<8>(from);
  if (IsAligned(from, 4)) return LoadWord<4>(from);
  if (IsAligned(from, 2)) return LoadWord<2>(from);
  return LoadWord<1>(from);
}
ACCRUE_BODY uint64_t LoadHalfWord(const unsigned char* from) {
  uint32_t half;
  if (IsAligned(from, 4)) {
    CopyAligned<4, 4, 4>(&half, from);
  } else if (IsAligned(from, 2)) {
    CopyAligned<4, 2, 4>(&half, from);
  } else {
    CopyAligned<4, 1, 4>(&half, from);
  }
  return half;
}

struct Product {
  uint64_t low, high;
};
ACCRUE_BODY Product MultiplyFull(uint64_t a, uint64_t b) {
  const uint64_t a_low = a & 0xffffffff, a_high = a >> 32, b_low = b & 0xffffffff, b_high = b >> 32;
  const uint64_t low = a_low * b_low, mixed = a_high * b_low;
  const uint64_t cross = (low >> 32) + (mixed & 0xffffffff) + a_low * b_high;
  return {cross << 32 | (low & 0xffffffff), (mixed >> 32) + (cross >> 32) + a_high * b_high};
}
ACCRUE_BODY uint64_t MultiplyFold(uint64_t a, uint64_t b) {
  const Product product = MultiplyFull(a, b);
  return product.low ^ product.high;
}

ACCRUE_BODY uint64_t ReverseBytes(uint64_t x) {
  x = (x & 0x00ff00ff00ff00ff) << 8 | (x >> 8 & 0x00ff00ff00ff00ff);
  x = (x & 0x0000ffff0000ffff) << 16 | (x >> 16 & 0x0000ffff0000ffff);
  return x << 32 | x >> 32;
}
ACCRUE_BODY Canonical ToCanonical(uint64_t low, uint64_t high) {
  return {{ReverseBytes(high), ReverseBytes(low)}};
}

ACCRUE_BODY uint64_t Avalanche(uint64_t h) {
  h = (h ^ h >> 37) * 0x165667919E3779F9;
  return h ^ h >> 32;
}
ACCRUE_BODY uint64_t StrongAvalanche(uint64_t h) {
  h = (h ^ h >> 33) * kPrime64_2;
  h = (h ^ h >> 29) * kPrime64_3;
  return h ^ h >> 32;
}

// ---- more than 240 bytes

// What the stripes of one block add to lane i: products of its own words, words of its neighbour i ^ 1.
struct LaneSums {
  uint64_t products = 0, words = 0;
  ACCRUE_BODY void Add(uint64_t word, uint64_t key) {
    const uint64_t keyed = word ^ key;
    products += (keyed & 0xffffffff) * (keyed >> 32);
    words += word;
  }
};
// Of stripe `stripe` of a block.
ACCRUE_BODY uint64_t StripeKey(const uint64_t* secret, int stripe, int lane) { return secret[stripe + lane]; }
// Stripes that count before the last one, which is the input's last 64 bytes wherever they begin.
ACCRUE_BODY int64_t WholeStripes(int64_t size_bytes) { return (size_bytes - 1) / kStripeBytes; }
ACCRUE_BODY int64_t WholeBlocks(int64_t size_bytes) { return (size_bytes - 1) / kBlockBytes; }

ACCRUE_BODY uint64_t InitialLane(int lane) {
  static constexpr uint64_t kLane[kLanes] = {kPrime32_3, kPrime64_1, kPrime64_2, kPrime64_3,
                                             kPrime64_4, kPrime32_2, kPrime64_5, kPrime32_1};
  return kLane[lane];
}

// Lane `lane` of the whole input. products, words: [blocks][kLanes], of blocks 0 .. WholeBlocks(size_bytes).
ACCRUE_BODY uint64_t ChainLane(const uint64_t* products, const uint64_t* words, const unsigned char* data,
                               int64_t size_bytes, const uint64_t* secret, int lane) {
  constexpr int kScrambleWord = kSecretWords - kLanes;
  constexpr int kLastStripeOffset = kSecretBytes - kStripeBytes - 7;
  const int blocks = static_cast<int>(WholeBlocks(size_bytes));
  const uint64_t scramble = secret[kScrambleWord + lane];
  uint64_t sum = InitialLane(lane);
  for (int block = 0; block < blocks; ++block) {
    sum += products[block * kLanes + lane] + words[block * kLanes + (lane ^ 1)];
    sum = (sum ^ sum >> 47 ^ scramble) * kPrime32_1;
  }
  sum += products[blocks * kLanes + lane] + words[blocks * kLanes + (lane ^ 1)];
  const unsigned char* last = data + size_bytes - kStripeBytes;
  LaneSums own;
  own.Add(LoadWord(last + 8 * lane), ReadSecret(secret, kLastStripeOffset + 8 * lane));
  return sum + own.products + LoadWord(last + 8 * (lane ^ 1));
}

// half 0: the low 64 bits of the hash; 1: the high ones.
ACCRUE_BODY uint64_t MergeLanes(const uint64_t* lanes, int64_t size_bytes, const uint64_t* secret, int half) {
  const uint64_t size = static_cast<uint64_t>(size_bytes);
  const int offset = half == 0 ? 11 : kSecretBytes - kStripeBytes - 11;
  uint64_t sum = half == 0 ? size * kPrime64_1 : ~(size * kPrime64_2);
  for (int pair = 0; pair < kLanes / 2; ++pair) {
    sum += MultiplyFold(lanes[2 * pair] ^ ReadSecret(secret, offset + 16 * pair),
                        lanes[2 * pair + 1] ^ ReadSecret(secret, offset + 16 * pair + 8));
  }
  return Avalanche(sum);
}

// ---- up to 240 bytes: one thread

ACCRUE_BODY uint64_t Mix16(const unsigned char* data, const uint64_t* secret, int offset) {
  return MultiplyFold(LoadWord(data) ^ ReadSecret(secret, offset),
                      LoadWord(data + 8) ^ ReadSecret(secret, offset + 8));
}
ACCRUE_BODY void Mix32(const unsigned char* first, const unsigned char* second, const uint64_t* secret,
                       int offset, uint64_t& low, uint64_t& high) {
  low = (low + Mix16(first, secret, offset)) ^ (LoadWord(second) + LoadWord(second + 8));
  high = (high + Mix16(second, secret, offset + 16)) ^ (LoadWord(first) + LoadWord(first + 8));
}

ACCRUE_BODY Canonical HashTo3(const unsigned char* data, int size, const uint64_t* secret) {
  const uint32_t low = static_cast<uint32_t>(data[0]) << 16 | static_cast<uint32_t>(data[size >> 1]) << 24 |
                       data[size - 1] | static_cast<uint32_t>(size) << 8;
  const uint32_t swapped = static_cast<uint32_t>(ReverseBytes(low) >> 32);
  const uint32_t high = swapped << 13 | swapped >> 19;
  const auto key = [secret](int word) { return (secret[word] & 0xffffffff) ^ secret[word] >> 32; };
  return ToCanonical(StrongAvalanche(low ^ key(0)), StrongAvalanche(high ^ key(1)));
}

ACCRUE_BODY Canonical HashTo8(const unsigned char* data, int size, const uint64_t* secret) {
  const uint64_t input = LoadHalfWord(data) + (LoadHalfWord(data + size - 4) << 32);
  Product m = MultiplyFull(input ^ secret[2] ^ secret[3], kPrime64_1 + (static_cast<uint64_t>(size) << 2));
  m.high += m.low << 1;
  m.low ^= m.high >> 3;
  m.low = (m.low ^ m.low >> 35) * 0x9FB21C651E98DF25;
  m.low ^= m.low >> 28;
  return ToCanonical(m.low, Avalanche(m.high));
}

ACCRUE_BODY Canonical HashTo16(const unsigned char* data, int size, const uint64_t* secret) {
  const uint64_t first = LoadWord(data);
  uint64_t last = LoadWord(data + size - 8);
  Product m = MultiplyFull(first ^ last ^ secret[4] ^ secret[5], kPrime64_1);
  m.low += static_cast<uint64_t>(size - 1) << 54;
  last ^= secret[6] ^ secret[7];
  m.high += last + (last & 0xffffffff) * (kPrime32_2 - 1);
  m.low ^= ReverseBytes(m.high);
  Product h = MultiplyFull(m.low, kPrime64_2);
  h.high += m.high * kPrime64_2;
  return ToCanonical(Avalanche(h.low), Avalanche(h.high));
}

ACCRUE_BODY Canonical FinishMiddle(uint64_t low, uint64_t high, uint64_t size) {
  const uint64_t mixed = low * kPrime64_1 + high * kPrime64_4 + size * kPrime64_2;
  return ToCanonical(Avalanche(low + high), 0 - Avalanche(mixed));
}

ACCRUE_BODY Canonical HashTo128(const unsigned char* data, int size, const uint64_t* secret) {
  uint64_t low = static_cast<uint64_t>(size) * kPrime64_1, high = 0;
  for (int i = (size - 1) / 32; i >= 0; --i) {
    Mix32(data + 16 * i, data + size - 16 * (i + 1), secret, 32 * i, low, high);
  }
  return FinishMiddle(low, high, static_cast<uint64_t>(size));
}

ACCRUE_BODY Canonical HashTo240(const unsigned char* data, int size, const uint64_t* secret) {
  constexpr int kLastOffset = 136 - 17 - 16;
  uint64_t low = static_cast<uint64_t>(size) * kPrime64_1, high = 0;
  for (int i = 0; i < 4; ++i) Mix32(data + 32 * i, data + 32 * i + 16, secret, 32 * i, low, high);
  low = Avalanche(low);
  high = Avalanche(high);
  for (int i = 4; i < size / 32; ++i) {
    Mix32(data + 32 * i, data + 32 * i + 16, secret, 3 + 32 * (i - 4), low, high);
  }
  Mix32(data + size - 16, data + size - 32, secret, kLastOffset, low, high);
  return FinishMiddle(low, high, static_cast<uint64_t>(size));
}

// 1 to kShortBytes bytes.
ACCRUE_BODY Canonical HashShort(const unsigned char* data, int size_bytes, const uint64_t* secret) {
  if (size_bytes <= 3) return HashTo3(data, size_bytes, secret);
  if (size_bytes <= 8) return HashTo8(data, size_bytes, secret);
  if (size_bytes <= 16) return HashTo16(data, size_bytes, secret);
  if (size_bytes <= 128) return HashTo128(data, size_bytes, secret);
  return HashTo240(data, size_bytes, secret);
}

}  // namespace accrue::cuda::xxh3
