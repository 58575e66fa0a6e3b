// The calls of worker/collective/nccl/nccl_calls.h on NCCL itself and on a GPU's stream of its own.
//
// Not thread-safe: the compute thread's. The device must outlive it.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "worker/backend/cuda/cuda_device.h"
#include "worker/collective/nccl/nccl_calls.h"

namespace accrue::cuda {

// RESOURCE_EXHAUSTED without memory for what goes to the host; FAILED_PRECONDITION for a library that is older than what
// this was built for.
absl::StatusOr<std::unique_ptr<nccl::Calls>> CreateNcclCalls(CudaDevice& device);

}  // namespace accrue::cuda
