// The linear operations of model_ops.h as matrix products with epilogues, and as kernels around them where the library
// has no algorithm for the epilogue. No CUDA header is needed here, so that it is tested wherever the project builds.
//
// Not thread-safe: one compute thread drives a device. The device is the caller's and must outlive what uses it.
#pragma once

#include "worker/backend/cuda/gemm_problem.h"
#include "worker/backend/cuda/model_scratch.h"
#include "worker/backend/model_ops.h"

namespace accrue::cuda {

// What the linear operations need of a device; all is queued, in call order.
class GemmDevice {
 public:
  virtual ~GemmDevice() = default;
  // False: there is no algorithm for this problem, now and ever; nothing is queued.
  virtual bool TryMultiply(const GemmProblem& problem, const GemmOperands& operands) = 0;
  virtual void GeluForward(const GeluArgs& args) = 0;
  virtual void GeluBackward(const GeluArgs& args) = 0;
  virtual void ColumnSums(const ColumnSumsArgs& args) = 0;
};

// GELU is an epilogue in bf16 and fp16 alone: in fp32 the library's is not as exact as the kernel's. Which it is follows from
// the shape and the library, so it is the same for every member of a job.
class Linear {
 public:
  explicit Linear(GemmDevice& device) : device_(device) {}

  void Forward(const LinearForwardArgs& args);
  void BackwardInput(const LinearBackwardInputArgs& args);
  void BackwardWeight(const LinearBackwardWeightArgs& args);

 private:
  // Ends the process where the library has no algorithm: a plain product of these types always has one.
  void Multiply(GemmProblem problem, const GemmOperands& operands);
  bool TryFused(GemmProblem problem, GemmEpilogue epilogue, const GemmOperands& operands);

  GemmDevice& device_;
};

}  // namespace accrue::cuda
