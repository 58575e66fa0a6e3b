// Launches a kernel body (kernels/body.h) on a device.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace accrue::cuda {

template <typename Body, int kPhase = 0>
__device__ __forceinline__ void RunPhases(const typename Body::Args& args, typename Body::Shared& shared) {
  Body::template Run<kPhase>(args, static_cast<int64_t>(blockIdx.x), static_cast<int>(threadIdx.x), shared);
  if constexpr (kPhase + 1 < Body::kPhases) {
    __syncthreads();
    RunPhases<Body, kPhase + 1>(args, shared);
  }
}

template <typename Body>
__global__ void __launch_bounds__(Body::kThreads) RunBody(const __grid_constant__ typename Body::Args args) {
  __shared__ typename Body::Shared shared;
  RunPhases<Body>(args, shared);
}

// Queues `blocks` blocks, fewer than 2^31. What it returns is of the launch; what the kernel does wrong shows later.
template <typename Body>
cudaError_t Launch(const typename Body::Args& args, int64_t blocks, cudaStream_t stream) {
  if (blocks == 0) return cudaSuccess;
  RunBody<Body><<<static_cast<unsigned>(blocks), Body::kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace accrue::cuda
