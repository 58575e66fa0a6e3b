// Matrix products by cuBLASLt, so chosen that equal problems give equal bits on equal devices.
//
// The rules: the library's heuristics name algorithms (a function of the problem, the library's version and the device;
// nothing is timed); of these the first is taken that needs no more than a workspace of fixed size, computes in the type
// asked for (no TF32), and, where it splits K, adds the parts in binary32 in an order of its own, never by atomics and
// never in the output's type. An algorithm is kept for its problem.
//
// Not thread-safe: one compute thread drives a device. The device must outlive it. Errors of the library end the process
// with the call, its place and the problem.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "worker/backend/cuda/cuda_device.h"
#include "worker/backend/cuda/gemm_problem.h"

namespace accrue::cuda {

class CudaGemm {
 public:
  // RESOURCE_EXHAUSTED without memory for the workspace; FAILED_PRECONDITION with the library's words when it does not
  // start, or is of another major version than this was built for.
  static absl::StatusOr<std::unique_ptr<CudaGemm>> Create(CudaDevice& device);
  ~CudaGemm();
  CudaGemm(const CudaGemm&) = delete;
  CudaGemm& operator=(const CudaGemm&) = delete;

  // False: the library has no algorithm for this problem, now and ever; nothing is queued.
  bool TryMultiply(const GemmProblem& problem, const GemmOperands& operands);

  // "cublaslt-13.1.0-1a2b3c4d": the library, and a hash of the algorithms that the rules choose for a fixed list of
  // problems. It differs where the heuristics do, whatever makes them.
  std::string NumericName(GemmKind kind);

 private:
  struct Plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
    bool exists = false;
    ~Plan();
  };

  CudaGemm(CudaDevice& device, cublasLtHandle_t handle, std::unique_ptr<DeviceBuffer> workspace);
  const Plan& PlanFor(const GemmProblem& problem, const GemmOperands& operands);
  void Describe(const GemmProblem& problem, Plan& plan) const;
  void SetPointers(const GemmProblem& problem, const GemmOperands& operands, const Plan& plan) const;
  bool ChooseAlgorithm(const GemmProblem& problem, Plan& plan) const;

  CudaDevice& device_;
  const cublasLtHandle_t handle_;
  const std::unique_ptr<DeviceBuffer> workspace_;
  std::unordered_map<GemmProblem, std::unique_ptr<Plan>, GemmProblemHash> plans_;
};

}  // namespace accrue::cuda
