// One GPU: its memory, one stream in which everything is queued in call order, and errors in words.
//
// Not thread-safe: one compute thread drives a device at a time. Buffers must not outlive it.
//
// Opening a device and asking it for memory give a Status. A device that fails later (an illegal address, a
// lost GPU) can no longer be trusted with anything: the process ends with the place and CUDA's words, and
// comes back as a new incarnation.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"

namespace accrue::cuda {

class CudaDevice {
 public:
  // FAILED_PRECONDITION: no driver, one too old, no GPU, or one of a compute capability that no kernel is
  // built for; NOT_FOUND: no GPU of this number. Each says what was found and what is needed.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Open(int ordinal);
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  // As Backend's functions of these names. Copies between host and device are done on return.
  std::string Name() const;
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t size_bytes);
  void CopyToHost(void* host, const void* device, size_t size_bytes);
  void CopyToDevice(void* device, const void* host, size_t size_bytes);
  void Copy(void* to, const void* from, size_t size_bytes);
  void Zero(void* device, size_t size_bytes);
  void Synchronize();

  // The stream, with this device made the calling thread's current one.
  cudaStream_t Stream();

 private:
  CudaDevice(int ordinal, const cudaDeviceProp& properties, cudaStream_t stream)
      : ordinal_(ordinal), properties_(properties), stream_(stream) {}

  const int ordinal_;
  const cudaDeviceProp properties_;
  const cudaStream_t stream_;
};

// Ends the process unless error is cudaSuccess; `what` names the call that returned it.
void RequireCuda(cudaError_t error, const char* what);

}  // namespace accrue::cuda
