// Token and position embeddings. Backward, the rows of dy are sorted by token (kernels/token_sort.h). A token's rows
// are added in ascending order in parts of kEmbeddingPart rows: its first part onto what dtoken holds, each other one
// onto zero; the other parts' sums are then added in order. So a frequent token keeps many warps busy.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/dropout.h"
#include "worker/backend/cuda/kernels/elementwise.h"
#include "worker/backend/cuda/kernels/token_sort.h"

namespace accrue::cuda {

inline constexpr int kEmbeddingPart = 64;

struct EmbeddingForwardKernelArgs {
  EmbeddingForwardArgs op;
  DropoutKey dropout;
};

// An item is a pack of a row. kPack above 1: it divides the width and all arrays are aligned.
template <typename T, int kPack>
struct EmbeddingForwardBody {
  using Args = EmbeddingForwardKernelArgs;
  using Shared = NoShared;
  static constexpr int kThreads = kElementThreads;
  static constexpr int kPhases = 1;

  ACCRUE_BODY static RowGrid Grid(const Args& args) { return {1, args.op.rows * (args.op.width / kPack)}; }
  ACCRUE_BODY static int64_t Blocks(const Args& args) { return Grid(args).blocks(); }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared&) {
    const EmbeddingForwardArgs& op = args.op;
    const int64_t item = Grid(args).item(block, thread), e = item * kPack;
    if (item >= Grid(args).items) return;
    const int64_t row = e / op.width, column = e % op.width;
    float value[kPack], position[kPack];
    LoadFloats<kPack>(static_cast<const T*>(op.token_table.data) + op.tokens[row] * op.width + column, kPack > 1,
                      value);
    if (op.position_table.data != nullptr) {
      LoadFloats<kPack>(
          static_cast<const T*>(op.position_table.data) + row % op.sequence_length * op.width + column, kPack > 1,
          position);
      ACCRUE_UNROLL
      for (int n = 0; n < kPack; ++n) value[n] = Add(value[n], position[n]);
    }
    if (args.dropout.on) Drop(args.dropout, e, value);
    StoreFloats<kPack>(static_cast<T*>(op.y.data) + e, kPack > 1, value);
  }
};

struct EmbeddingBackwardKernelArgs {
  EmbeddingBackwardArgs op;
  DropoutKey dropout;
  const uint64_t* keys;  // ascending, one a row
  float* partial;        // [rows / kEmbeddingPart + 1][width]
};

// A token's rows among the sorted keys, seen from place p of them.
struct TokenRun {
  int64_t token, begin, end;
  ACCRUE_BODY TokenRun(const uint64_t* keys, int64_t rows, int64_t p) : token(TokenOfKey(keys[p])) {
    begin = CountBelow(keys, 0, p, SortKey(token, 0));
    end = p + CountBelow(keys, p, rows, SortKey(token + 1, 0));
  }
};
// Where the sum of the part that begins at place p goes, if it is not its token's first. Such parts are kEmbeddingPart
// places apart at least, so no two share a place.
ACCRUE_BODY int64_t PartialPlace(int64_t p) { return p / kEmbeddingPart; }

// A warp a place of the sorted keys; one where no part begins has nothing to do.
template <typename T, int kPack>
struct EmbeddingPartsBody {
  using Args = EmbeddingBackwardKernelArgs;
  using Shared = NoShared;
  using State = NoState;
  static constexpr int kWarps = 8;
  static constexpr int kPhases = 1;

