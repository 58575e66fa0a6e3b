// The model's elementwise kernels on the CPU: their bodies in loops against the reference, on the cases of
// those operations that every backend runs, with the threads in several orders.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "tests/backend/cuda/host_run.h"
#include "tests/backend/op_cases.h"
#include "tests/backend/reference_ops.h"
#include "worker/backend/cuda/model_bodies.h"

namespace accrue {
namespace {

const char* const kOperations[] = {"Rope", "SwiGluForward", "SwiGluBackward", "ConvertToBf16"};

bool HasKernel(const std::string& name) {
  for (const char* operation : kOperations) {
    if (name.rfind(operation, 0) == 0) return true;
  }
  return false;
}

// The operations that have kernels, and no others: a case that asks for another ends the test.
class KernelOps : public ModelOps {
 public:
  explicit KernelOps(cuda::ThreadOrder order) : order_(order) {}

  void Rope(const RopeArgs& args) override { cuda::WithRopeBody(args, Runner<RopeArgs>{args, order_}); }
  void SwiGluForward(const SwiGluArgs& args) override {
    cuda::WithSwiGluForwardBody(args, Runner<SwiGluArgs>{args, order_});
  }
  void SwiGluBackward(const SwiGluArgs& args) override {
    cuda::WithSwiGluBackwardBody(args, Runner<SwiGluArgs>{args, order_});
  }
  void ConvertToBf16(const float* from, void* to, int64_t elements) override {
    const cuda::ConvertArgs args = {from, static_cast<cuda::Bf16*>(to), elements};
    cuda::WithConvertBody(args, Runner<cuda::ConvertArgs>{args, order_});
  }

  void LinearForward(const LinearForwardArgs&) override { NoKernel(); }
  void LinearBackwardInput(const LinearBackwardInputArgs&) override { NoKernel(); }
  void LinearBackwardWeight(const LinearBackwardWeightArgs&) override { NoKernel(); }
  void EmbeddingForward(const EmbeddingForwardArgs&) override { NoKernel(); }
  void EmbeddingBackward(const EmbeddingBackwardArgs&) override { NoKernel(); }
  void NormForward(const NormForwardArgs&) override { NoKernel(); }
  void NormBackward(const NormBackwardArgs&) override { NoKernel(); }
  void AttentionForward(const AttentionArgs&) override { NoKernel(); }
  void AttentionBackward(const AttentionArgs&) override { NoKernel(); }
  void CrossEntropy(const CrossEntropyArgs&) override { NoKernel(); }

 private:
  template <typename Args>
  struct Runner {
    const Args& args;
    cuda::ThreadOrder order;
    template <typename Body>
    void operator()(Body, int64_t blocks) const {
      cuda::RunOnHost<Body>(args, blocks, order);
    }
  };

  static void NoKernel() { FAIL() << "this operation has no kernel"; }

  const cuda::ThreadOrder order_;
};

std::vector<OpCase> CasesWithKernels() {
  std::vector<OpCase> cases;
  for (const OpCase& op : OpCases()) {
    if (HasKernel(op.name)) cases.push_back(op);
  }
  return cases;
}

class ElementwiseKernelsTest : public testing::TestWithParam<std::tuple<OpCase, DType>> {};

TEST_P(ElementwiseKernelsTest, Run_InEveryOrderOfThreads_AgreesWithReferenceAndItself) {
  const auto& [op, dtype] = GetParam();
  const auto expected = RunCase(op, *CreateReferenceOps(), dtype);
  KernelOps up(cuda::ThreadOrder::kUp);
  const auto first = RunCase(op, up, dtype);
  ASSERT_EQ(expected.size(), first.size());
  for (size_t output = 0; output < expected.size(); ++output) ExpectNear(expected[output], first[output]);
  for (cuda::ThreadOrder order : {cuda::ThreadOrder::kDown, cuda::ThreadOrder::kOddFirst}) {
    KernelOps ops(order);
    const auto again = RunCase(op, ops, dtype);
    for (size_t output = 0; output < expected.size(); ++output)
      EXPECT_EQ(again[output].bytes, first[output].bytes);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, ElementwiseKernelsTest,
                         testing::Combine(testing::ValuesIn(CasesWithKernels()),
                                          testing::Values(DType::kF32, DType::kBF16)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name +
                                  (std::get<1>(info.param) == DType::kF32 ? "_f32" : "_bf16");
                         });

TEST(Elementwise, OperationsWithKernels_AllHaveCases) {
  for (const char* operation : kOperations) {
    bool found = false;
    for (const OpCase& op : CasesWithKernels()) found = found || op.name.rfind(operation, 0) == 0;
    EXPECT_TRUE(found) << operation;
  }
}

}  // namespace
}  // namespace accrue
