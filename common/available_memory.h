// How much memory this process could still take.
#pragma once

#include <cstdint>
#include <string>

#include "absl/types/optional.h"
#include "common/file_system.h"

namespace accrue {

// What the system would find for new memory without swapping (MemAvailable of /proc/meminfo), or, where that
// is less, what the process's control group (version 2) and those above it leave to their limits. Nothing
// where the system does not say. root: the folder that holds proc and sys, for tests.
absl::optional<int64_t> AvailableMemoryBytes(FileSystem& file_system, const std::string& root = "");

}  // namespace accrue
