#include "worker/backend/cuda/model_kernels.h"

#include "worker/backend/cuda/launch.cuh"

namespace accrue::cuda {
namespace {

// Launches the body that it is called with.
template <typename Args>
struct Launcher {
  const Args& args;
  cudaStream_t stream;
  cudaError_t& error;
  template <typename Body>
  void operator()(Body, int64_t blocks) const {
    error = Launch<Body>(args, blocks, stream);
  }
};

}  // namespace

cudaError_t LaunchConvert(const ConvertArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  WithConvertBody(args, Launcher<ConvertArgs>{args, stream, error});
  return error;
}

cudaError_t LaunchRope(const RopeArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  WithRopeBody(args, Launcher<RopeArgs>{args, stream, error});
  return error;
}

cudaError_t LaunchSwiGluForward(const SwiGluArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  WithSwiGluForwardBody(args, Launcher<SwiGluArgs>{args, stream, error});
  return error;
}

cudaError_t LaunchSwiGluBackward(const SwiGluArgs& args, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  WithSwiGluBackwardBody(args, Launcher<SwiGluArgs>{args, stream, error});
  return error;
}

}  // namespace accrue::cuda
