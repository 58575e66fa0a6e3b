// One GPU: its memory, one stream in which everything is queued in call order, and errors in words.
//
// Thread-safe as Backend: one compute thread drives a device; others may allocate, free, copy to the host and zero.
// Buffers must not outlive it.
//
// Opening a device and asking it for memory give a Status. A device that fails later (an illegal address, a
// lost GPU) can no longer be trusted with anything: the process ends with the place and CUDA's words, and
// comes back as a new incarnation.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <source_location>
#include <string>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"
#include "worker/backend/cuda/memory_arena.h"
#include "worker/backend/plugin/gpu_probe.h"

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
  absl::Status Reserve(size_t size_bytes, int buffers);
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t size_bytes);
  // The same, never of what is reserved: for what outlives jobs.
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocateApart(size_t size_bytes);
  void CopyToHost(void* host, const void* device, size_t size_bytes);
  void CopyToDevice(void* device, const void* host, size_t size_bytes);
  void Copy(void* to, const void* from, size_t size_bytes);
  void Zero(void* device, size_t size_bytes);
  void Synchronize();

  // The stream, with this device made the calling thread's current one.
  cudaStream_t Stream();
  int ordinal() const { return ordinal_; }
  const cudaDeviceProp& properties() const { return properties_; }
  void GetMemory(size_t& free_bytes, size_t& total_bytes);

 private:
  class Arena;

  CudaDevice(int ordinal, const cudaDeviceProp& properties, cudaStream_t stream)
      : ordinal_(ordinal), properties_(properties), stream_(stream) {}
  absl::StatusOr<void*> TakeMemory(size_t size_bytes);
  void ZeroNew(const DeviceBuffer& buffer);

  const int ordinal_;
  const cudaDeviceProp properties_;
  const cudaStream_t stream_;
  std::shared_ptr<Arena> arena_;  // what was reserved last; null: nothing
};

// What a call was about: a size, a count.
struct CallDetail {
  const char* name;
  int64_t value;
};

// Ends the process unless error is cudaSuccess, with the call, its details, its place and CUDA's words.
void RequireCuda(cudaError_t error, const char* what, std::initializer_list<CallDetail> details = {},
                 std::source_location where = std::source_location::current());

}  // namespace accrue::cuda
