// The backends that the golden tests run on: all of the CPU's, or, where ACCRUE_GOLDEN_CUDA is defined, the first GPU.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"
#ifdef ACCRUE_GOLDEN_CUDA
#include "worker/backend/cuda/cuda_backend.h"
#else
#include "tests/backend/reference_ops.h"
#include "worker/backend/cpu/thread_pool.h"
#include "worker/backend/cpu_state/cpu_state_ops.h"
#endif

namespace accrue {

struct BackendCase {
  const char* name;
  // An error where the machine has none such: the test is skipped with it.
  absl::StatusOr<std::unique_ptr<Backend>> (*create)();
};

#ifdef ACCRUE_GOLDEN_CUDA

inline absl::StatusOr<std::unique_ptr<Backend>> CreateGpuBackend() {
  absl::StatusOr<std::unique_ptr<cuda::CudaBackend>> backend = cuda::CreateCudaBackend(0);
  if (!backend.ok()) return backend.status();
  return std::unique_ptr<Backend>(*std::move(backend));
}

inline std::vector<BackendCase> GoldenBackends() { return {{"cuda", CreateGpuBackend}}; }

#else

// The reference operations beside the CPU's own state operations, which have tests of their own.
inline absl::StatusOr<std::unique_ptr<Backend>> CreateReferenceBackendWithState() {
  static ThreadPool pool(2);
  return CreateReferenceBackend(CreateCpuStateOps(pool));
}

inline std::vector<BackendCase> GoldenBackends() {
  return {{"reference", CreateReferenceBackendWithState},
          {"cpu", []() -> absl::StatusOr<std::unique_ptr<Backend>> { return CreateCpuBackend(2); }}};
}

#endif

}  // namespace accrue
