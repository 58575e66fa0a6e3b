// Per chunk the sum of squares in 16 interleaved binary64 partial sums: docs/numerics.md, section 7, item 2.
//
// The order of the additions is fixed, so 16 threads walk through a chunk and a block takes four chunks: what
// a thread waits for is memory, not the chain of additions.
#pragma once

#include <cstdint>

#include "common/exponents.h"
#include "worker/backend/cuda/kernels/sums.h"

namespace accrue::cuda {

inline constexpr int kSquarePartials = 16;
inline constexpr int kSquareChunks = 4;  // a block's

struct SquareSumArgs {
  Sums sums;
  int64_t elements;
  double* results;  // one a chunk
};

template <bool kExact>
struct SquareSumBody {
  using Args = SquareSumArgs;
  struct Shared {
    double partials[kSquareChunks][kSquarePartials];
  };
  static constexpr int kThreads = kSquareChunks * kSquarePartials;
  static constexpr int kPhases = 2;

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared& shared) {
    const int part = thread / kSquarePartials, partial = thread % kSquarePartials;
    const int64_t chunk = block * kSquareChunks + part;
    const int64_t begin = chunk * kChunkElements;
    if (begin >= args.elements) return;
    if constexpr (kPhase == 0) {
      const int64_t left = args.elements - begin;
      const int count = static_cast<int>(left < kChunkElements ? left : kChunkElements);
      double sum = 0;
#ifdef __CUDA_ARCH__
#pragma unroll 8
#endif
      for (int j = partial; j < count; j += kSquarePartials) {
        const double s = ScaledSum<kExact>(args.sums, begin + j);
        sum = Add(sum, Mul(s, s));
      }
      shared.partials[part][partial] = sum;
    } else if (partial == 0) {
      double sum = 0;
      for (int i = 0; i < kSquarePartials; ++i) sum = Add(sum, shared.partials[part][i]);
      args.results[chunk] = sum;
    }
  }
};

}  // namespace accrue::cuda
