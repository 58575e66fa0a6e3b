// LayerNorm and RMSNorm, forward, with the residual added before: a row a warp, each row read once.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/dropout.h"
#include "worker/backend/cuda/kernels/rows.h"

namespace accrue::cuda {

struct NormForwardKernelArgs {
  NormForwardArgs op;
  DropoutKey dropout;
};

// kHeld as in WarpRow; where it is 0 the row is read again for each of its three passes. kPack above 1: width is a
// multiple of it and all arrays are aligned to packs.
template <typename T, int kPack, int kHeld>
struct NormForwardBody {
  using Args = NormForwardKernelArgs;
  using Shared = NoShared;
  using State = NoState;
  static constexpr int kWarps = 8;
  static constexpr int kPhases = 1;

  ACCRUE_BODY static int64_t Blocks(const Args& args) { return (args.op.rows + kWarps - 1) / kWarps; }

  template <int kPhase>
  ACCRUE_BODY static void Run(const Args& args, int64_t block, int warp, Shared&, State&) {
    const NormForwardArgs& op = args.op;
    const int64_t row = block * kWarps + warp, width = op.width, at = row * width;
    if (row >= op.rows) return;
    const bool layer_norm = op.kind == NormKind::kLayerNorm;
    const T* const x = static_cast<const T*>(op.x.data) + at;
    const T* const delta = op.delta.data != nullptr ? static_cast<const T*>(op.delta.data) + at : nullptr;
    T* const sum = delta != nullptr ? static_cast<T*>(op.sum.data) + at : nullptr;
    const T* const input = delta != nullptr ? sum : x;
    PerLane<Pack<T, kPack>> held[Row::kPlaces];

    PerLane<float> total;
    ForLanes([&](int lane) { total[lane] = 0; });
    Row::ForPacks(width, [&](int p, int lane, int64_t i) {
      Pack<T, kPack> pack = Load<kPack>(x + i, kAligned);
      if (delta != nullptr) {
        float d[kPack];
        LoadFloats<kPack>(delta + i, kAligned, d);
        if (args.dropout.on) Drop(args.dropout, at + i, d);
        ACCRUE_UNROLL
        for (int n = 0; n < kPack; ++n) pack.at[n] = FromFloat<T>(Add(ToFloat(pack.at[n]), d[n]));
        Store<kPack>(sum + i, pack, kAligned);
      }
      if constexpr (kHeld > 0) held[p][lane] = pack;
      ACCRUE_UNROLL
      for (int n = 0; n < kPack; ++n) total[lane] = Add(total[lane], ToFloat(pack.at[n]));
    });
    const auto element = [&](int p, int lane, int64_t i) {
      if constexpr (kHeld > 0) return held[p][lane];
      return Load<kPack>(input + i, kAligned);
    };

    const float columns = static_cast<float>(width);
    PerLane<float> mean = SumOverLanes(total), square;
    ForLanes([&](int lane) {
      mean[lane] = layer_norm ? Div(mean[lane], columns) : 0.0f;
      square[lane] = 0;
    });
    Row::ForPacks(width, [&](int p, int lane, int64_t i) {
      const Pack<T, kPack> pack = element(p, lane, i);
      ACCRUE_UNROLL
      for (int n = 0; n < kPack; ++n) {
        const float centred = Sub(ToFloat(pack.at[n]), mean[lane]);
        square[lane] = Fma(centred, centred, square[lane]);
      }
    });
    PerLane<float> rstd = SumOverLanes(square);
    ForLanes([&](int lane) {
      rstd[lane] = Div(1.0f, Sqrt(Add(Div(rstd[lane], columns), op.epsilon)));
      if (lane != 0) return;
      if (layer_norm) op.mean[row] = mean[lane];
      op.rstd[row] = rstd[lane];
    });
    const T* const gamma = static_cast<const T*>(op.gamma.data);
    const T* const beta = static_cast<const T*>(op.beta.data);
    T* const y = static_cast<T*>(op.y.data) + at;
    Row::ForPacks(width, [&](int p, int lane, int64_t i) {
      const Pack<T, kPack> pack = element(p, lane, i);
      float weight[kPack], shift[kPack], out[kPack];
      LoadFloats<kPack>(gamma + i, kAligned, weight);
      if (beta != nullptr) LoadFloats<kPack>(beta + i, kAligned, shift);
      ACCRUE_UNROLL
      for (int n = 0; n < kPack; ++n) {
        const float normed = Mul(Sub(ToFloat(pack.at[n]), mean[lane]), rstd[lane]);
        out[n] = beta != nullptr ? Fma(normed, weight[n], shift[n]) : Mul(normed, weight[n]);
      }
      StoreFloats<kPack>(y + i, kAligned, out);
    });
  }

 private:
  using Row = WarpRow<kPack, kHeld>;
  static constexpr bool kAligned = kPack > 1;
};

}  // namespace accrue::cuda
