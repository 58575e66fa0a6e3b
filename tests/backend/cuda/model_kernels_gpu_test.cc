// The model's kernels on a GPU, a thousand times at production size with the same bits. Skipped, with the reason, where
// there is no GPU.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <vector>

#include "common/exponents.h"
#include "common/hash.h"
#include "common/philox.h"
#include "tests/backend/reference_ops.h"
#include "worker/backend/cuda/cuda_device.h"
#include "worker/backend/cuda/cuda_state_device.h"
#include "worker/backend/cuda/kernel_state_ops.h"
#include "worker/backend/cuda/model_kernels.h"

namespace accrue {
namespace {

// Opened once; an error, with the reason, where there is no GPU.
const absl::StatusOr<std::unique_ptr<cuda::CudaDevice>>& Device() {
  static auto& device = *new absl::StatusOr<std::unique_ptr<cuda::CudaDevice>>(cuda::CudaDevice::Open(0));
  return device;
}

// What a race would spoil now and then: one operation of GPT-2 124M, eight sequences of 1,024 tokens, bf16.
class ModelKernelsRepeatTest : public testing::Test {
 protected:
  static constexpr int64_t kBatch = 8, kLength = 1024, kRows = kBatch * kLength, kWidth = 768, kHeads = 12;
  static constexpr int kRepeats = 1000;

  struct Array {
    std::unique_ptr<DeviceBuffer> live, original;
    int64_t elements;
    DType dtype;
    Tensor tensor() const { return {live->data(), dtype}; }
    float* f32() const { return live->as<float>(); }
  };

  void SetUp() override {
    if (!Device().ok()) GTEST_SKIP() << Device().status();
    device_ = Device()->get();
    state_device_ = cuda::CreateCudaStateDevice(*device_).value();
    state_ops_ = cuda::CreateKernelStateOps(*state_device_);
  }

  // Contents in [-1, 1), the same in every run of the test.
  Array* Make(int64_t elements, DType dtype) {
    std::vector<uint16_t> bf16;
    std::vector<float> f32;
    for (int64_t i = 0; i < elements; ++i) {
      const uint64_t bits = SplitMix64(arrays_.size() * 1000003 + i);
      const float value = static_cast<float>(static_cast<int64_t>(bits >> 40) - (1 << 23)) * 0x1p-23f;
      if (dtype == DType::kF32) {
        f32.push_back(value);
      } else {
        bf16.push_back(RoundToBf16(value));
      }
    }
    return Keep(dtype == DType::kF32 ? static_cast<const void*>(f32.data()) : bf16.data(), elements, dtype);
  }
  Array* Keep(const void* contents, int64_t elements, DType dtype) {
    const size_t size_bytes = elements * SizeOf(dtype);
    arrays_.push_back(std::make_unique<Array>(Array{device_->Allocate(size_bytes).value(),
                                                    device_->Allocate(size_bytes).value(), elements, dtype}));
    device_->CopyToDevice(arrays_.back()->original->data(), contents, size_bytes);
    return arrays_.back().get();
  }
  const int32_t* Tokens(int32_t vocabulary) {
    std::vector<int32_t> tokens(kRows);
    // Every fourth one of a few frequent tokens.
    for (int64_t i = 0; i < kRows; ++i) {
      const uint64_t bits = SplitMix64(99 + i);
      tokens[i] = static_cast<int32_t>(bits % 4 == 0 ? bits / 4 % 5 : bits / 4 % static_cast<uint64_t>(vocabulary));
    }
    tokens_ = device_->Allocate(kRows * 4).value();
    device_->CopyToDevice(tokens_->data(), tokens.data(), kRows * 4);
    return tokens_->as<int32_t>();
  }
  template <typename Args>
  void* ScratchOf(const Args& args) {
    scratch_ = device_->Allocate(cuda::ScratchBytes(args) + 1).value();
    return scratch_->data();
  }

