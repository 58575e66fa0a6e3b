// A keyed pseudo-random permutation of [0, size): constant memory for any size. docs/numerics.md, section 10.
//
// Immutable after construction; thread-safe.
#pragma once

#include <cstdint>

#include "common/check.h"
#include "common/philox.h"

namespace accrue {

class Permutation {
 public:
  // Requires 1 <= size <= 2^62.
  Permutation(uint64_t size, uint64_t seed, uint64_t epoch) : size_(size), key_(SplitMix64(seed) ^ SplitMix64(~epoch)) {
    ACCRUE_CHECK(size >= 1 && size <= (uint64_t{1} << 62));
    while ((uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
    mask_ = (uint64_t{1} << half_bits_) - 1;
  }

  // Where index goes. Requires index < size. Walks the cycle until it falls into range: fewer than four steps
  // on average, since the domain is under four times the size.
  uint64_t operator()(uint64_t index) const {
    ACCRUE_CHECK(index < size_);
    do index = Encrypt(index);
    while (index >= size_);
    return index;
  }

 private:
  uint64_t Encrypt(uint64_t value) const {
    uint64_t left = value >> half_bits_, right = value & mask_;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t mixed = left ^ (SplitMix64(right ^ SplitMix64(key_ + round)) & mask_);
      left = right;
      right = mixed;
    }
    return (left << half_bits_) | right;
  }

  uint64_t size_;
  uint64_t key_;
  int half_bits_ = 1;
  uint64_t mask_ = 0;
};

}  // namespace accrue
