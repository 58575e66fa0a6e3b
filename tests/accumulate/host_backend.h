// A backend of host memory with the CPU's state operations and no model operations, for tests of what lies
// above StateOps.
//
// Not thread-safe. `allocations_left` counts down; at 0, Allocate says that memory is short.
#pragma once

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "common/check.h"
#include "worker/backend/backend.h"
#include "worker/backend/cpu_state/cpu_state_ops.h"

namespace accrue {

class HostBackend : public Backend {
 public:
  explicit HostBackend(int threads = 2) : pool_(threads), state_ops_(CreateCpuStateOps(pool_)) {}

  std::atomic<int> allocations_left = 1000;

  std::string DeviceName() const override { return "host"; }
  std::string NumericClass(DType) const override { return "host"; }
  bool Supports(DType precision) const override { return precision == DType::kF32; }

  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t size_bytes) override {
    if (allocations_left-- <= 0) return absl::ResourceExhaustedError("no memory");
    return std::make_unique<HostBuffer>(size_bytes);
  }
  void CopyToHost(void* host, const void* device, size_t size_bytes) override {
    std::memcpy(host, device, size_bytes);
  }
  void CopyToDevice(void* device, const void* host, size_t size_bytes) override {
    std::memcpy(device, host, size_bytes);
  }
  void Copy(void* to, const void* from, size_t size_bytes) override { std::memcpy(to, from, size_bytes); }
  void Zero(void* device, size_t size_bytes) override { std::memset(device, 0, size_bytes); }
  void Synchronize() override {}

  ModelOps& model_ops() override {
    ACCRUE_CHECK(false);
    std::abort();
  }
  StateOps& state_ops() override { return *state_ops_; }

 private:
  class HostBuffer : public DeviceBuffer {
   public:
    explicit HostBuffer(size_t size_bytes)
        : size_bytes_(size_bytes), data_(std::aligned_alloc(64, (size_bytes + 63) / 64 * 64)) {
      std::memset(data_, 0, size_bytes);
    }
    ~HostBuffer() override { std::free(data_); }
    void* data() const override { return data_; }
    size_t size_bytes() const override { return size_bytes_; }

   private:
    const size_t size_bytes_;
    void* const data_;
  };

  ThreadPool pool_;
  std::unique_ptr<StateOps> state_ops_;
};

}  // namespace accrue
