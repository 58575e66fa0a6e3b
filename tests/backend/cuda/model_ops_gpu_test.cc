// Every model operation on a GPU: against the reference, on the cases that every backend runs, and to itself again.
// Skipped, with the reason, where there is no GPU.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "tests/backend/cuda/mirror_ops.h"
#include "tests/backend/op_cases.h"
#include "tests/backend/reference_ops.h"
#include "worker/backend/cuda/cuda_backend.h"

namespace accrue {
namespace {

// One device for all cases.
const absl::StatusOr<std::unique_ptr<cuda::CudaBackend>>& Gpu() {
  static const auto& backend = *new absl::StatusOr<std::unique_ptr<cuda::CudaBackend>>(cuda::CreateCudaBackend(0));
  return backend;
}

std::vector<OpArrays::Output> RunOnGpu(const OpCase& op, DType dtype) {
  OpArrays arrays;
  MirrorOps ops(**Gpu(), arrays);
  op.run(ops, arrays, dtype);
  return arrays.Outputs();
}

class CudaModelOpsTest : public testing::TestWithParam<std::tuple<size_t, DType>> {
 protected:
  void SetUp() override {
    if (!Gpu().ok()) GTEST_SKIP() << Gpu().status();
  }
  const OpCase& op() const { return OpCases()[std::get<0>(GetParam())]; }
  DType dtype() const { return std::get<1>(GetParam()); }
};

TEST_P(CudaModelOpsTest, Run_OnTheGpu_AgreesWithReference) {
  const auto expected = RunCase(op(), *CreateReferenceOps(), dtype());
  const auto actual = RunOnGpu(op(), dtype());
  ASSERT_EQ(expected.size(), actual.size());
  for (size_t output = 0; output < expected.size(); ++output) {
    SCOPED_TRACE(output);
    ExpectNear(expected[output], actual[output]);
  }
}

TEST_P(CudaModelOpsTest, Run_Again_SameBits) {
  const auto expected = RunOnGpu(op(), dtype());
  for (int repeat = 0; repeat < 3; ++repeat) {
    const auto actual = RunOnGpu(op(), dtype());
    ASSERT_EQ(expected.size(), actual.size());
    for (size_t output = 0; output < expected.size(); ++output) {
      ASSERT_TRUE(expected[output].bytes == actual[output].bytes) << "repeat " << repeat << ", output " << output;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, CudaModelOpsTest,
                         testing::Combine(testing::Range<size_t>(0, OpCases().size()),
                                          testing::Values(DType::kF32, DType::kBF16, DType::kF16)),
                         [](const auto& info) {
                           return OpCases()[std::get<0>(info.param)].name +
                                  (std::string("_") + NameOf(std::get<1>(info.param)));
                         });

class CudaBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Gpu().ok()) GTEST_SKIP() << Gpu().status();
  }
  Backend& backend() { return **Gpu(); }
};

TEST_F(CudaBackendTest, Reserve_BuffersAreCutFromIt) {
  constexpr size_t kBytes = 1 << 20;
  ASSERT_TRUE(backend().Reserve(3 * kBytes, 3).ok());
  std::vector<std::unique_ptr<DeviceBuffer>> buffers;
  for (int i = 0; i < 3; ++i) buffers.push_back(*backend().Allocate(kBytes - i));
  for (int i = 1; i < 3; ++i) {
    const ptrdiff_t apart = buffers[i]->as<char>() - buffers[i - 1]->as<char>();
    EXPECT_GE(apart, static_cast<ptrdiff_t>(kBytes - i));
    EXPECT_LE(apart, static_cast<ptrdiff_t>(kBytes + 256));
  }
  // Beyond what was reserved: memory of its own.
  const auto more = *backend().Allocate(4 * kBytes);
  std::vector<char> host(4 * kBytes, 1);
  backend().CopyToHost(host.data(), more->data(), host.size());
  EXPECT_EQ(host, std::vector<char>(host.size(), 0));
}

TEST_F(CudaBackendTest, Allocate_MoreThanThereIs_ResourceExhausted) {
  const absl::Status status = backend().Allocate(size_t{1} << 45).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(backend().Reserve(size_t{1} << 45, 1).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(CudaBackendTest, NumericClass_TheSameOfTwoBackends) {
  const auto other = cuda::CreateCudaBackend(0);
  ASSERT_TRUE(other.ok()) << other.status();
  for (DType precision : {DType::kF32, DType::kBF16, DType::kF16}) {
    EXPECT_EQ((*other)->NumericClass(precision), backend().NumericClass(precision));
  }
  EXPECT_EQ(backend().NumericClass(DType::kF32).rfind("cuda/sm-", 0), 0u) << backend().NumericClass(DType::kF32);
}

}  // namespace
}  // namespace accrue
