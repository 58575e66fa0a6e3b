#pragma once

#include <cstdint>

namespace accrue {

// Bytes of physical memory that only this process can give back: without pages of mapped files (token shards, libraries),
// which the system takes back at will. 0 where the system does not say.
int64_t ResidentMemoryBytes();

}  // namespace accrue
