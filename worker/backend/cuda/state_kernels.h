// The state operations' kernels, queued on a stream of the current device; chunks as in StateDevice. The CUDA
// compiler sees these declarations and the bodies, nothing else of the project.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "worker/backend/cuda/state_bodies.h"

namespace accrue::cuda {

cudaError_t LaunchState(const QuantizeArgs& args, int64_t chunks, cudaStream_t stream);
cudaError_t LaunchState(const InspectArgs& args, int64_t chunks, cudaStream_t stream);
cudaError_t LaunchState(const FloatAddArgs& args, int64_t chunks, cudaStream_t stream);
cudaError_t LaunchState(const WeightedSumArgs& args, int64_t chunks, cudaStream_t stream);
cudaError_t LaunchState(const SquareSumArgs& args, int64_t chunks, cudaStream_t stream);
cudaError_t LaunchState(const UpdateKernelArgs& args, int64_t chunks, cudaStream_t stream);
cudaError_t LaunchState(const HashArgs& args, int64_t chunks, cudaStream_t stream);

}  // namespace accrue::cuda
