#include "worker/backend/cuda/cuda_state_device.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "worker/backend/cuda/state_kernels.h"

namespace accrue::cuda {
namespace {

// Of 21,845 chunks, or 358 million elements, in one launch.
constexpr size_t kResultBytes = size_t{1} << 20;

struct FreePinned {
  void operator()(void* memory) const { RequireCuda(cudaFreeHost(memory), "cudaFreeHost"); }
};
using PinnedMemory = std::unique_ptr<void, FreePinned>;

class CudaStateDevice : public StateDevice {
 public:
  CudaStateDevice(CudaDevice& device, std::unique_ptr<DeviceBuffer> results, PinnedMemory pinned)
      : device_(device), results_(std::move(results)), pinned_(std::move(pinned)) {}

  void Launch(const QuantizeArgs& args, int64_t chunks) override { Queue(args, chunks, "quantize and add"); }
  void Launch(const InspectArgs& args, int64_t chunks) override { Queue(args, chunks, "inspect"); }
  void Launch(const FloatAddArgs& args, int64_t chunks) override { Queue(args, chunks, "float add"); }
  void Launch(const WeightedSumArgs& args, int64_t chunks) override { Queue(args, chunks, "weighted sums"); }
  void Launch(const SquareSumArgs& args, int64_t chunks) override { Queue(args, chunks, "square sums"); }
  void Launch(const UpdateKernelArgs& args, int64_t chunks) override { Queue(args, chunks, "update"); }
  void Launch(const HashArgs& args, int64_t chunks) override { Queue(args, chunks, "hash chunks"); }

  void* results() override { return results_->data(); }
  size_t result_bytes() const override { return results_->size_bytes(); }
  const void* ReadResults(size_t size_bytes) override {
    ACCRUE_CHECK(size_bytes <= result_bytes());
    device_.CopyToHost(pinned_.get(), results_->data(), size_bytes);
    return pinned_.get();
  }

 private:
  template <typename Args>
  void Queue(const Args& args, int64_t chunks, const char* what) {
    RequireCuda(LaunchState(args, chunks, device_.Stream()), what);
  }

  CudaDevice& device_;
  const std::unique_ptr<DeviceBuffer> results_;
  const PinnedMemory pinned_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StateDevice>> CreateCudaStateDevice(CudaDevice& device) {
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> results = device.AllocateApart(kResultBytes);
  if (!results.ok()) return results.status();
  void* memory = nullptr;
  if (const cudaError_t error = cudaMallocHost(&memory, kResultBytes); error != cudaSuccess) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot pin ", kResultBytes, " bytes of host memory: ", cudaGetErrorString(error)));
  }
  return std::unique_ptr<StateDevice>(
      std::make_unique<CudaStateDevice>(device, *std::move(results), PinnedMemory(memory)));
}

}  // namespace accrue::cuda
