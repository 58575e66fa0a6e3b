// What a kernel body is. A body is a struct with
//
//   Args      plain values and pointers; Shared: plain memory that the threads of one block have in common
//   kThreads  threads of a block; kPhases: how often Run is called for each of them
//   Run<kPhase>(args, block, thread, shared)
//
// Between two phases all threads of the block meet. Within a phase no thread reads what another thread of the
// launch writes in that phase, so threads may run in any order, one after the other too: a CPU runs a body in
// plain loops (tests/backend/cuda/host_run.h), the device runs the same text
// (worker/backend/cuda/launch.cuh). What a thread keeps from one phase to the next lies in Shared. Bodies are
// C++17, the CUDA compiler's dialect here.
#pragma once

#ifdef __CUDACC__
#define ACCRUE_BODY __host__ __device__ __forceinline__
#else
#define ACCRUE_BODY inline
#endif
// Before a loop of constant length, so that what it indexes stays in registers.
#ifdef __CUDA_ARCH__
#define ACCRUE_UNROLL _Pragma("unroll")
#else
#define ACCRUE_UNROLL
#endif

namespace accrue::cuda {

// Arguments of a launch with no shared memory.
struct NoShared {};

}  // namespace accrue::cuda
