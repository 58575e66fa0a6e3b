// The model's elementwise operations. No thread reads what another writes, so one phase each and no shared
// memory.
//
// A matrix is cut into rows and a row into segments of kElementThreads packs of 16 bytes; one block a segment.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/body.h"
#include "worker/backend/cuda/kernels/rows.h"
#include "worker/backend/cuda/model_scratch.h"

namespace accrue::cuda {

inline constexpr int kElementThreads = 256;

// Blocks for `rows` rows of `items` items each, kElementThreads items a block.
struct RowGrid {
  int64_t rows, items;
  ACCRUE_BODY int64_t segments() const { return (items + kElementThreads - 1) / kElementThreads; }
  ACCRUE_BODY int64_t blocks() const { return rows * segments(); }
  ACCRUE_BODY int64_t row(int64_t block) const { return block / segments(); }
  ACCRUE_BODY int64_t item(int64_t block, int thread) const {
    return block % segments() * kElementThreads + thread;
  }
};

// Packs of a row of `width` elements; the last one may be short.
template <int kPack>
ACCRUE_BODY int64_t PacksOf(int64_t width) {
  return (width + kPack - 1) / kPack;
}

// Runs f.Take<kCount>(first element) for pack `item` of a row of `width` elements.
template <int kPack, typename F>
ACCRUE_BODY void ForPack(int64_t item, int64_t width, const F& f) {
  const int64_t begin = item * kPack;
  if (begin + kPack <= width) {
    f.template Take<kPack>(begin);
  } else {
    for (int64_t i = begin; i < width; ++i) f.template Take<1>(i);
  }
}

template <typename T>
ACCRUE_BODY T* RowOf(const Tensor& tensor, int64_t row, int64_t stride) {
  return static_cast<T*>(tensor.data) + row * stride;
}

// ---- binary32 to 16 bits

struct ConvertArgs {
  const float* from;
  Tensor to;
  int64_t elements;
};

template <typename T>
struct ConvertBody {
  using Args = ConvertArgs;
  using Shared = NoShared;
  static constexpr int kThreads = kElementThreads;
  static constexpr int kPhases = 1;

  static constexpr int kPack = kFullPack<T>;

  ACCRUE_BODY static RowGrid Grid(const Args& args) { return {1, PacksOf<kPack>(args.elements)}; }
  ACCRUE_BODY static int64_t Blocks(const Args& args) { return Grid(args).blocks(); }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared&) {
    T* const to = static_cast<T*>(args.to.data);
    ForPack<kPack>(Grid(args).item(block, thread), args.elements,
                   Row{args.from, to, PacksAligned<kPack>(args.from), PacksAligned<kPack>(to)});
  }

 private:
  struct Row {
    const float* from;
    T* to;
    bool from_aligned, to_aligned;
    template <int kCount>
    ACCRUE_BODY void Take(int64_t i) const {
      const Pack<float, kCount> in = Load<kCount>(from + i, from_aligned);
      Pack<T, kCount> out;
      ACCRUE_UNROLL
      for (int n = 0; n < kCount; ++n) out.at[n] = FromFloat<T>(in.at[n]);
      Store<kCount>(to + i, out, to_aligned);
    }
  };
};

// ---- rotary positions

// An item is kPack neighbouring pairs of one head. kPack above 1: half a head is a multiple of it, and every head begins
// at a multiple of 16 bytes.
template <typename T, int kPack>
struct RopeBody {
  using Args = RopeArgs;
  using Shared = NoShared;
  static constexpr int kThreads = kElementThreads;
  static constexpr int kPhases = 1;