  // All arrays as they were made before each run; hashed after it.
  void ExpectSameBits(const std::function<cudaError_t(cudaStream_t)>& run) {
    std::vector<Hash128> first;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      for (const auto& a : arrays_) {
        device_->Copy(a->live->data(), a->original->data(), a->elements * SizeOf(a->dtype));
      }
      cuda::RequireCuda(run(device_->Stream()), "a model operation's launch");
      std::vector<Hash128> hashes;
      for (const auto& a : arrays_) {
        const size_t chunks = (a->elements + kChunkElements - 1) / kChunkElements;
        hashes.resize(hashes.size() + chunks);
        state_ops_->HashChunks(a->live->data(), a->elements, static_cast<int>(SizeOf(a->dtype)),
                               hashes.data() + hashes.size() - chunks);
      }
      if (repeat == 0) first = hashes;
      ASSERT_EQ(hashes, first) << "repeat " << repeat;
    }
  }

  cuda::CudaDevice* device_ = nullptr;
  std::unique_ptr<cuda::StateDevice> state_device_;
  std::unique_ptr<StateOps> state_ops_;
  std::vector<std::unique_ptr<Array>> arrays_;
  std::unique_ptr<DeviceBuffer> tokens_, scratch_;
};

TEST_F(ModelKernelsRepeatTest, Attention_BothWays_GivesTheSameBits) {
  const int64_t stride = 3 * kWidth;
  const Tensor qkv = Make(kRows * stride, DType::kBF16)->tensor(), out = Make(kRows * kWidth, DType::kBF16)->tensor(),
               dout = Make(kRows * kWidth, DType::kBF16)->tensor(),
               gradients = Make(kRows * stride, DType::kBF16)->tensor();
  const auto part = [&](const Tensor& matrix, int64_t i) {
    return Tensor{static_cast<char*>(matrix.data) + i * kWidth * 2, DType::kBF16};
  };
  const AttentionArgs args{.batch = kBatch, .sequence_length = kLength, .heads = kHeads, .kv_heads = kHeads,
                           .head_size = kWidth / kHeads, .q = qkv, .k = part(qkv, 1), .v = part(qkv, 2), .out = out,
                           .q_stride = stride, .k_stride = stride, .v_stride = stride, .out_stride = kWidth,
                           .log_sum_exp = Make(kRows * kHeads, DType::kF32)->f32(), .dout = dout, .dq = gradients,
                           .dk = part(gradients, 1), .dv = part(gradients, 2)};
  void* const scratch = ScratchOf(args);
  ExpectSameBits([&](cudaStream_t stream) {
    const cudaError_t error = cuda::LaunchAttentionForward(args, stream);
    return error != cudaSuccess ? error : cuda::LaunchAttentionBackward(args, scratch, stream);
  });
}

TEST_F(ModelKernelsRepeatTest, Norm_BothWays_GivesTheSameBits) {
  const auto matrix = [&] { return Make(kRows * kWidth, DType::kBF16)->tensor(); };
  const NormForwardArgs forward{.rows = kRows, .width = kWidth, .epsilon = 1e-5f, .x = matrix(), .delta = matrix(),
                                .sum = matrix(), .gamma = Make(kWidth, DType::kBF16)->tensor(),
                                .beta = Make(kWidth, DType::kBF16)->tensor(), .y = matrix(),
                                .mean = Make(kRows, DType::kF32)->f32(), .rstd = Make(kRows, DType::kF32)->f32()};
  const NormBackwardArgs backward{.rows = kRows, .width = kWidth, .x = forward.sum, .gamma = forward.gamma,
                                  .dy = matrix(), .dresidual = matrix(), .mean = forward.mean, .rstd = forward.rstd,
                                  .dgamma = Make(kWidth, DType::kF32)->f32(),
                                  .dbeta = Make(kWidth, DType::kF32)->f32()};
  void* const scratch = ScratchOf(backward);
  ExpectSameBits([&](cudaStream_t stream) {
    const cudaError_t error = cuda::LaunchNormForward(forward, stream);
    return error != cudaSuccess ? error : cuda::LaunchNormBackward(backward, scratch, stream);
  });
}

TEST_F(ModelKernelsRepeatTest, EmbeddingBackward_OfFrequentTokens_GivesTheSameBits) {
  constexpr int32_t kVocabulary = 8192;
  const EmbeddingBackwardArgs args{.rows = kRows, .sequence_length = kLength, .width = kWidth,
                                   .vocabulary = kVocabulary, .context = kLength, .tokens = Tokens(kVocabulary),
                                   .dy = Make(kRows * kWidth, DType::kBF16)->tensor(),
                                   .dtoken = Make(kVocabulary * kWidth, DType::kF32)->f32(),
                                   .dposition = Make(kLength * kWidth, DType::kF32)->f32()};
  void* const scratch = ScratchOf(args);
  ExpectSameBits([&](cudaStream_t stream) { return cuda::LaunchEmbeddingBackward(args, scratch, stream); });
}

TEST_F(ModelKernelsRepeatTest, CrossEntropy_OfAnOddVocabulary_GivesTheSameBits) {
  constexpr int64_t kVocabulary = 50257, kTokens = 512;
  const CrossEntropyArgs args{.rows = kTokens, .vocabulary = kVocabulary,
                              .logits = Make(kTokens * kVocabulary, DType::kBF16)->tensor(),
                              .targets = Tokens(kVocabulary),
                              .losses = reinterpret_cast<double*>(Make(2 * kTokens, DType::kF32)->f32())};
  ExpectSameBits([&](cudaStream_t stream) { return cuda::LaunchCrossEntropy(args, stream); });
}

TEST_F(ModelKernelsRepeatTest, ColumnSums_OfAWideMatrix_GiveTheSameBits) {
  const cuda::ColumnSumsArgs args = {kRows, 3 * kWidth, 3 * kWidth, Make(kRows * 3 * kWidth, DType::kBF16)->tensor(),
                                     Make(3 * kWidth, DType::kF32)->f32()};
  void* const scratch = ScratchOf(args);
  ExpectSameBits([&](cudaStream_t stream) { return cuda::LaunchColumnSums(args, scratch, stream); });
}

TEST_F(ModelKernelsRepeatTest, ElementwiseOperations_GiveTheSameBits) {
  constexpr int32_t kVocabulary = 8192;
  constexpr int64_t kHidden = 4 * kWidth, kHeadSize = kWidth / kHeads;
  const auto matrix = [&](int64_t width) { return Make(kRows * width, DType::kBF16)->tensor(); };
  const EmbeddingForwardArgs embedding{.rows = kRows, .sequence_length = kLength, .width = kWidth,
                                       .tokens = Tokens(kVocabulary),
                                       .token_table = Make(kVocabulary * kWidth, DType::kBF16)->tensor(),
                                       .position_table = Make(kLength * kWidth, DType::kBF16)->tensor(),
                                       .y = matrix(kWidth),
                                       .dropout = {.probability = 0.1f, .seed = 1, .window = 2, .unit = 3, .site = 4}};
  const cuda::GeluArgs forward = {kRows * kHidden, matrix(kHidden), matrix(kHidden)};
  const cuda::GeluArgs backward = {kRows * kHidden, forward.z, matrix(kHidden)};
  const SwiGluArgs swiglu{.rows = kRows, .hidden = kHidden, .gate_stride = kHidden, .gate = forward.z,
                          .up = forward.y, .y = matrix(kHidden), .dy = backward.y, .dgate = matrix(kHidden),
                          .dup = matrix(kHidden)};
  const RopeArgs rope{.rows = kRows, .sequence_length = kLength, .heads = kHeads, .head_size = kHeadSize,
                      .stride = kWidth, .x = embedding.y,
                      .cosine = Make(kLength * kHeadSize / 2, DType::kF32)->f32(),
                      .sine = Make(kLength * kHeadSize / 2, DType::kF32)->f32()};
  ExpectSameBits([&](cudaStream_t stream) {
    for (cudaError_t error :
         {cuda::LaunchEmbeddingForward(embedding, stream), cuda::LaunchGeluForward(forward, stream),
          cuda::LaunchGeluBackward(backward, stream), cuda::LaunchSwiGluForward(swiglu, stream),
          cuda::LaunchSwiGluBackward(swiglu, stream), cuda::LaunchRope(rope, stream)}) {
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}

}  // namespace
}  // namespace accrue
