// LayerNorm and RMSNorm, backward. A block takes kNormBackwardRows rows: it writes their dresidual (and ddelta) and
// one partial sum of dgamma and dbeta, which FoldBody (kernels/columns.h) then adds over the blocks.
//
// Where a lane can hold its columns' two sums in registers (kHeld above 0), row r of the block goes to warp r mod
// kWarps; a warp adds its rows in ascending order, the warps' sums are added in order. Elsewhere a thread goes
// through all of the block's rows once more for each of its columns, top to bottom.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/dropout.h"
#include "worker/backend/cuda/kernels/rows.h"

namespace accrue::cuda {

inline constexpr int kNormBackwardRows = 64;

struct NormBackwardKernelArgs {
  NormBackwardArgs op;
  DropoutKey dropout;
  float* partial;  // [blocks][2][width]: dgamma's, dbeta's
};

template <typename T, int kPack, int kHeld>
struct NormBackwardBody {
  using Args = NormBackwardKernelArgs;
  static constexpr int kWarps = 4;
  struct Shared {
    float sums[2][kHeld > 0 ? kHeld * kPack * kLanes : 1];
  };
  struct State {
    PerLane<float> dgamma[kHeld > 0 ? kHeld * kPack : 1], dbeta[kHeld > 0 ? kHeld * kPack : 1];
  };
  static constexpr int kPhases = kHeld > 0 ? kWarps + 2 : 2;

  ACCRUE_BODY static int64_t Blocks(const Args& args) {
    return (args.op.rows + kNormBackwardRows - 1) / kNormBackwardRows;
  }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int warp, Shared& shared, State& state) {
    const int64_t first = block * kNormBackwardRows;
    const int64_t left = args.op.rows - first;
    const int rows = static_cast<int>(left < kNormBackwardRows ? left : kNormBackwardRows);
    if constexpr (kPhase == 0) {
      if constexpr (kHeld > 0) {
        ACCRUE_UNROLL
        for (int e = 0; e < kHeld * kPack; ++e) {
          ForLanes([&](int lane) { state.dgamma[e][lane] = state.dbeta[e][lane] = 0; });
        }
      }
      for (int r = warp; r < rows; r += kWarps) BackwardRow(args, first + r, state);
    } else if constexpr (kHeld == 0) {
      SumColumns(args, block, first, rows, warp);
    } else if constexpr (kPhase <= kWarps) {
      if (warp == kPhase - 1) AddToShared(args, warp == 0, shared, state);
    } else {
      WritePartial(args, block, warp, shared);
    }
  }

 private:
  using Row = WarpRow<kPack, kHeld>;
  static constexpr bool kAligned = kPack > 1;

