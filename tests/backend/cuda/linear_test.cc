// The linear operations as products of column-major matrices: against the reference, on the cases that every backend
// runs. The library is plain loops here, which check what they are given as strictly as the library does.
#include "worker/backend/cuda/linear.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "tests/backend/op_cases.h"
#include "tests/backend/reference_ops.h"
#include "worker/backend/cuda/memory_arena.h"

namespace accrue {
namespace {

using cuda::GemmEpilogue;
using cuda::GemmOperands;
using cuda::GemmProblem;

double Gelu(double z) {
  const double u = std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z);
  return 0.5 * z * (1 + std::tanh(u));
}
double GeluSlope(double z) {
  const double c = std::sqrt(2 / M_PI), t = std::tanh(c * (z + 0.044715 * z * z * z));
  return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * c * (1 + 3 * 0.044715 * z * z);
}

// The library and the kernels in loops. has_epilogues: whether the library has algorithms for GELU.
class HostGemm : public cuda::GemmDevice {
 public:
  explicit HostGemm(bool has_epilogues) : has_epilogues_(has_epilogues) {}
  int fused = 0, separate = 0;

  bool TryMultiply(const GemmProblem& p, const GemmOperands& o) override {
    const bool has_aux = p.epilogue != GemmEpilogue::kNone && p.epilogue != GemmEpilogue::kBias;
    if (has_aux && !has_epilogues_) return false;
    Check(p, o, has_aux);
    if (has_aux) ++fused;
    const Tensor a{const_cast<void*>(o.a), p.input}, b{const_cast<void*>(o.b), p.input};
    const Tensor bias{const_cast<void*>(o.bias), p.output}, aux{o.aux, p.output}, d{o.d, p.output};
    for (int64_t column = 0; column < p.n; ++column) {
      for (int64_t row = 0; row < p.m; ++row) {
        const int64_t at = row + column * p.ldd;
        double sum = 0;
        for (int64_t i = 0; i < p.k; ++i) {
          sum += LoadElement(a, p.transpose_a ? i + row * p.lda : row + i * p.lda) *
                 LoadElement(b, p.transpose_b ? column + i * p.ldb : i + column * p.ldb);
        }
        if (p.accumulate) sum += LoadElement(d, at);
        if (o.bias != nullptr) sum += LoadElement(bias, row);
        if (p.epilogue == GemmEpilogue::kGeluGradient) {
          sum *= GeluSlope(LoadElement(aux, at));
        } else if (has_aux) {
          StoreElement(aux, at, sum);
          sum = Gelu(sum);
        }
        StoreElement(d, at, sum);
      }
    }
    return true;
  }
  void GeluForward(const cuda::GeluArgs& args) override {
    ++separate;
    for (int64_t i = 0; i < args.elements; ++i) StoreElement(args.y, i, Gelu(LoadElement(args.z, i)));
  }
  void GeluBackward(const cuda::GeluArgs& args) override {
    ++separate;
    for (int64_t i = 0; i < args.elements; ++i) {
      StoreElement(args.y, i, LoadElement(args.y, i) * GeluSlope(LoadElement(args.z, i)));
    }
  }
  void ColumnSums(const cuda::ColumnSumsArgs& args) override {
    for (int64_t c = 0; c < args.columns; ++c) {
      double sum = 0;
      for (int64_t r = 0; r < args.rows; ++r) sum += LoadElement(args.matrix, r * args.stride + c);
      args.sums[c] = static_cast<float>(sum);
    }
  }

