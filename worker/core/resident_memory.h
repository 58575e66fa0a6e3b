#pragma once

#include <cstdint>

namespace accrue {

// Bytes of this process in physical memory; 0 where the system does not say.
int64_t ResidentMemoryBytes();

}  // namespace accrue
