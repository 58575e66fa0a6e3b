// What the model operations' kernels need beside their operands, and the arguments of those that ModelOps does
// not name. No toolkit needed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "worker/backend/model_ops.h"

namespace accrue::cuda {

// Forward: y[i] = gelu_tanh(z[i]). Backward: y[i] *= gelu_tanh'(z[i]). y and z have one type.
struct GeluArgs {
  int64_t elements = 0;
  Tensor z, y;
};

// sums[c] = the sum over rows of matrix[r * stride + c], written. Rows in blocks of kColumnBlockRows, each summed
// top to bottom; the blocks' sums as docs/cuda.md says.
struct ColumnSumsArgs {
  int64_t rows = 0, columns = 0, stride = 0;
  Tensor matrix;
  float* sums = nullptr;
};

// Bytes of scratch; 0 where none is needed (then it may be null).
size_t ScratchBytes(const ColumnSumsArgs& args);
size_t ScratchBytes(const EmbeddingBackwardArgs& args);
size_t ScratchBytes(const NormBackwardArgs& args);
size_t ScratchBytes(const AttentionArgs& args);  // of the backward pass

// Whether there is a kernel for this head size: 1 to 128.
bool AttentionSupports(const AttentionArgs& args);

}  // namespace accrue::cuda
