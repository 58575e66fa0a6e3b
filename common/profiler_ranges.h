// Named ranges of a thread's time, for a profiler that is attached to the process: NVTX, where the CUDA
// backend is loaded.
//
// Of the calling thread; ranges nest. Costs next to nothing while no profiler is there.
#pragma once

#include <cstdint>

namespace accrue {

class ProfilerRanges {
 public:
  virtual ~ProfilerRanges() = default;
  // number: shown with the range unless it is negative.
  virtual void Push(const char* name, int64_t number) = 0;
  virtual void Pop() = 0;
};

}  // namespace accrue
