#include "worker/backend/cuda/state_kernels.h"

#include "worker/backend/cuda/launch.cuh"

namespace accrue::cuda {
namespace {

template <typename Args>
cudaError_t LaunchBodyOf(const Args& args, int64_t chunks, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  WithBody(args, chunks, [&](auto body, int64_t blocks) { error = Launch<decltype(body)>(args, blocks, stream); });
  return error;
}

}  // namespace

cudaError_t LaunchState(const QuantizeArgs& args, int64_t chunks, cudaStream_t stream) {
  return LaunchBodyOf(args, chunks, stream);
}
cudaError_t LaunchState(const InspectArgs& args, int64_t chunks, cudaStream_t stream) {
  return LaunchBodyOf(args, chunks, stream);
}
cudaError_t LaunchState(const FloatAddArgs& args, int64_t chunks, cudaStream_t stream) {
  return LaunchBodyOf(args, chunks, stream);
}
cudaError_t LaunchState(const WeightedSumArgs& args, int64_t chunks, cudaStream_t stream) {
  return LaunchBodyOf(args, chunks, stream);
}
cudaError_t LaunchState(const SquareSumArgs& args, int64_t chunks, cudaStream_t stream) {
  return LaunchBodyOf(args, chunks, stream);
}
cudaError_t LaunchState(const UpdateKernelArgs& args, int64_t chunks, cudaStream_t stream) {
  return LaunchBodyOf(args, chunks, stream);
}
cudaError_t LaunchState(const HashArgs& args, int64_t chunks, cudaStream_t stream) {
  return LaunchBodyOf(args, chunks, stream);
}

}  // namespace accrue::cuda
