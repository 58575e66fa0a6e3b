// The model operations that have kernels so far, queued on a stream of the current device:
// worker/backend/model_ops.h says what each does.
#pragma once

#include <cuda_runtime_api.h>

#include "worker/backend/cuda/model_bodies.h"

namespace accrue::cuda {

cudaError_t LaunchConvert(const ConvertArgs& args, cudaStream_t stream);
cudaError_t LaunchRope(const RopeArgs& args, cudaStream_t stream);
cudaError_t LaunchSwiGluForward(const SwiGluArgs& args, cudaStream_t stream);
cudaError_t LaunchSwiGluBackward(const SwiGluArgs& args, cudaStream_t stream);

}  // namespace accrue::cuda
