// Runs kernel bodies on the CPU, one thread after the other: worker/backend/cuda/kernels/body.h says why that
// is the same. Shared memory is poisoned before each block; the order of threads is the test's to choose,
// since a result that depends on it is a race on the device.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "worker/backend/cuda/state_bodies.h"
#include "worker/backend/cuda/state_device.h"

namespace accrue::cuda {

enum class ThreadOrder { kUp, kDown, kOddFirst };

inline std::vector<int> ThreadsIn(ThreadOrder order, int threads) {
  std::vector<int> list;
  if (order == ThreadOrder::kOddFirst) {
    for (int t = 1; t < threads; t += 2) list.push_back(t);
    for (int t = 0; t < threads; t += 2) list.push_back(t);
    return list;
  }
  for (int t = 0; t < threads; ++t) list.push_back(order == ThreadOrder::kUp ? t : threads - 1 - t);
  return list;
}

template <typename Body, int kPhase = 0>
void RunPhases(const typename Body::Args& args, int64_t block, const std::vector<int>& threads,
               typename Body::Shared& shared) {
  for (int thread : threads) Body::template Run<kPhase>(args, block, thread, shared);
  if constexpr (kPhase + 1 < Body::kPhases) RunPhases<Body, kPhase + 1>(args, block, threads, shared);
}

template <typename Body>
void RunOnHost(const typename Body::Args& args, int64_t blocks, ThreadOrder order) {
  using Shared = typename Body::Shared;
  static_assert(std::is_trivially_copyable_v<Shared> && std::is_trivially_default_constructible_v<Shared>);
  const std::vector<int> threads = ThreadsIn(order, Body::kThreads);
  const auto shared = std::make_unique<Shared>();
  for (int64_t i = 0; i < blocks; ++i) {
    std::memset(static_cast<void*>(shared.get()), 0xa5, sizeof(Shared));
    RunPhases<Body>(args, order == ThreadOrder::kDown ? blocks - 1 - i : i, threads, *shared);
  }
}

// Results for two chunks at a time: longer tensors take several launches.
class HostStateDevice : public StateDevice {
 public:
  explicit HostStateDevice(ThreadOrder order) : order_(order), results_(2 * kChunkResultBytes / 16) {
    std::memset(results_.data(), 0xcd, result_bytes());
  }

  void Launch(const QuantizeArgs& args, int64_t chunks) override { Run(args, chunks); }
  void Launch(const InspectArgs& args, int64_t chunks) override { Run(args, chunks); }
  void Launch(const FloatAddArgs& args, int64_t chunks) override { Run(args, chunks); }
  void Launch(const WeightedSumArgs& args, int64_t chunks) override { Run(args, chunks); }
  void Launch(const SquareSumArgs& args, int64_t chunks) override { Run(args, chunks); }
  void Launch(const UpdateKernelArgs& args, int64_t chunks) override { Run(args, chunks); }
  void Launch(const HashArgs& args, int64_t chunks) override { Run(args, chunks); }

  void* results() override { return results_.data(); }
  size_t result_bytes() const override { return results_.size() * sizeof(results_[0]); }
  const void* ReadResults(size_t) override { return results_.data(); }

 private:
  template <typename Args>
  void Run(const Args& args, int64_t chunks) {
    WithBody(args, chunks,
             [&](auto body, int64_t blocks) { RunOnHost<decltype(body)>(args, blocks, order_); });
  }

  const ThreadOrder order_;
  std::vector<xxh3::Canonical> results_;
};

}  // namespace accrue::cuda
