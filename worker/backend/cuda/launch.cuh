// Launches a kernel body (kernels/body.h, kernels/warp.h, kernels/tile_loop.h) on a device.
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

template <typename Body, typename = void>
struct IsLoopBody : std::false_type {};
template <typename Body>
struct IsLoopBody<Body, std::void_t<decltype(&Body::Steps)>> : std::true_type {};

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

// Ends the group of copies that this thread started, and waits for all its groups but the last kLeft.
template <int kLeft>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}
__device__ __forceinline__ void EndCopyGroup() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <typename Body>
__global__ void __launch_bounds__(ThreadsOf<Body>(), Body::kBlocksAtOnce)
    RunLoopBody(const __grid_constant__ typename Body::Args args) {
  extern __shared__ __align__(128) unsigned char memory[];
  auto& shared = *reinterpret_cast<typename Body::Shared*>(memory);
  typename Body::State state;
  const int64_t block = blockIdx.x;
  const int warp = static_cast<int>(threadIdx.x) / kLanes, steps = Body::Steps(args, block);
  Body::Begin(args, block, warp, shared, state);
  Body::Fetch(args, block, 0, warp, shared, state);
  EndCopyGroup();
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) Body::Fetch(args, block, step + 1, warp, shared, state);
    EndCopyGroup();  // empty after the last step, so that one group is always ahead
    WaitForCopies<1>();
    __syncthreads();
    Body::Step(args, block, step, warp, shared, state);
    __syncthreads();
  }
  Body::End(args, block, warp, shared, state);
}

// Queues `blocks` blocks, fewer than 2^31. What it returns is of the launch; what the kernel does wrong shows later.
template <typename Body>
cudaError_t Launch(const typename Body::Args& args, int64_t blocks, cudaStream_t stream) {
  if (blocks == 0) return cudaSuccess;
  if constexpr (IsLoopBody<Body>::value) {
    constexpr int kSharedBytes = sizeof(typename Body::Shared);
    const cudaError_t error =
        cudaFuncSetAttribute(RunLoopBody<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
    if (error != cudaSuccess) return error;
    RunLoopBody<Body><<<static_cast<unsigned>(blocks), ThreadsOf<Body>(), kSharedBytes, stream>>>(args);
  } else {
    RunBody<Body><<<static_cast<unsigned>(blocks), ThreadsOf<Body>(), 0, stream>>>(args);
  }
  return cudaGetLastError();
}

// What model_bodies.h calls: launches, until one fails.
struct Launcher {
  cudaStream_t stream;
  cudaError_t& error;
  template <typename Body>
  void operator()(Body, const typename Body::Args& args, int64_t blocks) const {
    if (error == cudaSuccess) error = Launch<Body>(args, blocks, stream);
  }
};

}  // namespace accrue::cuda
