// Softmax and cross-entropy of a row of logits, and the gradient written over them. A block a row: once through it
// for the maximum and the sum of exponentials, once more, out of the cache, for the gradient.
//
// The row is cut into packs at multiples of 16 bytes counted from the first row's start, whatever its address, so
// that which thread adds what follows from the shape alone.
#pragma once

#include <cmath>
#include <cstdint>

#include "worker/backend/cuda/kernels/rows.h"

namespace accrue::cuda {

template <typename T>
struct CrossEntropyBody {
  using Args = CrossEntropyArgs;
  static constexpr int kWarps = 32;
  struct Shared {
    float maxima[kWarps], sums[kWarps];
  };
  // Of what a lane has seen: the maximum, and the sum of exp(x - maximum).
  struct State {
    PerLane<float> maximum, sum;
    float row_maximum, target;
  };
  static constexpr int kPhases = 3;

  ACCRUE_BODY static int64_t Blocks(const Args& args) { return args.rows; }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int warp, Shared& shared, State& state) {
    const int32_t target = args.targets[block];
    const Row row(args, block);
    if (target < 0) {
      if (kPhase == 2) WriteMasked(args, block, row, warp);
    } else if constexpr (kPhase == 0) {
      Scan(row, warp, state);
      const PerLane<float> maximum = MaxOverLanes(state.maximum);
      ForLanes([&](int lane) {
        if (lane == 0) shared.maxima[warp] = maximum[lane];
      });
    } else if constexpr (kPhase == 1) {
      state.row_maximum = shared.maxima[0];
      for (int w = 1; w < kWarps; ++w) {
        state.row_maximum = shared.maxima[w] > state.row_maximum ? shared.maxima[w] : state.row_maximum;
      }
      state.target = ToFloat(row.begin[target]);
      PerLane<float> sum;
      ForLanes([&](int lane) {
        sum[lane] = Mul(state.sum[lane], Exp(Sub(state.maximum[lane], state.row_maximum)));
      });
      sum = SumOverLanes(sum);
      ForLanes([&](int lane) {
        if (lane == 0) shared.sums[warp] = sum[lane];
      });
    } else {
      float sum = shared.sums[0];
      for (int w = 1; w < kWarps; ++w) sum = Add(sum, shared.sums[w]);
      ForLanes([&](int lane) {
        if (warp != 0 || lane != 0) return;
        args.losses[block] = std::log(static_cast<double>(sum)) + static_cast<double>(state.row_maximum) -
                             static_cast<double>(state.target);
      });
      if (args.write_gradient) WriteGradient(args, row, warp, target, state.row_maximum, Div(1.0f, sum));
    }
  }

 private:
  static constexpr int kPack = kFullPack<T>;

  // Elements 0 .. head - 1 and those from `tail` on are not in whole packs; there are fewer than kPack of either.
  struct Row {
    T* begin;
    int64_t width, head, tail;
    bool aligned;
    ACCRUE_BODY Row(const Args& args, int64_t r)
        : begin(static_cast<T*>(args.logits.data) + r * args.vocabulary), width(args.vocabulary) {
      head = (kPack - r * args.vocabulary % kPack) % kPack;
      if (head > width) head = width;
      tail = head + (width - head) / kPack * kPack;
      aligned = IsAligned(begin + head, 16);
    }

    // f.Take<kCount>(lane, first element): packs, then single elements; a lane's in ascending order.
    template <typename F>
    ACCRUE_BODY void ForElements(int warp, const F& f) const {
      for (int64_t base = head; base < tail; base += kWarps * kLanes * kPack) {
        ForLanes([&](int lane) {
          const int64_t i = base + (warp * kLanes + lane) * kPack;
          if (i < tail) f.template Take<kPack>(lane, i);
        });
      }
      if (warp != 0) return;
      ForLanes([&](int lane) {
        if (lane < head) f.template Take<1>(lane, static_cast<int64_t>(lane));
        if (tail + lane < width) f.template Take<1>(lane, tail + lane);
      });
    }
  };

  struct Scanner {
    const Row& row;
    State& state;
    template <int kCount>
    ACCRUE_BODY void Take(int lane, int64_t i) const {
      float x[kCount];
      LoadFloats<kCount>(row.begin + i, row.aligned, x);
      float maximum = x[0];
      ACCRUE_UNROLL
      for (int n = 1; n < kCount; ++n) maximum = x[n] > maximum ? x[n] : maximum;
      if (maximum > state.maximum[lane]) {
        state.sum[lane] = Mul(state.sum[lane], Exp(Sub(state.maximum[lane], maximum)));
        state.maximum[lane] = maximum;
      }
      ACCRUE_UNROLL
      for (int n = 0; n < kCount; ++n) {
        state.sum[lane] = Add(state.sum[lane], Exp(Sub(x[n], state.maximum[lane])));
      }
    }
  };

  ACCRUE_BODY static void Scan(const Row& row, int warp, State& state) {
    constexpr float kLowest = -3.402823466e+38f;
    ForLanes([&](int lane) {
      state.maximum[lane] = kLowest;
      state.sum[lane] = 0;
    });
    row.ForElements(warp, Scanner{row, state});
  }

  struct GradientWriter {
    const Row& row;
    int32_t target;
    float maximum, inverse, scale;
    template <int kCount>
    ACCRUE_BODY void Take(int, int64_t i) const {
      float x[kCount];
      LoadFloats<kCount>(row.begin + i, row.aligned, x);
      ACCRUE_UNROLL
      for (int n = 0; n < kCount; ++n) {
        x[n] = Mul(Exp(Sub(x[n], maximum)), inverse);
        if (i + n == target) x[n] = Sub(x[n], 1.0f);
        x[n] = Mul(x[n], scale);
      }
      StoreFloats<kCount>(row.begin + i, row.aligned, x);
    }
  };

  ACCRUE_BODY static void WriteGradient(const Args& args, const Row& row, int warp, int32_t target, float maximum,
                                        float inverse) {
    row.ForElements(warp, GradientWriter{row, target, maximum, inverse, args.gradient_scale});
  }

  struct ZeroWriter {
    const Row& row;
    template <int kCount>
    ACCRUE_BODY void Take(int, int64_t i) const {
      const float zero[kCount] = {};
      StoreFloats<kCount>(row.begin + i, row.aligned, zero);
    }
  };

  ACCRUE_BODY static void WriteMasked(const Args& args, int64_t block, const Row& row, int warp) {
    ForLanes([&](int lane) {
      if (warp == 0 && lane == 0) args.losses[block] = 0;
    });
    if (args.write_gradient) row.ForElements(warp, ZeroWriter{row});
  }
};

}  // namespace accrue::cuda
