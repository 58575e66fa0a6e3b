#include "worker/backend/cuda/launch.cuh"
#include "worker/backend/cuda/model_bodies.h"
#include "worker/backend/cuda/model_kernels.h"

namespace accrue::cuda {

cudaError_t LaunchAttentionForward(const AttentionArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForAttentionForward(args, Launcher{stream, error});
  return error;
}

cudaError_t LaunchAttentionBackward(const AttentionArgs& args, void* scratch, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  ForAttentionBackward(args, scratch, Launcher{stream, error});
  return error;
}

}  // namespace accrue::cuda
