// Sorts rows by token and then by number, without atomics: tiles are sorted by counting who is less, then runs are
// merged in pairs, each element finding its place in the other run by a binary search. Keys are unique, so there is
// one result.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/body.h"

namespace accrue::cuda {

inline constexpr int kSortTile = 512;

// Token and row in one word that compares as the pair does. Tokens are not negative; fewer than 2^32 rows.
ACCRUE_BODY uint64_t SortKey(int64_t token, int64_t row) {
  return static_cast<uint64_t>(token) << 32 | static_cast<uint64_t>(row);
}
ACCRUE_BODY int64_t TokenOfKey(uint64_t key) { return static_cast<int64_t>(key >> 32); }
ACCRUE_BODY int64_t RowOfKey(uint64_t key) { return static_cast<int64_t>(key & 0xffffffff); }

// How many of the ascending keys [begin, end) are below `key`.
ACCRUE_BODY int64_t CountBelow(const uint64_t* keys, int64_t begin, int64_t end, uint64_t key) {
  const int64_t first = begin;
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    if (keys[middle] < key) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin - first;
}

struct SortTileArgs {
  const int32_t* tokens;
  int64_t rows;
  uint64_t* keys;
};

struct SortTileBody {
  using Args = SortTileArgs;
  struct Shared {
    uint64_t keys[kSortTile];
  };
  static constexpr int kThreads = kSortTile;
  static constexpr int kPhases = 2;

  ACCRUE_BODY static int64_t Blocks(const Args& args) { return (args.rows + kSortTile - 1) / kSortTile; }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared& shared) {
    const int64_t row = block * kSortTile + thread;
    if constexpr (kPhase == 0) {
      shared.keys[thread] = row < args.rows ? SortKey(args.tokens[row], row) : UINT64_MAX;
    } else {
      if (row >= args.rows) return;
      const uint64_t key = shared.keys[thread];
      int rank = 0;
      for (int i = 0; i < kSortTile; ++i) rank += shared.keys[i] < key;
      args.keys[block * kSortTile + rank] = key;
    }
  }
};

struct MergeArgs {
  const uint64_t* from;  // ascending runs of `run` keys, the last one shorter
  uint64_t* to;          // runs twice as long
  int64_t rows, run;
};

struct MergeBody {
  using Args = MergeArgs;
  using Shared = NoShared;
  static constexpr int kThreads = 256;
  static constexpr int kPhases = 1;

  ACCRUE_BODY static int64_t Blocks(const Args& args) { return (args.rows + kThreads - 1) / kThreads; }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared&) {
    const int64_t i = block * kThreads + thread;
    if (i >= args.rows) return;
    const int64_t own = i / args.run * args.run, pair = i / (2 * args.run) * (2 * args.run);
    int64_t other = own == pair ? pair + args.run : pair, end = other + args.run;
    other = other < args.rows ? other : args.rows;
    end = end < args.rows ? end : args.rows;
    const uint64_t key = args.from[i];
    args.to[pair + (i - own) + CountBelow(args.from, other, end, key)] = key;
  }
};

}  // namespace accrue::cuda
