// A matrix product as cuBLASLt takes it, in its own terms: column-major matrices, D[m, n] = op(A) op(B) (+ D), then an
// epilogue. What the operations of model_ops.h are in these terms is linear.h's.
//
// Values. A problem names everything that an algorithm is chosen by, so that equal problems are computed alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "worker/backend/model_ops.h"

namespace accrue::cuda {

enum class GemmEpilogue {
  kNone,
  kBias,         // + bias[m], one for a row of D
  kGeluAux,      // aux = the result so far, D = gelu_tanh of it
  kGeluAuxBias,  // both
  kGeluGradient  // D = the result times gelu_tanh'(aux)
};

struct GemmProblem {
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  int64_t lda = 0, ldb = 0, ldd = 0;  // between columns, in elements; aux has D's
  DType input = DType::kF32;          // of A and B
  DType output = DType::kF32;         // of D, bias and aux
  bool tf32 = false;                  // of fp32 inputs: rounded to TF32
  bool accumulate = false;
  GemmEpilogue epilogue = GemmEpilogue::kNone;
  // In bytes, of the places in memory: powers of two, at most kMostGemmAlignment.
  int align_a = 0, align_b = 0, align_d = 0;

  bool operator==(const GemmProblem&) const = default;
};

// By what a class of numerics has its algorithms.
enum class GemmKind { kFp32AndBf16, kFp16, kTf32 };

// More is of no use to an algorithm, and where exactly an operand lies must not choose one.
inline constexpr int kMostGemmAlignment = 16;

struct GemmOperands {
  const void* a = nullptr;
  const void* b = nullptr;
  void* d = nullptr;
  const void* bias = nullptr;
  void* aux = nullptr;  // only read by kGeluGradient
};

struct GemmProblemHash {
  size_t operator()(const GemmProblem& problem) const;
};

// "768x8192x3072 tn bf16 to bf16 gelu-aux-bias, ld 3072 3072 768, aligned 16 16 16".
std::string GemmText(const GemmProblem& problem);

}  // namespace accrue::cuda
