// The model's kernels on the CPU: their bodies in loops against the reference, on the cases that every backend runs,
// with threads, warps and lanes in several orders. Matrix products are not kernels of this project: of those cases, the
// reference computes the product, and the kernels what surrounds it.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "tests/backend/cuda/warp_kernels_run.h"
#include "tests/backend/op_cases.h"
#include "tests/backend/reference_ops.h"
#include "worker/backend/cuda/model_bodies.h"

namespace accrue {
namespace {

// Device memory for one operation's scratch: NaN at first, with a guard that nothing may touch.
class TestScratch {
 public:
  template <typename Args>
  explicit TestScratch(const Args& args) : size_bytes_(cuda::ScratchBytes(args)) {
    memory_.assign((size_bytes_ + 2 * kGuardBytes) / sizeof(Unit) + 1, Unit());
    std::memset(memory_.data(), kPoison, memory_.size() * sizeof(Unit));
  }
  ~TestScratch() {
    const char* end = reinterpret_cast<const char*>(memory_.data()) + size_bytes_;
    for (size_t i = 0; i < kGuardBytes; ++i) {
      EXPECT_EQ(end[i], kPoison) << "an operation wrote beyond its scratch";
    }
  }
  void* data() { return memory_.data(); }

 private:
  struct alignas(256) Unit {
    char bytes[256];
  };
  static constexpr char kPoison = -1;
  static constexpr size_t kGuardBytes = 256;
  const size_t size_bytes_;
  std::vector<Unit> memory_;
};

class KernelOps : public ModelOps {
 public:
  explicit KernelOps(cuda::ThreadOrder order) : run_{order}, products_(CreateReferenceOps()) {}

  void LinearForward(const LinearForwardArgs& args) override {
    LinearForwardArgs product = args;
    if (args.gelu_input) product.y = args.gelu_input;
    product.gelu_input = {};
    products_->LinearForward(product);
    if (args.gelu_input) cuda::ForGeluForward({args.rows * args.out, args.gelu_input, args.y}, run_);
  }
  void LinearBackwardInput(const LinearBackwardInputArgs& args) override {
    LinearBackwardInputArgs product = args;
    product.gelu_input = {};
    products_->LinearBackwardInput(product);
    if (args.gelu_input) cuda::ForGeluBackward({args.rows * args.in, args.gelu_input, args.dx}, run_);
  }
  void LinearBackwardWeight(const LinearBackwardWeightArgs& args) override {
    LinearBackwardWeightArgs product = args;
    product.dbias = nullptr;
    products_->LinearBackwardWeight(product);
    if (args.dbias == nullptr) return;
    const cuda::ColumnSumsArgs sums = {args.rows, args.out, args.out, args.dy, args.dbias};
    cuda::ForColumnSums(sums, TestScratch(sums).data(), run_);
  }
  void EmbeddingForward(const EmbeddingForwardArgs& args) override { cuda::ForEmbeddingForward(args, run_); }
  void EmbeddingBackward(const EmbeddingBackwardArgs& args) override {
    cuda::ForEmbeddingBackward(args, TestScratch(args).data(), run_);
  }
  void NormForward(const NormForwardArgs& args) override { cuda::ForNormForward(args, run_); }
  void NormBackward(const NormBackwardArgs& args) override {
    cuda::ForNormBackward(args, TestScratch(args).data(), run_);
  }
  void Rope(const RopeArgs& args) override { cuda::ForRope(args, run_); }
  void AttentionForward(const AttentionArgs& args) override { cuda::ForAttentionForward(args, run_); }
  void AttentionBackward(const AttentionArgs& args) override {
    cuda::ForAttentionBackward(args, TestScratch(args).data(), run_);
  }
  void SwiGluForward(const SwiGluArgs& args) override { cuda::ForSwiGluForward(args, run_); }
  void SwiGluBackward(const SwiGluArgs& args) override { cuda::ForSwiGluBackward(args, run_); }
  void CrossEntropy(const CrossEntropyArgs& args) override { cuda::ForCrossEntropy(args, run_); }
  void Convert(const float* from, const Tensor& to, int64_t elements) override {
    cuda::ForConvert({from, to, elements}, run_);
  }

