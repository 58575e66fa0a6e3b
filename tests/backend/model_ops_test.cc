// Every operation of the CPU against the reference, and the same bits for any number of threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "hwy/targets.h"
#include "tests/backend/op_cases.h"
#include "tests/backend/reference_ops.h"
#include "worker/backend/cpu/amx.h"
#include "worker/backend/cpu/cpu_model_ops.h"
#include "worker/backend/cpu/gemm.h"
#include "worker/backend/cpu/kernels.h"

namespace accrue {
namespace {

// Operations of one number of threads, shared by the cases: plans are compiled once.
ModelOps& OpsWith(int threads) {
  struct Entry {
    explicit Entry(int threads) : pool(threads), ops(CreateCpuModelOps(pool)) {}
    ThreadPool pool;
    std::unique_ptr<ModelOps> ops;
  };
  static auto& entries = *new std::map<int, std::unique_ptr<Entry>>;
  std::unique_ptr<Entry>& entry = entries[threads];
  if (entry == nullptr) entry = std::make_unique<Entry>(threads);
  return *entry->ops;
}

class ModelOpsTest : public testing::TestWithParam<std::tuple<size_t, DType>> {
 protected:
  const OpCase& op() const { return OpCases()[std::get<0>(GetParam())]; }
  DType dtype() const { return std::get<1>(GetParam()); }

  void SetUp() override {
    if (dtype() == DType::kBF16 && !cpu::GemmSupportsBf16()) GTEST_SKIP() << "no bf16 instructions here";
  }
};

// Kernels use one instruction set while it lives.
class WithInstructionSet {
 public:
  WithInstructionSet(int64_t target, bool amx) {
    Choose(target);
    cpu::UseAmxForTest(amx);
  }
  ~WithInstructionSet() {
    Choose(0);
    cpu::UseAmxForTest(true);
  }

 private:
  static void Choose(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

std::vector<int64_t> Targets() {
  std::vector<int64_t> targets;
  for (int64_t left = hwy::SupportedTargets(); left != 0; left &= left - 1) targets.push_back(left & -left);
  return targets;
}

TEST_P(ModelOpsTest, Run_OnEveryInstructionSet_AgreesWithReference) {
  const auto expected = RunCase(op(), *CreateReferenceOps(), dtype());
  std::set<std::string> seen;
  // Every one with and without the processor's matrix tiles, if it has them.
  const std::vector<int64_t> targets = Targets();
  for (size_t run = 0; run < 2 * targets.size(); ++run) {
    const WithInstructionSet scope(targets[run / 2], /*amx=*/run % 2 == 0);
    if (!seen.insert(cpu::KernelInstructionSet(dtype())).second) continue;
    SCOPED_TRACE(cpu::KernelInstructionSet(dtype()));
    const auto actual = RunCase(op(), OpsWith(2), dtype());
    ASSERT_EQ(expected.size(), actual.size());
    for (size_t output = 0; output < expected.size(); ++output) {
      SCOPED_TRACE(output);
      ExpectNear(expected[output], actual[output]);
    }
  }
  EXPECT_GE(seen.size(), 1u);
}

TEST_P(ModelOpsTest, Run_AnyNumberOfThreads_SameBits) {
  const auto expected = RunCase(op(), OpsWith(1), dtype());
  for (int threads : {2, 3, 5, 7, 16, 64}) {
    const auto actual = RunCase(op(), OpsWith(threads), dtype());
    ASSERT_EQ(expected.size(), actual.size());
    for (size_t output = 0; output < expected.size(); ++output) {
      ASSERT_TRUE(expected[output].bytes == actual[output].bytes) << threads << " threads, output " << output;
    }
  }
}

// Relative error of all elements together.
double ErrorNorm(const OpArrays::Output& expected, const OpArrays::Output& actual) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.bytes.size() / SizeOf(expected.dtype); ++i) {
    const double want = LoadElement({const_cast<char*>(expected.bytes.data()), expected.dtype}, i);
    const double have = LoadElement({const_cast<char*>(actual.bytes.data()), actual.dtype}, i);
    if (std::isnan(want)) continue;  // a gap between rows
    difference += (have - want) * (have - want);
    norm += want * want;
  }
  return std::sqrt(difference / std::max(norm, 1e-300));
}

// bf16's unit is 2^-8: what is bounded here is the rounding of probabilities, their gradients and the
// results.
TEST(AttentionInBf16, ErrorNorm_OfEveryCase_IsBelowTheUnit) {
  if (!cpu::HasBf16Dot()) GTEST_SKIP() << "no bf16 dot product here";
  for (const OpCase& op : OpCases()) {
    const bool forward = op.name.find("AttentionForward") == 0;
    if (!forward && op.name.find("AttentionBackward") != 0) continue;
    SCOPED_TRACE(op.name);
    const auto expected = RunCase(op, *CreateReferenceOps(), DType::kBF16);
    const auto actual = RunCase(op, OpsWith(1), DType::kBF16);
    EXPECT_LT(ErrorNorm(expected[0], actual[0]), forward ? 0x1p-9 : 0x1p-8);
    if (!forward) continue;
    EXPECT_LT(ErrorNorm(expected[1], actual[1]), 1e-6) << "log-sum-exp";
  }
}

std::string CaseName(const testing::TestParamInfo<std::tuple<size_t, DType>>& info) {
  return OpCases()[std::get<0>(info.param)].name +
         (std::string("_") + NameOf(std::get<1>(info.param)));
}

INSTANTIATE_TEST_SUITE_P(Cases, ModelOpsTest,
                         testing::Combine(testing::Range<size_t>(0, OpCases().size()),
                                          testing::Values(DType::kF32, DType::kBF16, DType::kF16)),
                         CaseName);

}  // namespace
}  // namespace accrue