  ACCRUE_BODY static void BackwardRow(const Args& args, int64_t row, State& state) {
    const NormBackwardArgs& op = args.op;
    const int64_t width = op.width, at = row * width;
    const bool layer_norm = op.kind == NormKind::kLayerNorm;
    const T* const x = static_cast<const T*>(op.x.data) + at;
    const T* const dy = static_cast<const T*>(op.dy.data) + at;
    const T* const gamma = static_cast<const T*>(op.gamma.data);
    T* const dresidual = static_cast<T*>(op.dresidual.data) + at;
    T* const ddelta = op.ddelta.data != nullptr ? static_cast<T*>(op.ddelta.data) + at : nullptr;
    const float mean = layer_norm ? op.mean[row] : 0.0f, rstd = op.rstd[row];
    PerLane<Pack<T, kPack>> held_x[Row::kPlaces], held_dy[Row::kPlaces];

    PerLane<float> scaled, product;
    ForLanes([&](int lane) { scaled[lane] = product[lane] = 0; });
    Row::ForPacks(width, [&](int p, int lane, int64_t i) {
      const Pack<T, kPack> xs = Load<kPack>(x + i, kAligned), dys = Load<kPack>(dy + i, kAligned);
      float weight[kPack];
      LoadFloats<kPack>(gamma + i, kAligned, weight);
      if constexpr (kHeld > 0) {
        held_x[p][lane] = xs;
        held_dy[p][lane] = dys;
      }
      ACCRUE_UNROLL
      for (int n = 0; n < kPack; ++n) {
        const float d = ToFloat(dys.at[n]), normed = Mul(Sub(ToFloat(xs.at[n]), mean), rstd);
        const float weighted = Mul(d, weight[n]);
        scaled[lane] = Add(scaled[lane], weighted);
        product[lane] = Fma(weighted, normed, product[lane]);
        if constexpr (kHeld > 0) {
          state.dgamma[p * kPack + n][lane] = Fma(d, normed, state.dgamma[p * kPack + n][lane]);
          state.dbeta[p * kPack + n][lane] = Add(state.dbeta[p * kPack + n][lane], d);
        }
      }
    });
    scaled = SumOverLanes(scaled);
    product = SumOverLanes(product);
    const float columns = static_cast<float>(width);
    ForLanes([&](int lane) {
      scaled[lane] = layer_norm ? Div(scaled[lane], columns) : 0.0f;
      product[lane] = Div(product[lane], columns);
    });

    Row::ForPacks(width, [&](int p, int lane, int64_t i) {
      Pack<T, kPack> xs, dys;
      if constexpr (kHeld > 0) {
        xs = held_x[p][lane];
        dys = held_dy[p][lane];
      } else {
        xs = Load<kPack>(x + i, kAligned);
        dys = Load<kPack>(dy + i, kAligned);
      }
      float weight[kPack], before[kPack];
      LoadFloats<kPack>(gamma + i, kAligned, weight);
      if (!op.first) LoadFloats<kPack>(dresidual + i, kAligned, before);
      Pack<T, kPack> out;
      float kept[kPack];
      ACCRUE_UNROLL
      for (int n = 0; n < kPack; ++n) {
        const float normed = Mul(Sub(ToFloat(xs.at[n]), mean), rstd);
        const float centred = Sub(Mul(ToFloat(dys.at[n]), weight[n]), scaled[lane]);
        const float gradient = Mul(Fma(-normed, product[lane], centred), rstd);
        out.at[n] = FromFloat<T>(op.first ? gradient : Add(before[n], gradient));
        kept[n] = ToFloat(out.at[n]);
      }
      Store<kPack>(dresidual + i, out, kAligned);
      if (ddelta == nullptr) return;
      if (args.dropout.on) Drop(args.dropout, at + i, kept);
      StoreFloats<kPack>(ddelta + i, kAligned, kept);
    });
  }

  ACCRUE_BODY static void AddToShared(const Args& args, bool first, Shared& shared, const State& state) {
    Row::ForPacks(args.op.width, [&](int p, int lane, int64_t i) {
      ACCRUE_UNROLL
      for (int n = 0; n < kPack; ++n) {
        float& gamma = shared.sums[0][i + n];
        float& beta = shared.sums[1][i + n];
        gamma = first ? state.dgamma[p * kPack + n][lane] : Add(gamma, state.dgamma[p * kPack + n][lane]);
        beta = first ? state.dbeta[p * kPack + n][lane] : Add(beta, state.dbeta[p * kPack + n][lane]);
      }
    });
  }

  ACCRUE_BODY static void WritePartial(const Args& args, int64_t block, int warp, const Shared& shared) {
    const int64_t width = args.op.width;
    float* const partial = args.partial + block * 2 * width;
    ForLanes([&](int lane) {
      for (int64_t c = warp * kLanes + lane; c < width; c += kWarps * kLanes) {
        partial[c] = shared.sums[0][c];
        partial[width + c] = shared.sums[1][c];
      }
    });
  }

  ACCRUE_BODY static void SumColumns(const Args& args, int64_t block, int64_t first, int rows, int warp) {
    const NormBackwardArgs& op = args.op;
    const int64_t width = op.width;
    const bool layer_norm = op.kind == NormKind::kLayerNorm;
    float* const partial = args.partial + block * 2 * width;
    ForLanes([&](int lane) {
      for (int64_t c = warp * kLanes + lane; c < width; c += kWarps * kLanes) {
        float gamma = 0, beta = 0;
        for (int64_t r = first; r < first + rows; ++r) {
          const float d = ToFloat(static_cast<const T*>(op.dy.data)[r * width + c]);
          const float x = ToFloat(static_cast<const T*>(op.x.data)[r * width + c]);
          gamma = Fma(d, Mul(Sub(x, layer_norm ? op.mean[r] : 0.0f), op.rstd[r]), gamma);
          beta = Add(beta, d);
        }
        partial[c] = gamma;
        partial[width + c] = beta;
      }
    });
  }
};

}  // namespace accrue::cuda