 private:
  void Check(const GemmProblem& p, const GemmOperands& o, bool has_aux) {
    EXPECT_GE(p.lda, p.transpose_a ? p.k : p.m) << GemmText(p);
    EXPECT_GE(p.ldb, p.transpose_b ? p.n : p.k) << GemmText(p);
    EXPECT_GE(p.ldd, p.m) << GemmText(p);
    EXPECT_EQ(o.bias != nullptr, p.epilogue == GemmEpilogue::kBias || p.epilogue == GemmEpilogue::kGeluAuxBias);
    EXPECT_EQ(o.aux != nullptr, has_aux);
    if (has_aux) {
      EXPECT_EQ(p.ldd % 8, 0) << GemmText(p);
      EXPECT_NE(p.output, DType::kF32) << GemmText(p);
    }
    const std::tuple<const void*, int> places[] = {{o.a, p.align_a}, {o.b, p.align_b}, {o.d, p.align_d},
                                                   {o.bias, p.align_d}, {o.aux, p.align_d}};
    for (const auto& [place, alignment] : places) {
      EXPECT_GE(alignment, static_cast<int>(SizeOf(p.input))) << GemmText(p);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(place) % alignment, 0u) << GemmText(p);
    }
  }

  const bool has_epilogues_;
};

// Linear operations through HostGemm; any other ends the test.
class LinearOps : public ModelOps {
 public:
  explicit LinearOps(HostGemm& gemm) : linear_(gemm) {}
  void LinearForward(const LinearForwardArgs& args) override { linear_.Forward(args); }
  void LinearBackwardInput(const LinearBackwardInputArgs& args) override { linear_.BackwardInput(args); }
  void LinearBackwardWeight(const LinearBackwardWeightArgs& args) override { linear_.BackwardWeight(args); }
  void EmbeddingForward(const EmbeddingForwardArgs&) override { std::abort(); }
  void EmbeddingBackward(const EmbeddingBackwardArgs&) override { std::abort(); }
  void NormForward(const NormForwardArgs&) override { std::abort(); }
  void NormBackward(const NormBackwardArgs&) override { std::abort(); }
  void Rope(const RopeArgs&) override { std::abort(); }
  void AttentionForward(const AttentionArgs&) override { std::abort(); }
  void AttentionBackward(const AttentionArgs&) override { std::abort(); }
  void SwiGluForward(const SwiGluArgs&) override { std::abort(); }
  void SwiGluBackward(const SwiGluArgs&) override { std::abort(); }
  void CrossEntropy(const CrossEntropyArgs&) override { std::abort(); }
  void Convert(const float*, const Tensor&, int64_t) override { std::abort(); }

 private:
  cuda::Linear linear_;
};

std::vector<size_t> LinearCases() {
  std::vector<size_t> cases;
  for (size_t i = 0; i < OpCases().size(); ++i) {
    if (OpCases()[i].name.rfind("Linear", 0) == 0) cases.push_back(i);
  }
  return cases;
}

class CudaLinearTest : public testing::TestWithParam<std::tuple<size_t, DType, bool>> {};

