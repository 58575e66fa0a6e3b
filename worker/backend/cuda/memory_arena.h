// Places in one piece of memory that was taken ahead: handed out in ascending order, given back when nobody has any.
// No CUDA header is needed here.
//
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace accrue::cuda {

class MemoryArena {
 public:
  // A place that began nowhere.
  static constexpr size_t kNone = ~size_t{0};
  // What the device's own allocator aligns to.
  static constexpr size_t kAlignment = 256;

  // What so many pieces take at most, beside their sizes.
  static constexpr size_t Slack(size_t pieces) { return pieces * kAlignment; }

  explicit MemoryArena(size_t size_bytes) : size_bytes_(size_bytes) {}

  // The offset of a place of this size, or kNone when there is no room for it.
  size_t Take(size_t size_bytes) {
    const size_t begin = (used_bytes_ + kAlignment - 1) / kAlignment * kAlignment;
    if (begin > size_bytes_ || size_bytes > size_bytes_ - begin) return kNone;
    used_bytes_ = begin + size_bytes;
    ++pieces_;
    return begin;
  }
  // One place is given back. With the last one, all of the arena is free again.
  void GiveBack() {
    if (--pieces_ == 0) used_bytes_ = 0;
  }

  bool empty() const { return pieces_ == 0; }
  size_t size_bytes() const { return size_bytes_; }
  size_t free_bytes() const { return size_bytes_ - used_bytes_; }

 private:
  const size_t size_bytes_;
  size_t used_bytes_ = 0;
  int64_t pieces_ = 0;
};

}  // namespace accrue::cuda
