// Dequantise, clip, step and hash in one pass over a tensor: docs/numerics.md, sections 7 and 9. One block a
// chunk.
//
// A thread steps two neighbouring elements at a time, which are one word of a stripe of the hash; what it
// adds to its lane of p's, m's and v's hash comes from registers, so that the state is read once and written
// once.
#pragma once

#include <cstdint>

#include "common/exponents.h"
#include "worker/backend/cuda/kernels/arithmetic.h"
#include "worker/backend/cuda/kernels/hash.h"
#include "worker/backend/cuda/kernels/memory.h"
#include "worker/backend/cuda/kernels/sums.h"

namespace accrue::cuda {

// UpdateArgs of worker/backend/state_ops.h without its kind, in the kernels' dialect.
struct StepScalars {
  float learning_rate, beta1, beta2, one_minus_beta1, one_minus_beta2;
  float epsilon, weight_decay, bias_correction1, bias_correction2, momentum;
  float scale;
};

struct UpdateKernelArgs {
  Sums sums;
  int64_t elements;
  StepScalars scalars;
  float *p, *m, *v;         // v null for SGD
  xxh3::Canonical* hashes;  // of p for all chunks, then of m, then of v; null: none
  int64_t chunks;
};

ACCRUE_BODY void AdamWStep(const StepScalars& a, float s, float& p, float& m, float& v) {
  const float g = Mul(s, a.scale);
  m = Add(Mul(a.beta1, m), Mul(a.one_minus_beta1, g));
  v = Add(Mul(a.beta2, v), Mul(Mul(a.one_minus_beta2, g), g));
  const float root = Sqrt(Div(v, a.bias_correction2));
  const float step = Div(Div(m, a.bias_correction1), Add(root, a.epsilon));
  p = Sub(p, Mul(a.learning_rate, Add(step, Mul(a.weight_decay, p))));
}

ACCRUE_BODY void SgdStep(const StepScalars& a, float s, float& p, float& m) {
  const float u = Add(Mul(s, a.scale), Mul(a.weight_decay, p));
  m = Add(Mul(a.momentum, m), u);
  p = Sub(p, Mul(a.learning_rate, m));
}

template <bool kAdamW, bool kExact>
struct UpdateBody {
  using Args = UpdateKernelArgs;
  static constexpr int kArrays = kAdamW ? 3 : 2;
  struct Shared {
    uint64_t secret[xxh3::kSecretWords];
    ChunkHash hashes[kArrays];
  };
  static constexpr int kThreads = kHashThreads;
  static constexpr int kPhases = 4;

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared& shared) {
    if constexpr (kPhase == 0) {
      if (thread < xxh3::kSecretWords) shared.secret[thread] = xxh3::SecretWord(thread);
    } else if constexpr (kPhase == 1) {
      StepChunk(args, block, thread, shared);
    } else if (args.hashes != nullptr) {
      // An array's hash is finished by a warp of its own.
      const int array = thread / kWarp, lane = thread % kWarp;
      if (array >= kArrays) return;
      const int64_t begin = block * kChunkElements;
      const float* const from = (array == 0 ? args.p : array == 1 ? args.m : args.v) + begin;
      const unsigned char* const data = reinterpret_cast<const unsigned char*>(from);
      const int64_t size_bytes = Count(args, block) * 4;
      if constexpr (kPhase == 2) {
        shared.hashes[array].Chain(data, size_bytes, shared.secret, lane);
      } else {
        shared.hashes[array].Finish(data, size_bytes, shared.secret, lane,
                                    args.hashes + array * args.chunks + block);
      }
    }
  }

 private:
  static constexpr int kWarp = 32;
  static constexpr int kPair = 2;
  static constexpr int kStripeElements = xxh3::kStripeBytes / 4;
  using Pair = Pack<float, kPair>;

  // Where a chunk's arrays lie, and whether pairs may be moved as one.
  struct Chunk {
    float *p, *m, *v;
    int64_t begin;
    bool p_aligned, m_aligned, v_aligned;
  };

  ACCRUE_BODY static int64_t Count(const Args& args, int64_t block) {
    const int64_t left = args.elements - block * kChunkElements;
    return left < kChunkElements ? left : kChunkElements;
  }

  ACCRUE_BODY static uint64_t WordOf(const Pair& pair) {
    return static_cast<uint64_t>(BitsOf(pair.at[1])) << 32 | BitsOf(pair.at[0]);
  }

  // Steps elements j .. j + kCount - 1 of the chunk and leaves their new values in p, m, v.
  template <int kCount>
  ACCRUE_BODY static void Step(const Args& args, const Chunk& chunk, int j, Pack<float, kCount>& p,
                               Pack<float, kCount>& m, Pack<float, kCount>& v) {
    p = Load<kCount>(chunk.p + j, chunk.p_aligned);
    m = Load<kCount>(chunk.m + j, chunk.m_aligned);
    if constexpr (kAdamW) v = Load<kCount>(chunk.v + j, chunk.v_aligned);
    for (int i = 0; i < kCount; ++i) {
      const float s = ScaledSum<kExact>(args.sums, chunk.begin + j + i);
      if constexpr (kAdamW) {
        AdamWStep(args.scalars, s, p.at[i], m.at[i], v.at[i]);
      } else {
        SgdStep(args.scalars, s, p.at[i], m.at[i]);
      }
    }
    Store<kCount>(chunk.p + j, p, chunk.p_aligned);
    Store<kCount>(chunk.m + j, m, chunk.m_aligned);
    if constexpr (kAdamW) Store<kCount>(chunk.v + j, v, chunk.v_aligned);
  }

  ACCRUE_BODY static void StepChunk(const Args& args, int64_t block, int thread, Shared& shared) {
    const int64_t begin = block * kChunkElements;
    const int count = static_cast<int>(Count(args, block));
    Chunk chunk = {args.p + begin, args.m + begin, kAdamW ? args.v + begin : nullptr, begin, false,
                   false,          false};
    chunk.p_aligned = PacksAligned<kPair>(chunk.p);
    chunk.m_aligned = PacksAligned<kPair>(chunk.m);
    chunk.v_aligned = PacksAligned<kPair>(chunk.v);
    const int lane = thread % xxh3::kLanes;
    const int blocks = (count + kBlockElements - 1) / kBlockElements;
    const int stripes = static_cast<int>(xxh3::WholeStripes(int64_t{count} * 4));
    for (int b = thread / xxh3::kLanes; b < blocks; b += kHashBlockStep) {
      xxh3::LaneSums sums[kArrays];
#ifdef __CUDA_ARCH__
#pragma unroll 4
#endif
      for (int i = 0; i < xxh3::kStripesPerBlock; ++i) {
        const int stripe = b * xxh3::kStripesPerBlock + i, j = stripe * kStripeElements + lane * kPair;
        if (j + 1 < count) {
          Pair p, m, v;
          Step<kPair>(args, chunk, j, p, m, v);
          if (stripe >= stripes) continue;
          const uint64_t key = xxh3::StripeKey(shared.secret, i, lane);
          sums[0].Add(WordOf(p), key);
          sums[1].Add(WordOf(m), key);
          if constexpr (kAdamW) sums[2].Add(WordOf(v), key);
        } else if (j < count) {
          Pack<float, 1> p, m, v;
          Step<1>(args, chunk, j, p, m, v);
        }
      }
      for (int array = 0; array < kArrays; ++array) shared.hashes[array].Put(b, lane, sums[array]);
    }
  }

  static constexpr int kBlockElements = xxh3::kBlockBytes / 4;
};

}  // namespace accrue::cuda
