// NVTX ranges: what Nsight Systems shows of the thread that computes.
#pragma once

#include "common/profiler_ranges.h"

namespace accrue::cuda {

// As long as the process lives. Null where the toolkit that this was built with has no NVTX 3.
ProfilerRanges* NvtxRanges();

}  // namespace accrue::cuda