 private:
  const cuda::HostRunner run_;
  const std::unique_ptr<ModelOps> products_;
};

bool Contains(const std::string& name, const char* part) { return name.find(part) != std::string::npos; }

// All but those in which only a matrix product happens.
bool HasKernel(const std::string& name) {
  if (Contains(name, "LinearBackwardWeight")) return Contains(name, "Bias");
  return !Contains(name, "Linear") || Contains(name, "Gelu");
}

std::vector<OpCase> CasesWithKernels() {
  std::vector<OpCase> cases;
  for (const OpCase& op : OpCases()) {
    if (HasKernel(op.name)) cases.push_back(op);
  }
  return cases;
}

class ModelKernelsTest : public testing::TestWithParam<std::tuple<OpCase, DType>> {};

TEST_P(ModelKernelsTest, Run_InEveryOrderOfThreads_AgreesWithReferenceAndItself) {
  const auto& [op, dtype] = GetParam();
  const auto expected = RunCase(op, *CreateReferenceOps(), dtype);
  KernelOps up(cuda::ThreadOrder::kUp);
  const auto first = RunCase(op, up, dtype);
  ASSERT_EQ(expected.size(), first.size());
  for (size_t output = 0; output < expected.size(); ++output) {
    SCOPED_TRACE(output);
    ExpectNear(expected[output], first[output]);
  }
  for (cuda::ThreadOrder order : {cuda::ThreadOrder::kDown, cuda::ThreadOrder::kOddFirst}) {
    KernelOps ops(order);
    const auto again = RunCase(op, ops, dtype);
    for (size_t output = 0; output < expected.size(); ++output) {
      EXPECT_EQ(again[output].bytes, first[output].bytes) << "output " << output;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, ModelKernelsTest,
                         testing::Combine(testing::ValuesIn(CasesWithKernels()),
                                          testing::Values(DType::kF32, DType::kBF16, DType::kF16)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name +
                                  (std::string("_") + NameOf(std::get<1>(info.param)));
                         });

// Packs of every size from every offset, also where a block's number needs more than 32 bits: what numerics.md says.
template <int kCount>
void ExpectDrops(const Dropout& dropout) {
  const cuda::DropoutKey key = cuda::KeyOf(dropout);
  for (int64_t first : {int64_t{0}, int64_t{1} << 33, (int64_t{1} << 34) - 8, int64_t{1} << 34, int64_t{3} << 40}) {
    for (int64_t e = first; e < first + 8; ++e) {
      float values[kCount];
      for (int n = 0; n < kCount; ++n) values[n] = static_cast<float>(n + 1);
      cuda::Drop(key, e, values);
      for (int n = 0; n < kCount; ++n) {
        const uint64_t at = static_cast<uint64_t>(e + n);
        const bool keeps = DropoutBlock(dropout, at / 4)[at % 4] < DropoutThreshold(dropout);
        ASSERT_EQ(values[n], keeps ? static_cast<float>(n + 1) * DropoutScale(dropout) : 0.0f)
            << kCount << " elements from " << e << ", number " << n;
      }
    }
  }
}

TEST(Drop, AnyPackOfAnyElement_FollowsNumerics) {
  const Dropout half{.probability = 0.5f, .seed = 0x123456789abcdef, .window = 7, .unit = 9, .site = 0xfedcba98};
  const Dropout never{.probability = 1e-12f, .seed = 3, .window = 1, .unit = 2, .site = 4};
  for (const Dropout& dropout : {half, never}) {
    ExpectDrops<1>(dropout);
    ExpectDrops<2>(dropout);
    ExpectDrops<4>(dropout);
    ExpectDrops<8>(dropout);
  }
}

}  // namespace
}  // namespace accrue
