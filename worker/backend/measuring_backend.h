// A backend that hands out sizes instead of memory: what is built on it says how much it would take, and holds nothing.
// Nothing may be computed on it.
//
// Not thread-safe. The backend whose operations it lends must outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "worker/backend/backend.h"

namespace accrue {

class MeasuringBackend : public Backend {
 public:
  explicit MeasuringBackend(Backend& lender) : lender_(lender) {}

  // Of all buffers that were asked for so far, whether they still live or not.
  int64_t allocated_bytes() const { return allocated_bytes_; }
  int buffers() const { return buffers_; }

  std::string DeviceName() const override { return lender_.DeviceName(); }
  std::string NumericClass(DType precision) const override { return lender_.NumericClass(precision); }
  // What the worker's device can do is its own affair.
  bool Supports(DType) const override { return true; }
  std::string Tf32NumericClass() const override { return NumericClass(DType::kF32); }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t size_bytes) override {
    allocated_bytes_ += static_cast<int64_t>(size_bytes);
    ++buffers_;
    return std::unique_ptr<DeviceBuffer>(std::make_unique<NoBuffer>(size_bytes));
  }
  void CopyToHost(void*, const void*, size_t) override {}
  void CopyToDevice(void*, const void*, size_t) override {}
  void Copy(void*, const void*, size_t) override {}
  void Zero(void*, size_t) override {}
  void Synchronize() override {}
  ModelOps& model_ops() override { return lender_.model_ops(); }
  StateOps& state_ops() override { return lender_.state_ops(); }

 private:
  class NoBuffer : public DeviceBuffer {
   public:
    explicit NoBuffer(size_t size_bytes) : size_bytes_(size_bytes) {}
    void* data() const override { return nullptr; }
    size_t size_bytes() const override { return size_bytes_; }

   private:
    const size_t size_bytes_;
  };

  Backend& lender_;
  int64_t allocated_bytes_ = 0;
  int buffers_ = 0;
};

}  // namespace accrue
