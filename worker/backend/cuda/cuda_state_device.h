// StateDevice on a GPU: launches on its stream, results through pinned memory.
//
// Not thread-safe. The device is the caller's and must outlive it.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "worker/backend/cuda/cuda_device.h"
#include "worker/backend/cuda/state_device.h"

namespace accrue::cuda {

// RESOURCE_EXHAUSTED where its small buffers do not fit.
absl::StatusOr<std::unique_ptr<StateDevice>> CreateCudaStateDevice(CudaDevice& device);

}  // namespace accrue::cuda
