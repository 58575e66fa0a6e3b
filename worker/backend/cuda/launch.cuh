// Launches a kernel body (kernels/body.h, kernels/warp.h, kernels/attention_tiles.h) on a device.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "worker/backend/cuda/kernels/warp.h"

namespace accrue::cuda {

template <typename Body, typename = void>
struct IsWarpBody : std::false_type {};
template <typename Body>
struct IsWarpBody<Body, std::void_t<typename Body::State>> : std::true_type {};

template <typename Body>
constexpr int ThreadsOf() {
  if constexpr (IsWarpBody<Body>::value) {
    return Body::kWarps * kLanes;
  } else {
    return Body::kThreads;
  }
}

template <typename Body, int kPhase = 0>
__device__ __forceinline__ void RunPhases(const typename Body::Args& args, typename Body::Shared& shared) {
  Body::template Run<kPhase>(args, static_cast<int64_t>(blockIdx.x), static_cast<int>(threadIdx.x), shared);
  if constexpr (kPhase + 1 < Body::kPhases) {
    __syncthreads();
    RunPhases<Body, kPhase + 1>(args, shared);
  }
}

template <typename Body, int kPhase = 0>
__device__ __forceinline__ void RunWarpPhases(const typename Body::Args& args, typename Body::Shared& shared,
                                              typename Body::State& state) {
  Body::template Run<kPhase>(args, static_cast<int64_t>(blockIdx.x), static_cast<int>(threadIdx.x) / kLanes, shared,
                             state);
  if constexpr (kPhase + 1 < Body::kPhases) {
    __syncthreads();
    RunWarpPhases<Body, kPhase + 1>(args, shared, state);
  }
}

template <typename Body>
__global__ void __launch_bounds__(ThreadsOf<Body>()) RunBody(const __grid_constant__ typename Body::Args args) {
  __shared__ typename Body::Shared shared;
  if constexpr (IsWarpBody<Body>::value) {
    typename Body::State state;
    RunWarpPhases<Body>(args, shared, state);
  } else {
    RunPhases<Body>(args, shared);
  }
}

// Queues `blocks` blocks, fewer than 2^31. What it returns is of the launch; what the kernel does wrong shows later.
template <typename Body>
cudaError_t Launch(const typename Body::Args& args, int64_t blocks, cudaStream_t stream) {
  if (blocks == 0) return cudaSuccess;
  RunBody<Body><<<static_cast<unsigned>(blocks), ThreadsOf<Body>(), 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace accrue::cuda
