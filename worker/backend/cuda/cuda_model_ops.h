// The model's operations on a GPU: products by cuBLASLt, kernels around them, all queued on the device's stream.
//
// Not thread-safe. The device must outlive it. Scratch grows at an operation's first call with a shape, for which the
// device is waited for; afterwards nothing is allocated and nothing waited for. An operation that the device cannot
// compute ends the process with the call and its sizes.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/backend/cuda/cuda_device.h"
#include "worker/backend/cuda/gemm_problem.h"
#include "worker/backend/model_ops.h"

namespace accrue::cuda {

class CudaModelOps : public ModelOps {
 public:
  // Of the products that the rules choose algorithms for: CudaGemm::NumericName.
  virtual std::string GemmName(GemmKind kind) = 0;
};

// Codes of CudaGemm::Create.
absl::StatusOr<std::unique_ptr<CudaModelOps>> CreateCudaModelOps(CudaDevice& device);

}  // namespace accrue::cuda
