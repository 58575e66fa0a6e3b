// StateOps as kernel launches: cuts an operation to what fits the result buffer and turns results into the
// host's terms. No CUDA header is needed here, so that it is tested wherever the project builds.
//
// Not thread-safe. The device is the caller's and must outlive it. An operation with results for the host
// waits for the device, as StateOps asks.
#pragma once

#include <memory>

#include "worker/backend/cuda/state_device.h"
#include "worker/backend/state_ops.h"

namespace accrue::cuda {

std::unique_ptr<StateOps> CreateKernelStateOps(StateDevice& device);

}  // namespace accrue::cuda
