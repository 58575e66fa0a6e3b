// How the model's kernels go through the rows of a matrix: packs of 16 bytes where the addresses allow it.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/elements.h"
#include "worker/backend/cuda/kernels/warp.h"

namespace accrue::cuda {

template <typename T>
inline constexpr int kFullPack = 16 / static_cast<int>(sizeof(T));

// kCount elements at `from` in binary32.
template <int kCount, typename T>
ACCRUE_BODY void LoadFloats(const T* from, bool aligned, float (&to)[kCount]) {
  const Pack<T, kCount> pack = Load<kCount>(from, aligned);
  ACCRUE_UNROLL
  for (int n = 0; n < kCount; ++n) to[n] = ToFloat(pack.at[n]);
}
template <int kCount, typename T>
ACCRUE_BODY void StoreFloats(T* to, bool aligned, const float (&from)[kCount]) {
  Pack<T, kCount> pack;
  ACCRUE_UNROLL
  for (int n = 0; n < kCount; ++n) pack.at[n] = FromFloat<T>(from[n]);
  Store<kCount>(to, pack, aligned);
}

// A row of `width` elements in a warp: lane l takes packs l, l + 32, ... of kPack elements. Where kHeld is above 0,
// width is at most kHeld * kPack * 32 and a lane's packs can stay in registers; 0: any width. kPack divides width.
template <int kPack_, int kHeld_>
struct WarpRow {
  static constexpr int kPack = kPack_, kHeld = kHeld_;
  // Places for held packs, at least one.
  static constexpr int kPlaces = kHeld > 0 ? kHeld : 1;

  // f(pack of the lane, lane, first element), for all packs of all lanes; a lane's in ascending order.
  template <typename F>
  ACCRUE_BODY static void ForPacks(int64_t width, const F& f) {
    if constexpr (kHeld > 0) {
      ACCRUE_UNROLL
      for (int p = 0; p < kHeld; ++p) {
        ForLanes([&](int lane) {
          const int i = (p * kLanes + lane) * kPack;
          if (i < width) f(p, lane, static_cast<int64_t>(i));
        });
      }
    } else {
      for (int64_t begin = 0; begin < width; begin += kLanes * kPack) {
        ForLanes([&](int lane) {
          const int64_t i = begin + lane * kPack;
          if (i < width) f(0, lane, i);
        });
      }
    }
  }
};

}  // namespace accrue::cuda
