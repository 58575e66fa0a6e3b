// Runs warp and loop bodies (worker/backend/cuda/kernels/warp.h, tile_loop.h) on the CPU, one warp after the other and in it one lane after
// the other, both in an order of the test's choice; and a model operation as the launches that it consists of.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "tests/backend/cuda/host_run.h"
#include "worker/backend/cuda/kernels/warp.h"

namespace accrue::cuda {

// Lanes go in `order` while it lives.
class WithLaneOrder {
 public:
  explicit WithLaneOrder(ThreadOrder order) {
    if (order == ThreadOrder::kDown) host_lane_order = {kLanes - 1, kLanes - 1};
    if (order == ThreadOrder::kOddFirst) host_lane_order = {7, 11};
  }
  ~WithLaneOrder() { host_lane_order = LaneOrder(); }
};

template <typename Body, int kPhase = 0>
void RunWarpPhases(const typename Body::Args& args, int64_t block, const std::vector<int>& warps,
                   typename Body::Shared& shared, std::vector<typename Body::State>& states) {
  for (int warp : warps) Body::template Run<kPhase>(args, block, warp, shared, states[warp]);
  if constexpr (kPhase + 1 < Body::kPhases) RunWarpPhases<Body, kPhase + 1>(args, block, warps, shared, states);
}

// Registers begin poisoned, as shared memory does.
template <typename Body>
void RunWarpsOnHost(const typename Body::Args& args, int64_t blocks, ThreadOrder order) {
  using Shared = typename Body::Shared;
  using State = typename Body::State;
  static_assert(std::is_trivially_copyable_v<Shared> && std::is_trivially_copyable_v<State>);
  const WithLaneOrder lanes(order);
  const std::vector<int> warps = ThreadsIn(order, Body::kWarps);
  const auto shared = std::make_unique<Shared>();
  std::vector<State> states(Body::kWarps);
  for (int64_t i = 0; i < blocks; ++i) {
    std::memset(static_cast<void*>(shared.get()), 0xff, sizeof(Shared));
    std::memset(static_cast<void*>(states.data()), 0xff, states.size() * sizeof(State));
    RunWarpPhases<Body>(args, order == ThreadOrder::kDown ? blocks - 1 - i : i, warps, *shared, states);
  }
}

// Steps one after the other. A step's data comes while the step before it computes; here it comes before, then after
// it in turn, so that a step that reads the other half of a buffer shows in one of the orders.
template <typename Body>
void RunLoopOnHost(const typename Body::Args& args, int64_t blocks, ThreadOrder order) {
  using Shared = typename Body::Shared;
  using State = typename Body::State;
  const WithLaneOrder lanes(order);
  const std::vector<int> warps = ThreadsIn(order, Body::kWarps);
  const auto shared = std::make_unique<Shared>();
  std::vector<State> states(Body::kWarps);
  for (int64_t i = 0; i < blocks; ++i) {
    std::memset(static_cast<void*>(shared.get()), 0xff, sizeof(Shared));
    std::memset(static_cast<void*>(states.data()), 0xff, states.size() * sizeof(State));
    const int64_t block = order == ThreadOrder::kDown ? blocks - 1 - i : i;
    const int steps = Body::Steps(args, block);
    const auto fetch = [&](int step) {
      for (int warp : warps) Body::Fetch(args, block, step, warp, *shared, states[warp]);
    };
    for (int warp : warps) Body::Begin(args, block, warp, *shared, states[warp]);
    fetch(0);
    for (int step = 0; step < steps; ++step) {
      const bool ahead = order != ThreadOrder::kDown;
      if (ahead && step + 1 < steps) fetch(step + 1);
      for (int warp : warps) Body::Step(args, block, step, warp, *shared, states[warp]);
      if (!ahead && step + 1 < steps) fetch(step + 1);
    }
    for (int warp : warps) Body::End(args, block, warp, *shared, states[warp]);
  }
}

template <typename Body, typename = void>
struct HasSteps : std::false_type {};
template <typename Body>
struct HasSteps<Body, std::void_t<decltype(&Body::Steps)>> : std::true_type {};

template <typename Body, typename = void>
struct HasState : std::false_type {};
template <typename Body>
struct HasState<Body, std::void_t<typename Body::State>> : std::true_type {};

// What model_bodies.h calls for each launch.
struct HostRunner {
  ThreadOrder order;
  template <typename Body>
  void operator()(Body, const typename Body::Args& args, int64_t blocks) const {
    if constexpr (HasSteps<Body>::value) {
      RunLoopOnHost<Body>(args, blocks, order);
    } else if constexpr (HasState<Body>::value) {
      RunWarpsOnHost<Body>(args, blocks, order);
    } else {
      RunOnHost<Body>(args, blocks, order);
    }
  }
};

}  // namespace accrue::cuda
