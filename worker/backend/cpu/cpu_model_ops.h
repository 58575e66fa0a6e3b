// The CPU's model operations: oneDNN's products on tiles fixed by shape, own vectorised kernels around them.
// Results depend on the arguments and the instruction set, never on the pool's threads.
//
// Not thread-safe; the pool must outlive the operations. Scratch grows at an operation's first call with a shape;
// afterwards nothing is allocated here.
#pragma once

#include <memory>

#include "worker/backend/cpu/thread_pool.h"
#include "worker/backend/model_ops.h"

namespace accrue {

std::unique_ptr<ModelOps> CreateCpuModelOps(ThreadPool& pool);

}  // namespace accrue
