#include "worker/backend/cuda/linear.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "common/check.h"

namespace accrue::cuda {
namespace {

// What the library asks of aux: columns a multiple of this many elements apart.
constexpr int64_t kAuxStep = 8;

int AlignmentOf(const void* pointer) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  int alignment = kMostGemmAlignment;
  while (address % alignment != 0) alignment /= 2;
  return alignment;
}

void TakeAlignments(const GemmOperands& operands, GemmProblem& problem) {
  problem.align_a = AlignmentOf(operands.a);
  problem.align_b = AlignmentOf(operands.b);
  problem.align_d = AlignmentOf(operands.d);
  // A problem has no other place for these, and an algorithm may take as much for granted of them.
  if (operands.bias != nullptr) problem.align_d = std::min(problem.align_d, AlignmentOf(operands.bias));
  if (operands.aux != nullptr) problem.align_d = std::min(problem.align_d, AlignmentOf(operands.aux));
}

}  // namespace

void Linear::Multiply(GemmProblem problem, const GemmOperands& operands) {
  TakeAlignments(operands, problem);
  if (device_.TryMultiply(problem, operands)) return;
  std::fprintf(stderr, "the GPU's library has no algorithm for the product %s; this worker ends\n",
               GemmText(problem).c_str());
  std::abort();
}

bool Linear::TryFused(GemmProblem problem, GemmEpilogue epilogue, const GemmOperands& operands) {
  if (problem.output == DType::kF32 || problem.ldd % kAuxStep != 0) return false;
  problem.epilogue = epilogue;
  TakeAlignments(operands, problem);
  // The library is told of no alignment of aux, and may take the best for granted.
  if (problem.align_d < kMostGemmAlignment) return false;
  return device_.TryMultiply(problem, operands);
}

// Row-major [r, c] is column-major [c, r] with the same distance, so the operations below compute the transposed
// output: y^T[out, rows] = W^T x^T.
void Linear::Forward(const LinearForwardArgs& args) {
  ACCRUE_CHECK(args.x.dtype == args.weight.dtype && args.y.dtype == args.x.dtype);
  ACCRUE_CHECK(!args.bias || args.bias.dtype == args.x.dtype);
  const bool out_in = args.layout == WeightLayout::kOutIn;
  const bool has_bias = static_cast<bool>(args.bias);
  GemmProblem problem{.m = args.out, .n = args.rows, .k = args.in,
                      .transpose_a = out_in,
                      .lda = out_in ? args.in : args.out, .ldb = args.in, .ldd = args.out,
                      .input = args.x.dtype, .output = args.y.dtype,
                      .tf32 = args.tf32,
                      .epilogue = has_bias ? GemmEpilogue::kBias : GemmEpilogue::kNone};
  GemmOperands operands{.a = args.weight.data, .b = args.x.data, .d = args.y.data, .bias = args.bias.data};
  if (!args.gelu_input) return Multiply(problem, operands);

  operands.aux = args.gelu_input.data;
  if (TryFused(problem, has_bias ? GemmEpilogue::kGeluAuxBias : GemmEpilogue::kGeluAux, operands)) return;
  operands.d = args.gelu_input.data;
  operands.aux = nullptr;
  if (!args.again) Multiply(problem, operands);
  device_.GeluForward({.elements = args.rows * args.out, .z = args.gelu_input, .y = args.y});
}

// dx^T[in, rows] = W dy^T.
void Linear::BackwardInput(const LinearBackwardInputArgs& args) {
  ACCRUE_CHECK(args.dy.dtype == args.weight.dtype && args.dx.dtype == args.dy.dtype);
  ACCRUE_CHECK(!(args.accumulate && args.gelu_input));
  const bool out_in = args.layout == WeightLayout::kOutIn;
  const GemmProblem problem{.m = args.in, .n = args.rows, .k = args.out,
                            .transpose_a = !out_in,
                            .lda = out_in ? args.in : args.out, .ldb = args.out, .ldd = args.in,
                            .input = args.dy.dtype, .output = args.dx.dtype,
                            .tf32 = args.tf32,
                            .accumulate = args.accumulate};
  GemmOperands operands{.a = args.weight.data, .b = args.dy.data, .d = args.dx.data};
  if (!args.gelu_input) return Multiply(problem, operands);

  operands.aux = args.gelu_input.data;
  if (TryFused(problem, GemmEpilogue::kGeluGradient, operands)) return;
  operands.aux = nullptr;
  Multiply(problem, operands);
  device_.GeluBackward({.elements = args.rows * args.in, .z = args.gelu_input, .y = args.dx});
}

// dW^T[in, out] = x^T dy for a weight [out, in]; [out, in] = dy^T x for a weight [in, out].
void Linear::BackwardWeight(const LinearBackwardWeightArgs& args) {
  ACCRUE_CHECK(args.x.dtype == args.dy.dtype);
  const bool out_in = args.layout == WeightLayout::kOutIn;
  const int64_t m = out_in ? args.in : args.out, n = out_in ? args.out : args.in;
  Multiply({.m = m, .n = n, .k = args.rows,
            .transpose_b = true,
            .lda = m, .ldb = n, .ldd = m,
            .input = args.x.dtype, .output = DType::kF32,
            .tf32 = args.tf32,
            .accumulate = args.accumulate},
           {.a = out_in ? args.x.data : args.dy.data, .b = out_in ? args.dy.data : args.x.data, .d = args.dweight});
  if (args.dbias == nullptr) return;
  device_.ColumnSums(
      {.rows = args.rows, .columns = args.out, .stride = args.out, .matrix = args.dy, .sums = args.dbias});
}

}  // namespace accrue::cuda
