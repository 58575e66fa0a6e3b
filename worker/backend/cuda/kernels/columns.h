// Sums over the rows of a matrix in two launches: ColumnSumsBody sums blocks of kColumnRows rows, top to bottom, into
// one partial sum each; FoldBody adds partial sums in groups of neighbours, then the groups, all in order. The shape
// alone says who adds what.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/rows.h"
#include "worker/backend/cuda/model_scratch.h"

namespace accrue::cuda {

inline constexpr int kColumnRows = 64;

struct ColumnSumsKernelArgs {
  ColumnSumsArgs op;
  float* partial;  // [blocks of rows][columns]
};

// kPack above 1: the columns and the stride are multiples of it and the matrix is aligned.
template <typename T, int kPack>
struct ColumnSumsBody {
  using Args = ColumnSumsKernelArgs;
  using Shared = NoShared;
  static constexpr int kThreads = 128;
  static constexpr int kPhases = 1;

  ACCRUE_BODY static int64_t Segments(const Args& args) {
    return (args.op.columns + kThreads * kPack - 1) / (kThreads * kPack);
  }
  ACCRUE_BODY static int64_t Blocks(const Args& args) {
    return (args.op.rows + kColumnRows - 1) / kColumnRows * Segments(args);
  }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared&) {
    const int64_t part = block / Segments(args);
    const int64_t column = (block % Segments(args) * kThreads + thread) * kPack;
    if (column >= args.op.columns) return;
    const int64_t first = part * kColumnRows, left = args.op.rows - first;
    const int rows = static_cast<int>(left < kColumnRows ? left : kColumnRows);
    const T* const from = static_cast<const T*>(args.op.matrix.data) + first * args.op.stride + column;
    float sums[kPack] = {};
#ifdef __CUDA_ARCH__
#pragma unroll 8
#endif
    for (int r = 0; r < rows; ++r) {
      float values[kPack];
      LoadFloats<kPack>(from + r * args.op.stride, kPack > 1, values);
      ACCRUE_UNROLL
      for (int n = 0; n < kPack; ++n) sums[n] = Add(sums[n], values[n]);
    }
    StoreFloats<kPack>(args.partial + part * args.op.columns + column, kPack > 1, sums);
  }
};

struct FoldArgs {
  const float* partial;  // [parts][columns]
  int64_t parts, columns;
  // Columns 0 .. split - 1 go to low, the others to high (null: nowhere).
  int64_t split;
  float* low;
  float* high;
};

struct FoldBody {
  using Args = FoldArgs;
  static constexpr int kGroups = 16, kColumns = 32;
  struct Shared {
    float sums[kGroups][kColumns];
  };
  static constexpr int kThreads = kGroups * kColumns;
  static constexpr int kPhases = 2;

  ACCRUE_BODY static int64_t Blocks(const Args& args) { return (args.columns + kColumns - 1) / kColumns; }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared& shared) {
    const int group = thread / kColumns, lane = thread % kColumns;
    const int64_t column = block * kColumns + lane;
    if (column >= args.columns) return;
    const int64_t share = (args.parts + kGroups - 1) / kGroups;
    if constexpr (kPhase == 0) {
      const int64_t begin = group * share;
      const int64_t end = begin + share < args.parts ? begin + share : args.parts;
      float sum = 0;
#ifdef __CUDA_ARCH__
#pragma unroll 8
#endif
      for (int64_t p = begin; p < end; ++p) sum = Add(sum, args.partial[p * args.columns + column]);
      shared.sums[group][lane] = sum;
    } else {
      if (group != 0) return;
      float sum = shared.sums[0][lane];
      for (int g = 1; g < kGroups; ++g) sum = Add(sum, shared.sums[g][lane]);
      if (column < args.split) {
        args.low[column] = sum;
      } else if (args.high != nullptr) {
        args.high[column - args.split] = sum;
      }
    }
  }
};

}  // namespace accrue::cuda