  ACCRUE_BODY static int64_t Blocks(const Args& args) { return (args.op.rows + kWarps - 1) / kWarps; }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int warp, Shared&, State&) {
    const EmbeddingBackwardArgs& op = args.op;
    const int64_t p = block * kWarps + warp, width = op.width;
    if (p >= op.rows) return;
    const TokenRun run(args.keys, op.rows, p);
    if ((p - run.begin) % kEmbeddingPart != 0) return;
    const bool first = p == run.begin;
    const int64_t end = p + kEmbeddingPart < run.end ? p + kEmbeddingPart : run.end;
    float* const to = first ? op.dtoken + run.token * width : args.partial + PartialPlace(p) * width;
    WarpRow<kPack, 0>::ForPacks(width, [&](int, int, int64_t i) {
      float sum[kPack] = {};
      if (first) LoadFloats<kPack>(to + i, kPack > 1, sum);
#ifdef __CUDA_ARCH__
#pragma unroll 4
#endif
      for (int64_t q = p; q < end; ++q) {
        const int64_t e = RowOfKey(args.keys[q]) * width + i;
        float d[kPack];
        LoadFloats<kPack>(static_cast<const T*>(op.dy.data) + e, kPack > 1, d);
        if (args.dropout.on) Drop(args.dropout, e, d);
        ACCRUE_UNROLL
        for (int n = 0; n < kPack; ++n) sum[n] = Add(sum[n], d[n]);
      }
      StoreFloats<kPack>(to + i, kPack > 1, sum);
    });
  }
};

// Adds what tokens of more than one part have in `partial`.
template <int kPack>
struct EmbeddingFoldBody {
  using Args = EmbeddingBackwardKernelArgs;
  using Shared = NoShared;
  using State = NoState;
  static constexpr int kWarps = 8;
  static constexpr int kPhases = 1;

  ACCRUE_BODY static int64_t Blocks(const Args& args) { return (args.op.rows + kWarps - 1) / kWarps; }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int warp, Shared&, State&) {
    const int64_t p = block * kWarps + warp, width = args.op.width;
    if (p >= args.op.rows) return;
    const TokenRun run(args.keys, args.op.rows, p);
    if (p != run.begin || run.end - run.begin <= kEmbeddingPart) return;
    float* const to = args.op.dtoken + run.token * width;
    WarpRow<kPack, 0>::ForPacks(width, [&](int, int, int64_t i) {
      float sum[kPack];
      LoadFloats<kPack>(to + i, kPack > 1, sum);
      for (int64_t q = p + kEmbeddingPart; q < run.end; q += kEmbeddingPart) {
        float part[kPack];
        LoadFloats<kPack>(args.partial + PartialPlace(q) * width + i, kPack > 1, part);
        ACCRUE_UNROLL
        for (int n = 0; n < kPack; ++n) sum[n] = Add(sum[n], part[n]);
      }
      StoreFloats<kPack>(to + i, kPack > 1, sum);
    });
  }
};

// An item is a pack of a position's row.
template <typename T, int kPack>
struct PositionGradientBody {
  using Args = EmbeddingBackwardKernelArgs;
  using Shared = NoShared;
  static constexpr int kThreads = kElementThreads;
  static constexpr int kPhases = 1;

  ACCRUE_BODY static RowGrid Grid(const Args& args) { return {1, args.op.context * (args.op.width / kPack)}; }
  ACCRUE_BODY static int64_t Blocks(const Args& args) { return Grid(args).blocks(); }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared&) {
    const EmbeddingBackwardArgs& op = args.op;
    const int64_t item = Grid(args).item(block, thread), e = item * kPack;
    if (item >= Grid(args).items) return;
    const int64_t position = e / op.width, column = e % op.width;
    float sum[kPack] = {};
    if (position < op.sequence_length) {
#ifdef __CUDA_ARCH__
#pragma unroll 4
#endif
      for (int64_t r = position; r < op.rows; r += op.sequence_length) {
        float d[kPack];
        LoadFloats<kPack>(static_cast<const T*>(op.dy.data) + r * op.width + column, kPack > 1, d);
        if (args.dropout.on) Drop(args.dropout, r * op.width + column, d);
        ACCRUE_UNROLL
        for (int n = 0; n < kPack; ++n) sum[n] = Add(sum[n], d[n]);
      }
    }
    StoreFloats<kPack>(op.dposition + e, kPack > 1, sum);
  }
};

}  // namespace accrue::cuda
