#include "worker/backend/cuda/cuda_backend.h"

#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status.h"
#include "common/version.h"
#include "worker/backend/cuda/cuda_model_ops.h"
#include "worker/backend/cuda/cuda_state_device.h"
#include "worker/backend/cuda/kernel_state_ops.h"
#include "worker/backend/cuda/model_scratch.h"

namespace accrue::cuda {
namespace {

// For the context, the libraries' code, the products' workspace and the operations' scratch.
constexpr int64_t kLeastMemoryBytes = int64_t{2} << 30;

class CudaBackendImplementation : public CudaBackend {
 public:
  CudaBackendImplementation(std::unique_ptr<CudaDevice> device, std::unique_ptr<CudaModelOps> model_ops,
                            std::unique_ptr<StateDevice> state_device)
      : device_(std::move(device)),
        model_ops_(std::move(model_ops)),
        state_device_(std::move(state_device)),
        state_ops_(CreateKernelStateOps(*state_device_)),
        gemm_name_(model_ops_->GemmName(GemmKind::kFp32AndBf16)),
        fp16_gemm_name_(model_ops_->GemmName(GemmKind::kFp16)),
        tf32_gemm_name_(model_ops_->GemmName(GemmKind::kTf32)) {}

  CudaDevice& device() override { return *device_; }
  std::string DeviceName() const override { return device_->Name(); }

  // The driver is no part of it: the code that runs is the build's and the libraries', and is translated by nobody.
  std::string NumericClass(DType precision) const override {
    return ClassOf(precision == DType::kF16 ? fp16_gemm_name_ : gemm_name_, NameOf(precision));
  }
  std::string Tf32NumericClass() const override { return ClassOf(tf32_gemm_name_, "tf32"); }
  bool Supports(DType) const override { return true; }
  int64_t LargestHeadSize() const override {
    int64_t size = 0;
    while (AttentionSupports({.head_size = size + 1})) ++size;
    return size;
  }

  absl::optional<int64_t> FreeBytes() override {
    size_t free_bytes = 0, total_bytes = 0;
    device_->GetMemory(free_bytes, total_bytes);
    return static_cast<int64_t>(free_bytes);
  }
  bool ReservesMemory() const override { return true; }
  absl::Status Reserve(size_t size_bytes, int buffers) override { return device_->Reserve(size_bytes, buffers); }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t size_bytes) override {
    return device_->Allocate(size_bytes);
  }
  void CopyToHost(void* host, const void* device, size_t size_bytes) override {
    device_->CopyToHost(host, device, size_bytes);
  }
  void CopyToDevice(void* device, const void* host, size_t size_bytes) override {
    device_->CopyToDevice(device, host, size_bytes);
  }
  void Copy(void* to, const void* from, size_t size_bytes) override { device_->Copy(to, from, size_bytes); }
  void Zero(void* device, size_t size_bytes) override { device_->Zero(device, size_bytes); }
  void Synchronize() override { device_->Synchronize(); }

  ModelOps& model_ops() override { return *model_ops_; }
  StateOps& state_ops() override { return *state_ops_; }

 private:
  std::string ClassOf(const std::string& gemm_name, const char* precision) const {
    const cudaDeviceProp& gpu = device_->properties();
    return absl::StrCat("cuda/sm-", gpu.major, ".", gpu.minor, "-", gpu.multiProcessorCount, "/", gemm_name, "/nvcc-",
                        ACCRUE_NVCC_VERSION, "/", precision, "/r", kKernelRevision);
  }

  const std::unique_ptr<CudaDevice> device_;
  const std::unique_ptr<CudaModelOps> model_ops_;
  const std::unique_ptr<StateDevice> state_device_;
  const std::unique_ptr<StateOps> state_ops_;
  const std::string gemm_name_, fp16_gemm_name_, tf32_gemm_name_;
};

}  // namespace

GpuNeeds CudaNeeds() {
  GpuNeeds needs{.driver_version = CUDART_VERSION / 1000 * 1000, .memory_bytes = kLeastMemoryBytes};
  // "80-real,90-real"
  for (absl::string_view name : absl::StrSplit(ACCRUE_CUDA_ARCHITECTURES, ',')) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(name, absl::MaxSplits('-', 1));
    if (int architecture = 0; absl::SimpleAtoi(parts.first, &architecture)) needs.architectures.push_back(architecture);
  }
  return needs;
}

absl::StatusOr<std::unique_ptr<CudaBackend>> CreateCudaBackend(int ordinal) {
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<CudaDevice> device, CudaDevice::Open(ordinal));
  size_t free_bytes = 0, total_bytes = 0;
  device->GetMemory(free_bytes, total_bytes);
  ACCRUE_RETURN_IF_ERROR(CheckFreeMemory(CudaNeeds(), absl::StrCat("GPU ", ordinal, " (", device->Name(), ")"),
                                         static_cast<int64_t>(free_bytes), static_cast<int64_t>(total_bytes)));
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<CudaModelOps> model_ops, CreateCudaModelOps(*device));
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<StateDevice> state_device, CreateCudaStateDevice(*device));
  return std::unique_ptr<CudaBackend>(std::make_unique<CudaBackendImplementation>(
      std::move(device), std::move(model_ops), std::move(state_device)));
}

}  // namespace accrue::cuda