  ACCRUE_BODY static RowGrid Grid(const Args& args) {
    return {args.rows, args.heads * (args.head_size / 2 / kPack)};
  }
  ACCRUE_BODY static int64_t Blocks(const Args& args) { return Grid(args).blocks(); }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared&) {
    const RowGrid grid = Grid(args);
    const int64_t row = grid.row(block), item = grid.item(block, thread);
    if (item >= grid.items) return;
    const int half = static_cast<int>(args.head_size / 2), packs = half / kPack;
    const int head = static_cast<int>(item) / packs, i = static_cast<int>(item) % packs * kPack;
    const int64_t table = row % args.sequence_length * half + i;
    T* const x = RowOf<T>(args.x, row, args.stride) + head * args.head_size + i;
    float a[kPack], b[kPack], c[kPack], s[kPack];
    LoadFloats<kPack>(x, kPack > 1, a);
    LoadFloats<kPack>(x + half, kPack > 1, b);
    LoadFloats<kPack>(args.cosine + table, kPack > 1, c);
    LoadFloats<kPack>(args.sine + table, kPack > 1, s);
    ACCRUE_UNROLL
    for (int n = 0; n < kPack; ++n) {
      const float sine = args.inverse ? -s[n] : s[n], first = a[n];
      a[n] = Fma(-b[n], sine, Mul(first, c[n]));
      b[n] = Fma(first, sine, Mul(b[n], c[n]));
    }
    StoreFloats<kPack>(x, kPack > 1, a);
    StoreFloats<kPack>(x + half, kPack > 1, b);
  }
};

// ---- SwiGLU

template <typename T>
struct SwiGluForwardBody {
  using Args = SwiGluArgs;
  using Shared = NoShared;
  static constexpr int kThreads = kElementThreads;
  static constexpr int kPhases = 1;

  static constexpr int kPack = kFullPack<T>;

  ACCRUE_BODY static RowGrid Grid(const Args& args) { return {args.rows, PacksOf<kPack>(args.hidden)}; }
  ACCRUE_BODY static int64_t Blocks(const Args& args) { return Grid(args).blocks(); }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared&) {
    const RowGrid grid = Grid(args);
    const int64_t row = grid.row(block);
    const T* const gate = RowOf<T>(args.gate, row, args.gate_stride);
    const T* const up = RowOf<T>(args.up, row, args.gate_stride);
    T* const y = RowOf<T>(args.y, row, args.hidden);
    const bool aligned =
        PacksAligned<kPack>(gate) && PacksAligned<kPack>(up) && PacksAligned<kPack>(y);
    ForPack<kPack>(grid.item(block, thread), args.hidden, Row{gate, up, y, aligned});
  }

 private:
  struct Row {
    const T *gate, *up;
    T* y;
    bool aligned;
    template <int kCount>
    ACCRUE_BODY void Take(int64_t i) const {
      const Pack<T, kCount> g = Load<kCount>(gate + i, aligned), u = Load<kCount>(up + i, aligned);
      Pack<T, kCount> out;
      ACCRUE_UNROLL
      for (int n = 0; n < kCount; ++n) {
        const float x = ToFloat(g.at[n]);
        out.at[n] = FromFloat<T>(Mul(Mul(x, Sigmoid(x)), ToFloat(u.at[n])));
      }
      Store<kCount>(y + i, out, aligned);
    }
  };
};

template <typename T>
struct SwiGluBackwardBody {
  using Args = SwiGluArgs;
  using Shared = NoShared;
  static constexpr int kThreads = kElementThreads;
  static constexpr int kPhases = 1;

  static constexpr int kPack = kFullPack<T>;

