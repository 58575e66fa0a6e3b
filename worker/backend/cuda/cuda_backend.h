// A GPU as a backend: one device, one stream, the model's and the state's operations.
//
// Not thread-safe, as Backend.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"
#include "worker/backend/cuda/cuda_device.h"

namespace accrue::cuda {

class CudaBackend : public Backend {
 public:
  virtual CudaDevice& device() = 0;
};

// What the code of this build needs of a driver and a GPU.
GpuNeeds CudaNeeds();

// Codes of CudaDevice::Open and CudaGemm::Create; RESOURCE_EXHAUSTED also where others leave too little memory free.
absl::StatusOr<std::unique_ptr<CudaBackend>> CreateCudaBackend(int ordinal);

}  // namespace accrue::cuda
