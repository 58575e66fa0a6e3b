// Memory that operations reuse from call to call. Not thread-safe but where said.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "worker/backend/cpu/thread_pool.h"

namespace accrue::cpu {

// Grows, never shrinks; contents are lost when it grows. Aligned to a cache line.
class Scratch {
 public:
  void* Bytes(size_t size_bytes) {
    if (size_bytes > size_bytes_) {
      memory_.reset();
      memory_.reset(::operator new(size_bytes, kAlignment));
      size_bytes_ = size_bytes;
    }
    return memory_.get();
  }
  float* Floats(int64_t floats) { return static_cast<float*>(Bytes(floats * sizeof(float))); }
  void* data() const { return memory_.get(); }
  size_t size_bytes() const { return size_bytes_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(void* memory) const { ::operator delete(memory, kAlignment); }
  };

  std::unique_ptr<void, Free> memory_;
  size_t size_bytes_ = 0;
};

// One for each thread of a pool.
class ThreadScratch {
 public:
  explicit ThreadScratch(int threads) : scratch_(threads) {}

  // By the thread that drives the operations, before tasks run.
  void Reserve(size_t size_bytes) {
    for (Scratch& scratch : scratch_) scratch.Bytes(size_bytes);
  }
  // Within a task.
  void* OfThisThread() const { return scratch_[ThreadPool::CurrentThread()].data(); }
  size_t size_bytes() const { return scratch_[0].size_bytes(); }  // of each thread's

 private:
  std::vector<Scratch> scratch_;
};

}  // namespace accrue::cpu