TEST_P(CudaLinearTest, Run_AsColumnMajorProducts_AgreesWithReference) {
  const auto& [index, dtype, has_epilogues] = GetParam();
  const OpCase& op = OpCases()[index];
  HostGemm gemm(has_epilogues);
  LinearOps ops(gemm);
  const auto expected = RunCase(op, *CreateReferenceOps(), dtype);
  const auto actual = RunCase(op, ops, dtype);
  ASSERT_EQ(expected.size(), actual.size());
  for (size_t output = 0; output < expected.size(); ++output) {
    SCOPED_TRACE(output);
    ExpectNear(expected[output], actual[output]);
  }
  if (op.name.find("Gelu") != std::string::npos) {
    EXPECT_EQ(gemm.fused + gemm.separate, 1);
  }
  if (dtype == DType::kF32 || !has_epilogues) {
    EXPECT_EQ(gemm.fused, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, CudaLinearTest,
                         testing::Combine(testing::ValuesIn(LinearCases()), testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                                          testing::Bool()),
                         [](const auto& info) {
                           return OpCases()[std::get<0>(info.param)].name +
                                  (std::string("_") + NameOf(std::get<1>(info.param))) +
                                  (std::get<2>(info.param) ? "_epilogues" : "_plain");
                         });

TEST(CudaLinear, Gelu_InBf16_FusedWhereTheShapeAllows) {
  HostGemm gemm(true);
  LinearOps ops(gemm);
  for (const auto& [out, fused] : {std::pair<int64_t, int>{16, 1}, {12, 0}}) {
    gemm.fused = gemm.separate = 0;
    OpArrays arrays;
    ops.LinearForward({.rows = 3, .in = 8, .out = out,
                       .x = arrays.In(DType::kBF16, 3 * 8), .weight = arrays.In(DType::kBF16, 8 * out),
                       .y = arrays.Out(DType::kBF16, 3 * out), .gelu_input = arrays.Out(DType::kBF16, 3 * out)});
    EXPECT_EQ(gemm.fused, fused);
    EXPECT_EQ(gemm.separate, 1 - fused);
  }
}

// HostGemm checks what is said of each place.
TEST(CudaLinear, Alignment_IsOfTheWorstPlace) {
  HostGemm gemm(true);
  LinearOps ops(gemm);
  for (int worst = 0; worst < 5; ++worst) {
    gemm.fused = 0;
    OpArrays arrays;
    const auto at = [&](int place, Tensor tensor) {
      if (place == worst) tensor.data = static_cast<uint16_t*>(tensor.data) + 1;
      return tensor;
    };
    ops.LinearForward({.rows = 3, .in = 8, .out = 16,
                       .x = at(0, arrays.In(DType::kBF16, 3 * 8 + 1)), .weight = at(1, arrays.In(DType::kBF16, 8 * 16 + 1)),
                       .bias = at(2, arrays.In(DType::kBF16, 16 + 1)), .y = at(3, arrays.Out(DType::kBF16, 3 * 16 + 1)),
                       .gelu_input = at(4, arrays.Out(DType::kBF16, 3 * 16 + 1))});
    EXPECT_EQ(gemm.fused, worst < 2 ? 1 : 0);  // the library knows nothing of aux, and little of the bias
  }
}

TEST(GemmProblem, Text_SaysWhatAnAlgorithmIsChosenBy) {
  const GemmProblem problem{.m = 768, .n = 64, .k = 3072, .transpose_a = true, .lda = 3072, .ldb = 3072, .ldd = 768,
                            .input = DType::kBF16, .output = DType::kBF16, .epilogue = GemmEpilogue::kGeluAuxBias,
                            .align_a = 16, .align_b = 8, .align_d = 2};
  EXPECT_EQ(GemmText(problem), "768x64x3072 tn bf16 to bf16 gelu-aux-bias, ld 3072 3072 768, aligned 16 8 2");
}

TEST(MemoryArena, Take_PlacesAreAlignedAndApart) {
  cuda::MemoryArena arena(1000);
  EXPECT_EQ(arena.Take(1), 0u);
  EXPECT_EQ(arena.Take(300), 256u);
  EXPECT_EQ(arena.Take(233), cuda::MemoryArena::kNone);
  EXPECT_EQ(arena.Take(232), 768u);
  EXPECT_EQ(arena.free_bytes(), 0u);
  EXPECT_EQ(arena.Take(1), cuda::MemoryArena::kNone);
  EXPECT_EQ(arena.Take(~size_t{0}), cuda::MemoryArena::kNone);
}

TEST(MemoryArena, GiveBack_TheLast_AllIsFree) {
  cuda::MemoryArena arena(512);
  EXPECT_TRUE(arena.empty());
  arena.Take(10);
  arena.Take(10);
  arena.GiveBack();
  EXPECT_FALSE(arena.empty());
  EXPECT_EQ(arena.Take(10), cuda::MemoryArena::kNone);
  arena.GiveBack();
  EXPECT_TRUE(arena.empty());
  EXPECT_EQ(arena.Take(512), 0u);
}

TEST(MemoryArena, Slack_IsEnoughForAnySizes) {
  const std::vector<size_t> sizes = {1, 256, 257, 5, 511, 0, 1};
  size_t total = 0;
  for (size_t size : sizes) total += size;
  cuda::MemoryArena arena(total + cuda::MemoryArena::Slack(sizes.size()));
  for (size_t size : sizes) EXPECT_NE(arena.Take(size), cuda::MemoryArena::kNone);
}

}  // namespace
}  // namespace accrue
