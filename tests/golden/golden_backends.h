// The backends that the golden tests run on.
#pragma once

#include <memory>
#include <vector>

#include "tests/backend/reference_ops.h"
#include "worker/backend/backend.h"
#include "worker/backend/cpu/thread_pool.h"
#include "worker/backend/cpu_state/cpu_state_ops.h"

namespace accrue {

struct BackendCase {
  const char* name;
  std::unique_ptr<Backend> (*create)();
};

// The reference operations beside the CPU's own state operations, which have tests of their own.
inline std::unique_ptr<Backend> CreateReferenceBackendWithState() {
  static ThreadPool pool(2);
  return CreateReferenceBackend(CreateCpuStateOps(pool));
}

inline std::vector<BackendCase> GoldenBackends() {
  return {{"reference", CreateReferenceBackendWithState}, {"cpu", [] { return CreateCpuBackend(2); }}};
}

}  // namespace accrue
