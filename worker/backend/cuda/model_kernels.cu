#include "worker/backend/cuda/model_kernels.h"

#include "worker/backend/cuda/launch.cuh"
#include "worker/backend/cuda/model_bodies.h"

namespace accrue::cuda {
cudaError_t LaunchConvert(const float* from, const Tensor& to, int64_t elements, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForConvert({from, to, elements}, Launcher{stream, error});
  return error;
}

cudaError_t LaunchGeluForward(const GeluArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForGeluForward(args, Launcher{stream, error});
  return error;
}

cudaError_t LaunchGeluBackward(const GeluArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForGeluBackward(args, Launcher{stream, error});
  return error;
}

cudaError_t LaunchColumnSums(const ColumnSumsArgs& args, void* scratch, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForColumnSums(args, scratch, Launcher{stream, error});
  return error;
}

cudaError_t LaunchEmbeddingForward(const EmbeddingForwardArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForEmbeddingForward(args, Launcher{stream, error});
  return error;
}

cudaError_t LaunchEmbeddingBackward(const EmbeddingBackwardArgs& args, void* scratch, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForEmbeddingBackward(args, scratch, Launcher{stream, error});
  return error;
}

cudaError_t LaunchNormForward(const NormForwardArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForNormForward(args, Launcher{stream, error});
  return error;
}

cudaError_t LaunchNormBackward(const NormBackwardArgs& args, void* scratch, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForNormBackward(args, scratch, Launcher{stream, error});
  return error;
}

cudaError_t LaunchRope(const RopeArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForRope(args, Launcher{stream, error});
  return error;
}

cudaError_t LaunchSwiGluForward(const SwiGluArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForSwiGluForward(args, Launcher{stream, error});
  return error;
}

cudaError_t LaunchSwiGluBackward(const SwiGluArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForSwiGluBackward(args, Launcher{stream, error});
  return error;
}

cudaError_t LaunchCrossEntropy(const CrossEntropyArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForCrossEntropy(args, Launcher{stream, error});
  return error;
}

}  // namespace accrue::cuda
