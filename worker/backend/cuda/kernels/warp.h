// Warp bodies: the second kind of kernel body (kernels/body.h has the first). The text is a warp's, so that a
// row's sum or a tile's product can be written where its lanes exchange registers.
//
//   Args, Shared  as for any body; kWarps: warps of a block; kPhases
//   State         what a warp keeps in registers over the phases: PerLane members
//   Run<kPhase>(args, block, warp, shared, state)
//
// ForLanes(f) runs f(lane): on the device in each lane at once, on the CPU in a loop, in the order that the
// runner chose. A PerLane value is one register of each lane; f(lane) touches its own lane's only. Lanes
// exchange values by the named functions below, which all lanes call together, outside of ForLanes.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/arithmetic.h"

namespace accrue::cuda {

inline constexpr int kLanes = 32;

// Of warps that keep nothing.
struct NoState {};

#ifdef __CUDA_ARCH__

template <typename T>
struct PerLane {
  T value;
  ACCRUE_BODY T& operator[](int) { return value; }
  ACCRUE_BODY const T& operator[](int) const { return value; }
};

template <typename F>
ACCRUE_BODY void ForLanes(const F& f) {
  f(static_cast<int>(threadIdx.x) % kLanes);
}

// The value of lane ^ mask.
ACCRUE_BODY PerLane<float> ExchangeXor(const PerLane<float>& x, int mask) {
  return {__shfl_xor_sync(0xffffffffu, x.value, mask)};
}

#else

template <typename T>
struct PerLane {
  T values[kLanes];
  ACCRUE_BODY T& operator[](int lane) { return values[lane]; }
  ACCRUE_BODY const T& operator[](int lane) const { return values[lane]; }
};

// The order of lanes on the CPU: lane i of the loop is i * step + first, modulo 32; step is odd.
struct LaneOrder {
  int first = 0, step = 1;
};
inline thread_local LaneOrder host_lane_order;

template <typename F>
ACCRUE_BODY void ForLanes(const F& f) {
  for (int i = 0; i < kLanes; ++i) f((i * host_lane_order.step + host_lane_order.first) & (kLanes - 1));
}

ACCRUE_BODY PerLane<float> ExchangeXor(const PerLane<float>& x, int mask) {
  PerLane<float> result;
  for (int lane = 0; lane < kLanes; ++lane) result[lane] = x[lane ^ mask];
  return result;
}

#endif

// Of groups of kGroup neighbouring lanes; all lanes of a group get it. The tree is the same for every lane.
template <int kGroup = kLanes>
ACCRUE_BODY PerLane<float> SumOverLanes(PerLane<float> x) {
  ACCRUE_UNROLL
  for (int mask = kGroup / 2; mask > 0; mask /= 2) {
    const PerLane<float> other = ExchangeXor(x, mask);
    ForLanes([&](int lane) { x[lane] = Add(x[lane], other[lane]); });
  }
  return x;
}
// NaN is passed over.
template <int kGroup = kLanes>
ACCRUE_BODY PerLane<float> MaxOverLanes(PerLane<float> x) {
  ACCRUE_UNROLL
  for (int mask = kGroup / 2; mask > 0; mask /= 2) {
    const PerLane<float> other = ExchangeXor(x, mask);
    ForLanes([&](int lane) { x[lane] = other[lane] > x[lane] ? other[lane] : x[lane]; });
  }
  return x;
}

}  // namespace accrue::cuda
