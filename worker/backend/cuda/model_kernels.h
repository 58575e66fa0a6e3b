// The model operations that are not matrix products, each queued on a stream of the current device as one
// launch or a few: worker/backend/model_ops.h says what each does. All give the same bits every time.
//
// What a launch returns is of the launch; what a kernel does wrong shows later. Where an operation takes scratch,
// that is device memory of at least the bytes that model_scratch.h says for the same arguments, aligned to
// 256; nothing else may use it until the operation is done. Operations of one stream may share one scratch.
// Nothing is allocated and the host is not waited for, so all of it can be captured in a graph.
#pragma once

#include <cuda_runtime_api.h>

#include "worker/backend/cuda/model_scratch.h"
#include "worker/backend/model_ops.h"

namespace accrue::cuda {

// To bf16 or f16.
cudaError_t LaunchConvert(const float* from, const Tensor& to, int64_t elements, cudaStream_t stream);

// What surrounds a matrix product where its library cannot do it.
cudaError_t LaunchGeluForward(const GeluArgs& args, cudaStream_t stream);
cudaError_t LaunchGeluBackward(const GeluArgs& args, cudaStream_t stream);
cudaError_t LaunchColumnSums(const ColumnSumsArgs& args, void* scratch, cudaStream_t stream);

cudaError_t LaunchEmbeddingForward(const EmbeddingForwardArgs& args, cudaStream_t stream);
cudaError_t LaunchEmbeddingBackward(const EmbeddingBackwardArgs& args, void* scratch, cudaStream_t stream);
cudaError_t LaunchNormForward(const NormForwardArgs& args, cudaStream_t stream);
cudaError_t LaunchNormBackward(const NormBackwardArgs& args, void* scratch, cudaStream_t stream);
cudaError_t LaunchRope(const RopeArgs& args, cudaStream_t stream);
// Requires AttentionSupports(args).
cudaError_t LaunchAttentionForward(const AttentionArgs& args, cudaStream_t stream);
cudaError_t LaunchAttentionBackward(const AttentionArgs& args, void* scratch, cudaStream_t stream);
cudaError_t LaunchSwiGluForward(const SwiGluArgs& args, cudaStream_t stream);
cudaError_t LaunchSwiGluBackward(const SwiGluArgs& args, cudaStream_t stream);
cudaError_t LaunchCrossEntropy(const CrossEntropyArgs& args, cudaStream_t stream);

}  // namespace accrue::cuda
