// How many worker processes share a GPU, and which of them this one is: told by locked files, which the kernel frees
// however a process ends. NCCL takes processes of one host on one GPU for a mistake, so those beyond the first must look
// like other hosts to it.
//
// Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace accrue {

class GpuSlot {
 public:
  // The first number that no live process has of this GPU. folder: where the files lie, the same for all who share it.
  // INTERNAL with the file where none can be locked.
  static absl::StatusOr<std::unique_ptr<GpuSlot>> Take(const std::string& folder, const std::string& gpu);
  ~GpuSlot();
  GpuSlot(const GpuSlot&) = delete;
  GpuSlot& operator=(const GpuSlot&) = delete;

  // From 0.
  int number() const { return number_; }

 private:
  GpuSlot(int number, int descriptor) : number_(number), descriptor_(descriptor) {}

  const int number_, descriptor_;
};

}  // namespace accrue
