// Loop bodies: the third kind of kernel body (kernels/body.h, kernels/warp.h). A block goes through steps; what a step
// needs from device memory is brought to shared memory while the step before it computes.
//
//   Args, Shared, State, kWarps   as for warp bodies
//   kBlocksAtOnce                 blocks of a multiprocessor between which its registers are shared out
//   Steps(args, block)            at least 1, the same for all warps
//   Begin(args, block, warp, shared, state)
//   Fetch(args, block, step, warp, shared, state) brings what step reads to half step % 2 of Shared's buffers
//   Step(args, block, step, warp, shared, state)
//   End(args, block, warp, shared, state)
//
// All warps meet before each Step, and again after it: Step(i) sees what Begin and Fetch(i) wrote; Fetch(i + 1) runs
// beside it. A warp's State is its own.
#pragma once

#include "worker/backend/cuda/kernels/tiles.h"

namespace accrue::cuda {

// Which half of a buffer step uses.
ACCRUE_BODY int HalfOfStep(int step) { return step % 2; }

}  // namespace accrue::cuda
