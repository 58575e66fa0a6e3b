// StateOps on the CPU: vectorised for the instruction set found at run time, the same bits on every one.
//
// Not thread-safe: one compute thread calls it. The pool is the caller's and must outlive it.
#pragma once

#include <memory>

#include "worker/backend/cpu/thread_pool.h"
#include "worker/backend/state_ops.h"

namespace accrue {

std::unique_ptr<StateOps> CreateCpuStateOps(ThreadPool& pool);

}  // namespace accrue
