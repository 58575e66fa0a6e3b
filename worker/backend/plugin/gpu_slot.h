// Which GPU a worker process takes, where several would do, and which of the processes that share it this one is: told by
// locked files, which the kernel frees however a process ends. NCCL takes processes of one host on one GPU for a mistake,
// so those beyond the first must look like other hosts to it.
//
// Thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace accrue {

class GpuSlot {
 public:
  // Of these GPUs, named by what is the same for every process, the one that the fewest live processes have taken; the
  // first of several. folder: where the files lie, the same for all who share. INTERNAL with the file where none can be
  // locked.
  static absl::StatusOr<std::unique_ptr<GpuSlot>> TakeLeastUsed(const std::string& folder,
                                                                const std::vector<std::string>& gpus);
  ~GpuSlot();
  GpuSlot(const GpuSlot&) = delete;
  GpuSlot& operator=(const GpuSlot&) = delete;

  // Which of the GPUs it is of.
  int gpu() const { return gpu_; }
  // The least that no live process had of it; from 0.
  int number() const { return number_; }

 private:
  GpuSlot(int gpu, int number, int descriptor) : gpu_(gpu), number_(number), descriptor_(descriptor) {}

  const int gpu_, number_, descriptor_;
};

}  // namespace accrue
