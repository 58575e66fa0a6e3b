// Work on several threads whose results do not depend on how many there are.
//
// Functions; the callables given run on other threads, but never two for the same index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"

namespace accrue {

// Threads to use where none are asked for.
int DefaultThreads();

// work(i) for each i in [0, count). Of several errors that of the lowest index is returned.
absl::Status ParallelFor(size_t count, int threads, const std::function<absl::Status(size_t)>& work);

}  // namespace accrue
