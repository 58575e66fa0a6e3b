// XXH3-128 of every chunk of an array: docs/numerics.md, section 9. One block a chunk.
//
// ChunkHash is the part that other kernels share: they hash values while they hold them.
#pragma once

#include <cstdint>

#include "common/exponents.h"
#include "worker/backend/cuda/kernels/xxh3.h"

namespace accrue::cuda {

inline constexpr int kHashThreads = 256;

// One hash, made by a block's threads. Shared memory, in three phases that the owner's phases call: all
// threads put in their lanes' sums of blocks and the secret; the first kLanes threads of a warp chain; two of
// them finish.
struct ChunkHash {
  static constexpr int kMaxBlocks = kChunkElements * 4 / xxh3::kBlockBytes;

  uint64_t products[kMaxBlocks * xxh3::kLanes];
  uint64_t words[kMaxBlocks * xxh3::kLanes];
  uint64_t lanes[xxh3::kLanes];

  ACCRUE_BODY void Put(int block, int lane, const xxh3::LaneSums& sums) {
    products[block * xxh3::kLanes + lane] = sums.products;
    words[block * xxh3::kLanes + lane] = sums.words;
  }
  // thread: 0 .. kLanes - 1, others do nothing.
  ACCRUE_BODY void Chain(const unsigned char* data, int64_t size_bytes, const uint64_t* secret, int thread) {
    if (thread >= xxh3::kLanes || size_bytes <= xxh3::kShortBytes) return;
    lanes[thread] = xxh3::ChainLane(products, words, data, size_bytes, secret, thread);
  }
  // thread: 0 and 1 make one half each, others do nothing.
  ACCRUE_BODY void Finish(const unsigned char* data, int64_t size_bytes, const uint64_t* secret, int thread,
                          xxh3::Canonical* result) const {
    if (size_bytes <= xxh3::kShortBytes) {
      if (thread == 0) *result = xxh3::HashShort(data, static_cast<int>(size_bytes), secret);
    } else if (thread < 2) {
      result->halves[1 - thread] = xxh3::ReverseBytes(xxh3::MergeLanes(lanes, size_bytes, secret, thread));
    }
  }
};

// A block of kHashThreads shares the words of a chunk so: a thread takes one lane of every 32nd block, so
// that eight neighbours read a stripe.
inline constexpr int kHashBlockStep = kHashThreads / xxh3::kLanes;

struct HashArgs {
  const unsigned char* values;
  int64_t elements;
  int element_bytes;
  xxh3::Canonical* hashes;  // one a chunk
};

struct HashBody {
  using Args = HashArgs;
  struct Shared {
    uint64_t secret[xxh3::kSecretWords];
    ChunkHash hash;
  };
  static constexpr int kThreads = kHashThreads;
  static constexpr int kPhases = 4;

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared& shared) {
    const int64_t begin = block * kChunkElements, left = args.elements - begin;
    const int64_t size_bytes = (left < kChunkElements ? left : kChunkElements) * args.element_bytes;
    const unsigned char* data = args.values + begin * args.element_bytes;
    if constexpr (kPhase == 0) {
      if (thread < xxh3::kSecretWords) shared.secret[thread] = xxh3::SecretWord(thread);
    } else if constexpr (kPhase == 1) {
      if (IsAligned(data, 8)) {
        SumBlocks<8>(data, size_bytes, thread, shared);
      } else {
        SumBlocks<2>(data, size_bytes, thread, shared);
      }
    } else if constexpr (kPhase == 2) {
      shared.hash.Chain(data, size_bytes, shared.secret, thread);
    } else {
      shared.hash.Finish(data, size_bytes, shared.secret, thread, args.hashes + block);
    }
  }

 private:
  template <int kAlignment>
  ACCRUE_BODY static void SumBlocks(const unsigned char* data, int64_t size_bytes, int thread,
                                    Shared& shared) {
    if (size_bytes <= xxh3::kShortBytes) return;
    const int lane = thread % xxh3::kLanes;
    const int blocks = static_cast<int>(xxh3::WholeBlocks(size_bytes)) + 1;
    const int stripes = static_cast<int>(xxh3::WholeStripes(size_bytes));
    for (int block = thread / xxh3::kLanes; block < blocks; block += kHashBlockStep) {
      const int first = block * xxh3::kStripesPerBlock;
      xxh3::LaneSums sums;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
      for (int i = 0; i < xxh3::kStripesPerBlock; ++i) {
        if (first + i >= stripes) continue;
        sums.Add(xxh3::LoadWord<kAlignment>(data + (first + i) * xxh3::kStripeBytes + lane * 8),
                 xxh3::StripeKey(shared.secret, i, lane));
      }
      shared.hash.Put(block, lane, sums);
    }
  }
};

}  // namespace accrue::cuda
