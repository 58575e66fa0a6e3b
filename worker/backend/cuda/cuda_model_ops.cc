#include "worker/backend/cuda/cuda_model_ops.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "common/status.h"
#include "worker/backend/cuda/cuda_gemm.h"
#include "worker/backend/cuda/linear.h"
#include "worker/backend/cuda/model_kernels.h"

namespace accrue::cuda {
namespace {

// Device memory that one operation after the other uses. Kernels of one stream run in order, so it can be shared; it is
// freed only when all that may use it is done.
class Scratch {
 public:
  explicit Scratch(CudaDevice& device) : device_(device) {}

  void* Get(size_t size_bytes) {
    if (size_bytes == 0) return nullptr;
    if (memory_ == nullptr || memory_->size_bytes() < size_bytes) Grow(size_bytes);
    return memory_->data();
  }

 private:
  void Grow(size_t size_bytes) {
    device_.Synchronize();
    memory_.reset();
    absl::StatusOr<std::unique_ptr<DeviceBuffer>> memory = device_.AllocateApart(size_bytes);
    if (!memory.ok()) {
      std::fprintf(stderr, "scratch for an operation of the model: %s; this worker ends\n",
                   std::string(memory.status().message()).c_str());
      std::abort();
    }
    memory_ = *std::move(memory);
  }

  CudaDevice& device_;
  std::unique_ptr<DeviceBuffer> memory_;
};

class LinearDevice : public GemmDevice {
 public:
  LinearDevice(CudaDevice& device, CudaGemm& gemm, Scratch& scratch)
      : device_(device), gemm_(gemm), scratch_(scratch) {}

  bool TryMultiply(const GemmProblem& problem, const GemmOperands& operands) override {
    return gemm_.TryMultiply(problem, operands);
  }
  void GeluForward(const GeluArgs& args) override {
    RequireCuda(LaunchGeluForward(args, device_.Stream()), "gelu forward", {{"elements", args.elements}});
  }
  void GeluBackward(const GeluArgs& args) override {
    RequireCuda(LaunchGeluBackward(args, device_.Stream()), "gelu backward", {{"elements", args.elements}});
  }
  void ColumnSums(const ColumnSumsArgs& args) override {
    RequireCuda(LaunchColumnSums(args, scratch_.Get(ScratchBytes(args)), device_.Stream()), "column sums",
                {{"rows", args.rows}, {"columns", args.columns}});
  }

 private:
  CudaDevice& device_;
  CudaGemm& gemm_;
  Scratch& scratch_;
};

class CudaModelOpsImplementation : public CudaModelOps {
 public:
  CudaModelOpsImplementation(CudaDevice& device, std::unique_ptr<CudaGemm> gemm)
      : device_(device),
        gemm_(std::move(gemm)),
        scratch_(device),
        linear_device_(device, *gemm_, scratch_),
        linear_(linear_device_) {}

  std::string GemmName(GemmKind kind) override { return gemm_->NumericName(kind); }

  void LinearForward(const LinearForwardArgs& args) override { linear_.Forward(args); }
  void LinearBackwardInput(const LinearBackwardInputArgs& args) override { linear_.BackwardInput(args); }
  void LinearBackwardWeight(const LinearBackwardWeightArgs& args) override { linear_.BackwardWeight(args); }

  void EmbeddingForward(const EmbeddingForwardArgs& args) override {
    RequireCuda(LaunchEmbeddingForward(args, device_.Stream()), "embedding forward",
                {{"rows", args.rows}, {"width", args.width}});
  }
  void EmbeddingBackward(const EmbeddingBackwardArgs& args) override {
    RequireCuda(LaunchEmbeddingBackward(args, scratch_.Get(ScratchBytes(args)), device_.Stream()),
                "embedding backward",
                {{"rows", args.rows}, {"width", args.width}, {"vocabulary", args.vocabulary}});
  }
  void NormForward(const NormForwardArgs& args) override {
    RequireCuda(LaunchNormForward(args, device_.Stream()), "norm forward", {{"rows", args.rows}, {"width", args.width}});
  }
  void NormBackward(const NormBackwardArgs& args) override {
    RequireCuda(LaunchNormBackward(args, scratch_.Get(ScratchBytes(args)), device_.Stream()), "norm backward",
                {{"rows", args.rows}, {"width", args.width}});
  }
  void Rope(const RopeArgs& args) override {
    RequireCuda(LaunchRope(args, device_.Stream()), "rope",
                {{"rows", args.rows}, {"heads", args.heads}, {"head_size", args.head_size}});
  }
  void AttentionForward(const AttentionArgs& args) override {
    RequireHeadSize(args);
    RequireCuda(LaunchAttentionForward(args, device_.Stream()), "attention forward",
                {{"batch", args.batch}, {"sequence_length", args.sequence_length}, {"heads", args.heads},
                 {"head_size", args.head_size}});
  }
  void AttentionBackward(const AttentionArgs& args) override {
    RequireHeadSize(args);
    RequireCuda(LaunchAttentionBackward(args, scratch_.Get(ScratchBytes(args)), device_.Stream()),
                "attention backward",
                {{"batch", args.batch}, {"sequence_length", args.sequence_length}, {"heads", args.heads},
                 {"head_size", args.head_size}});
  }
  void SwiGluForward(const SwiGluArgs& args) override {
    RequireCuda(LaunchSwiGluForward(args, device_.Stream()), "swiglu forward",
                {{"rows", args.rows}, {"hidden", args.hidden}});
  }
  void SwiGluBackward(const SwiGluArgs& args) override {
    RequireCuda(LaunchSwiGluBackward(args, device_.Stream()), "swiglu backward",
                {{"rows", args.rows}, {"hidden", args.hidden}});
  }
  void CrossEntropy(const CrossEntropyArgs& args) override {
    RequireCuda(LaunchCrossEntropy(args, device_.Stream()), "cross-entropy",
                {{"rows", args.rows}, {"vocabulary", args.vocabulary}});
  }
  void Convert(const float* from, const Tensor& to, int64_t elements) override {
    RequireCuda(LaunchConvert(from, to, elements, device_.Stream()), "convert to 16 bits", {{"elements", elements}});
  }

 private:
  static void RequireHeadSize(const AttentionArgs& args) {
    if (AttentionSupports(args)) return;
    std::fprintf(stderr, "no attention kernel for heads of %lld elements: expected 1 to 128; this worker ends\n",
                 static_cast<long long>(args.head_size));
    std::abort();
  }

  CudaDevice& device_;
  const std::unique_ptr<CudaGemm> gemm_;
  Scratch scratch_;
  LinearDevice linear_device_;
  Linear linear_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaModelOps>> CreateCudaModelOps(CudaDevice& device) {
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<CudaGemm> gemm, CudaGemm::Create(device));
  return std::unique_ptr<CudaModelOps>(std::make_unique<CudaModelOpsImplementation>(device, std::move(gemm)));
}

}  // namespace accrue::cuda