  ACCRUE_BODY static RowGrid Grid(const Args& args) { return {args.rows, PacksOf<kPack>(args.hidden)}; }
  ACCRUE_BODY static int64_t Blocks(const Args& args) { return Grid(args).blocks(); }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared&) {
    const RowGrid grid = Grid(args);
    const int64_t row = grid.row(block);
    Row at = {RowOf<T>(args.gate, row, args.gate_stride), RowOf<T>(args.up, row, args.gate_stride),
              RowOf<T>(args.dy, row, args.hidden),        RowOf<T>(args.dgate, row, args.gate_stride),
              RowOf<T>(args.dup, row, args.gate_stride),  false};
    at.aligned = PacksAligned<kPack>(at.gate) && PacksAligned<kPack>(at.up) &&
                 PacksAligned<kPack>(at.dy) && PacksAligned<kPack>(at.dgate) &&
                 PacksAligned<kPack>(at.dup);
    ForPack<kPack>(grid.item(block, thread), args.hidden, at);
  }

 private:
  struct Row {
    const T *gate, *up, *dy;
    T *dgate, *dup;
    bool aligned;
    template <int kCount>
    ACCRUE_BODY void Take(int64_t i) const {
      const Pack<T, kCount> gs = Load<kCount>(gate + i, aligned), us = Load<kCount>(up + i, aligned),
                            ds = Load<kCount>(dy + i, aligned);
      Pack<T, kCount> to_gate, to_up;
      ACCRUE_UNROLL
      for (int n = 0; n < kCount; ++n) {
        const float g = ToFloat(gs.at[n]), u = ToFloat(us.at[n]), d = ToFloat(ds.at[n]);
        const float s = Sigmoid(g);
        // d silu(g) / dg = s (1 + g (1 - s))
        const float slope = Mul(s, Fma(g, Sub(1.0f, s), 1.0f));
        to_gate.at[n] = FromFloat<T>(Mul(Mul(d, u), slope));
        to_up.at[n] = FromFloat<T>(Mul(d, Mul(g, s)));
      }
      Store<kCount>(dgate + i, to_gate, aligned);
      Store<kCount>(dup + i, to_up, aligned);
    }
  };
};

// ---- GELU

// With u = sqrt(2 / pi) (z + 0.044715 z^3): gelu_tanh(z) = z (1 + tanh u) / 2 = z sigmoid(2u).
inline constexpr float kGelu1 = 1.5957691216057308f;              // 2 sqrt(2 / pi)
inline constexpr float kGelu3 = 1.5957691216057308f * 0.044715f;  // its cubic term

ACCRUE_BODY float GeluSigmoid(float z) { return Sigmoid(Mul(z, Fma(Mul(z, z), kGelu3, kGelu1))); }
ACCRUE_BODY float Gelu(float z) { return Mul(z, GeluSigmoid(z)); }
// s + z s (1 - s) d(2u)/dz
ACCRUE_BODY float GeluSlope(float z) {
  const float s = GeluSigmoid(z), slope = Fma(Mul(z, z), 3 * kGelu3, kGelu1);
  return Fma(Mul(z, Fma(-s, s, s)), slope, s);
}

template <typename T, bool kBackward>
struct GeluBody {
  using Args = GeluArgs;
  using Shared = NoShared;
  static constexpr int kThreads = kElementThreads;
  static constexpr int kPhases = 1;
  static constexpr int kPack = kFullPack<T>;

  ACCRUE_BODY static RowGrid Grid(const Args& args) { return {1, PacksOf<kPack>(args.elements)}; }
  ACCRUE_BODY static int64_t Blocks(const Args& args) { return Grid(args).blocks(); }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int thread, Shared&) {
    const T* const z = static_cast<const T*>(args.z.data);
    T* const y = static_cast<T*>(args.y.data);
    ForPack<kPack>(Grid(args).item(block, thread), args.elements,
                   Row{z, y, PacksAligned<kPack>(z) && PacksAligned<kPack>(y)});
  }

 private:
  struct Row {
    const T* z;
    T* y;
    bool aligned;
    template <int kCount>
    ACCRUE_BODY void Take(int64_t i) const {
      float values[kCount], gradient[kCount];
      LoadFloats<kCount>(z + i, aligned, values);
      if constexpr (kBackward) LoadFloats<kCount>(y + i, aligned, gradient);
      ACCRUE_UNROLL
      for (int n = 0; n < kCount; ++n) {
        values[n] = kBackward ? Mul(gradient[n], GeluSlope(values[n])) : Gelu(values[n]);
      }
      StoreFloats<kCount>(y + i, aligned, values);
    }
  };
};

template <typename T>
using GeluForwardBody = GeluBody<T, false>;
template <typename T>
using GeluBackwardBody = GeluBody<T, true>;

}  // namespace accrue::cuda
