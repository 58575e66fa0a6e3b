// One wrong bit, for --fault (common/fault_points.h).
#pragma once

#include <bit>
#include <cstdint>

#include "worker/backend/backend.h"

namespace accrue {

// Flips a bit of one element in the backend's memory: of a float its sign, of an integer one that is neither low nor the
// sign.
inline void FlipBit(Backend& backend, float* element) {
  float value = 0;
  backend.CopyToHost(&value, element, sizeof(value));
  value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ (uint32_t{1} << 31));
  backend.CopyToDevice(element, &value, sizeof(value));
}
inline void FlipBit(Backend& backend, int64_t* element) {
  int64_t value = 0;
  backend.CopyToHost(&value, element, sizeof(value));
  value ^= int64_t{1} << 40;
  backend.CopyToDevice(element, &value, sizeof(value));
}

}  // namespace accrue
