// One device's memory and operations. The CPU and CUDA implement it; nothing above sees which.
//
// Not thread-safe except where said: one compute thread drives a backend. Operations are queued in call order;
// on the CPU they are done on return. Another thread may call Allocate, and CopyToHost and Zero on memory that nobody writes
// meanwhile: these are done on return everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "worker/backend/model_ops.h"
#include "worker/backend/state_ops.h"

namespace accrue {

// Device memory, freed with the object. Aligned to 64 bytes or better.
class DeviceBuffer {
 public:
  virtual ~DeviceBuffer() = default;
  virtual void* data() const = 0;
  virtual size_t size_bytes() const = 0;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data());
  }
};

class Backend {
 public:
  virtual ~Backend() = default;

  // For people: "AMD EPYC 9xx5, 2 threads".
  virtual std::string DeviceName() const = 0;
  // What must match for equal bits: docs/numerics.md, section 1.
  virtual std::string NumericClass(DType precision) const = 0;
  // The same where products of f32 are computed in TF32; empty: it does not compute them so.
  virtual std::string Tf32NumericClass() const { return ""; }
  // Whether the device computes in this precision.
  virtual bool Supports(DType precision) const = 0;
  // The largest size of an attention head that it computes.
  virtual int64_t LargestHeadSize() const { return std::numeric_limits<int64_t>::max(); }

  // How much memory Allocate and Reserve could still find; nothing where that is not known.
  virtual absl::optional<int64_t> FreeBytes() { return absl::nullopt; }
  // Whether Reserve is of use: memory is the device's own, and small.
  virtual bool ReservesMemory() const { return false; }
  // Takes memory ahead for so many buffers of this size together, so that Allocate then takes none from the system.
  // Called when no buffer of a job before is left. RESOURCE_EXHAUSTED as Allocate.
  virtual absl::Status Reserve(size_t size_bytes, int buffers) { return absl::OkStatus(); }
  // Zeroed. RESOURCE_EXHAUSTED with the size asked for and what is free.
  virtual absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t size_bytes) = 0;
  virtual void CopyToHost(void* host, const void* device, size_t size_bytes) = 0;
  virtual void CopyToDevice(void* device, const void* host, size_t size_bytes) = 0;
  virtual void Copy(void* to, const void* from, size_t size_bytes) = 0;  // within the device
  virtual void Zero(void* device, size_t size_bytes) = 0;
  // Waits for everything queued.
  virtual void Synchronize() = 0;

  virtual ModelOps& model_ops() = 0;
  virtual StateOps& state_ops() = 0;
};

// threads: how many the operations use, 0 for all the process may. The results do not depend on it.
std::unique_ptr<Backend> CreateCpuBackend(int threads);

}  // namespace accrue
