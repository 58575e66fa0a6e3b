// The pieces of attention in bf16 (docs/numerics.md, section 4), and what it does with numbers that are none.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "hwy/targets.h"
#include "tests/backend/reference_ops.h"
#include "worker/backend/backend.h"
#include "worker/backend/cpu/amx.h"
#include "worker/backend/cpu/cpu_model_ops.h"
#include "worker/backend/cpu/kernels.h"

#if HWY_ARCH_X86_64
#include "worker/backend/cpu/bf16_dot-inl.h"

namespace accrue::cpu {
namespace {

HWY_PUSH_ATTRIBUTES(ACCRUE_BF16_DOT_TARGET)
void Product(const bf16_dot::DotProduct& product) { bf16_dot::Multiply(product); }
void Exp2Of(const float* x, float* y) { bf16_dot::Store(bf16_dot::Exp2(bf16_dot::Load(x)), y); }
struct Packed {
  uint32_t *by_row, *by_pair, *by_column;
};
void Pack(const bf16_dot::HalfMatrix& from, int64_t padded, const Packed& to) {
  bf16_dot::PackRows(from, 64, padded / 2, to.by_row);
  bf16_dot::PackRowPairs(from, 64, padded, to.by_pair);
  bf16_dot::PackColumns(from, 64, to.by_column, 64);
}
HWY_POP_ATTRIBUTES

class Bf16Dot : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasBf16Dot()) GTEST_SKIP() << "no bf16 dot product here";
  }

  uint32_t Draw() { return static_cast<uint32_t>(state_ = SplitMix64(state_)); }
  // A word of two numbers of any sign, between 2^-8 and 2^4.
  uint32_t DrawWord() {
    const auto half = [&] { return (Draw() & 0x807F) | (119 + Draw() % 12) << 7; };
    const uint32_t low = half();
    return low | half() << 16;
  }
  float DrawFloat() { return (static_cast<float>(Draw()) * 0x1p-31f - 1) * 16; }

 private:
  uint64_t state_ = 7;
};

float Even(uint32_t word) { return Bf16ToFloat(static_cast<uint16_t>(word)); }
float Odd(uint32_t word) { return Bf16ToFloat(static_cast<uint16_t>(word >> 16)); }

// The products are exact, so that only the two sums round.
float AddPair(float sum, uint32_t a, uint32_t b) {
  sum += Odd(a) * Odd(b);
  return sum + Even(a) * Even(b);
}

TEST_F(Bf16Dot, Multiply_AnyShape_AddsOddThenEvenPairByPair) {
  for (const int64_t m : {1, 4, 7, 16, 27, 64}) {
    for (const int64_t n : {16, 32, 48, 64, 80, 128}) {
      for (const int64_t k : {1, 2, 33}) {
        for (const bool transposed : {false, true}) {
          std::vector<uint32_t> a(m * k), b(k * n);
          std::vector<float> c(m * n), factors(m);
          for (uint32_t& word : a) word = DrawWord();
          for (uint32_t& word : b) word = DrawWord();
          for (float& value : c) value = DrawFloat();
          for (float& value : factors) value = DrawFloat();
          bf16_dot::DotProduct product{.m = m,
                                       .n = n,
                                       .k = k,
                                       .a = a.data(),
                                       .a_row = transposed ? 1 : k,
                                       .a_column = transposed ? m : 1,
                                       .b = b.data(),
                                       .b_stride = n,
                                       .c = c.data(),
                                       .c_stride = n};
          for (const int start : {0, 1, 2}) {  // nothing, c, c times factors
            std::vector<float> expected(m * n);
            for (int64_t i = 0; i < m; ++i) {
              for (int64_t j = 0; j < n; ++j) {
                float sum = start == 0 ? 0 : start == 1 ? c[i * n + j] : c[i * n + j] * factors[i];
                for (int64_t l = 0; l < k; ++l) {
                  sum = AddPair(sum, a[i * product.a_row + l * product.a_column], b[l * n + j]);
                }
                expected[i * n + j] = sum;
              }
            }
            product.accumulate = start > 0;
            product.row_factors = start == 2 ? factors.data() : nullptr;
            Product(product);
            ASSERT_TRUE(c == expected) << m << " x " << n << " x " << k << " from " << start;
          }
        }
      }
    }
  }
}

TEST_F(Bf16Dot, Multiply_Subnormal_IsZero) {
  const uint32_t tiny = 0x00400040, one = 0x3F803F80;  // two of 2^-127; two ones
  const std::vector<uint32_t> b(16, tiny);
  std::vector<float> c(16, 1.0f);
  Product({.m = 1,
           .n = 16,
           .k = 1,
           .a = &one,
           .a_row = 1,
           .a_column = 1,
           .b = b.data(),
           .b_stride = 16,
           .c = c.data(),
           .c_stride = 16});
  EXPECT_EQ(c, std::vector<float>(16, 0.0f));
}

// A matrix within a larger one that is NaN all round.
struct Within {
  Within(int64_t rows, int64_t columns)
      : stride(columns + 7),
        memory((rows + 80) * stride, Bf16{0x7FC0}),
        matrix{memory.data() + 2 * stride + 3, stride, rows, columns} {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c)
        matrix.data[r * stride + c].bits = static_cast<uint16_t>(r * 251 + c + 1);
    }
  }
  uint32_t At(int64_t r, int64_t c) const {
    return r < matrix.rows && c < matrix.columns ? matrix.data[r * stride + c].bits : 0;
  }
  int64_t stride;
  std::vector<Bf16> memory;
  bf16_dot::HalfMatrix matrix;
};

TEST_F(Bf16Dot, Pack_AnyShape_PadsWithZeros) {
  for (const int64_t rows : {1, 15, 33, 64}) {
    for (const int64_t columns : {1, 8, 31, 33, 64, 80}) {
      SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(columns));
      const Within from(rows, columns);
      const int64_t padded = (columns + 31) / 32 * 32;
      std::vector<uint32_t> by_row(64 * padded / 2), by_pair(32 * padded), by_column(padded / 2 * 64);
      Pack(from.matrix, padded, {by_row.data(), by_pair.data(), by_column.data()});
      for (int64_t r = 0; r < 64; ++r) {
        for (int64_t w = 0; w < padded / 2; ++w) {
          const uint32_t word = from.At(r, 2 * w) | from.At(r, 2 * w + 1) << 16;
          ASSERT_EQ(by_row[r * padded / 2 + w], word) << r << ", " << w;
          ASSERT_EQ(by_column[w * 64 + r], word) << r << ", " << w;
        }
      }
      for (int64_t r = 0; r < 32; ++r) {
        for (int64_t c = 0; c < padded; ++c) {
          ASSERT_EQ(by_pair[r * padded + c], from.At(2 * r, c) | from.At(2 * r + 1, c) << 16)
              << r << ", " << c;
        }
      }
    }
  }
}

TEST_F(Bf16Dot, Exp2_OfAnything_IsNear) {
  float x[16], y[16];
  for (float first = -130; first < 130; first += 0.37f) {
    for (int i = 0; i < 16; ++i) x[i] = first + 0.0231f * static_cast<float>(i);
    Exp2Of(x, y);
    for (int i = 0; i < 16; ++i) {
      const double expected = std::exp2(double{x[i]});
      if (x[i] >= 128) {
        EXPECT_EQ(y[i], std::numeric_limits<float>::infinity()) << x[i];
      } else {
        EXPECT_NEAR(y[i], expected, std::max(expected * 0x1p-18, 0x1p-149)) << x[i];
      }
    }
  }
  const float infinity = std::numeric_limits<float>::infinity();
  const float special[16] = {0, -0.0f, 1, -1, -126, 127, -149, -infinity, -1e30f, infinity, std::nanf("")};
  const float expected[10] = {1, 1, 2, 0.5f, 0x1p-126f, 0x1p127f, 0x1p-149f, 0, 0, infinity};
  Exp2Of(special, y);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(y[i], expected[i]) << special[i];
  EXPECT_TRUE(std::isnan(y[10]));
}

// A unit whose gradient is not finite is skipped: so what is not finite must come through.
TEST_F(Bf16Dot, Attention_NotFinite_ReachesTheRowsThatSeeIt) {
  constexpr int64_t kTokens = 70, kSize = 32, kBad = 66;
  const int64_t kGranule = HasAmx() ? 32 : 16;
  ThreadPool pool(1);
  const std::unique_ptr<ModelOps> ops = CreateCpuModelOps(pool);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const int which : {0, 1, 2}) {  // q, k, v
      std::vector<uint16_t> qkv(kTokens * 3 * kSize), out(kTokens * kSize);
      for (uint16_t& value : qkv) value = RoundToBf16(DrawFloat() / 16);
      qkv[(kBad * 3 + which) * kSize + 5] = RoundToBf16(bad);
      std::vector<float> log_sum_exp(kTokens);
      const auto at = [&](int64_t element) { return Tensor{qkv.data() + element, DType::kBF16}; };
      ops->AttentionForward({.batch = 1,
                             .sequence_length = kTokens,
                             .heads = 1,
                             .kv_heads = 1,
                             .head_size = kSize,
                             .q = at(0),
                             .k = at(kSize),
                             .v = at(2 * kSize),
                             .out = {out.data(), DType::kBF16},
                             .q_stride = 3 * kSize,
                             .k_stride = 3 * kSize,
                             .v_stride = 3 * kSize,
                             .out_stride = kSize,
                             .log_sum_exp = log_sum_exp.data()});
      for (int64_t row = 0; row < kTokens; ++row) {
        bool finite = true;
        for (int64_t i = 0; i < kSize; ++i) finite &= std::isfinite(Bf16ToFloat(out[row * kSize + i]));
        // A key that scores minus infinity has a probability of zero.
        if (row > kBad && which == 1 && std::isinf(bad)) continue;
        // A value meets the zero probabilities of its granule, too.
        const int64_t first = which == 2 ? kBad / kGranule * kGranule : kBad;
        const bool sees = which == 0 ? row == kBad : row >= first;
        EXPECT_EQ(finite, !sees) << bad << " in " << which << ", row " << row;
      }
    }
  }
}

// What operations before left in scratch must not matter, not even where blocks are padded.
TEST_F(Bf16Dot, Attention_AnyScratch_SameBits) {
  constexpr int64_t kSize = 33;
  for (const int64_t tokens : {37, 70}) {
    std::vector<uint16_t> qkv(tokens * 3 * kSize), dout(tokens * kSize);
    for (uint16_t& value : qkv) value = RoundToBf16(DrawFloat() / 16);
    for (uint16_t& value : dout) value = RoundToBf16(DrawFloat() / 16);
    std::vector<uint16_t> results[2];
    for (const bool dirty : {false, true}) {
      std::vector<uint16_t> out(tokens * kSize), gradients(qkv.size());
      std::vector<float> log_sum_exp(tokens);
      const auto at = [](std::vector<uint16_t>& v, int64_t i) { return Tensor{v.data() + i, DType::kBF16}; };
      AttentionArgs args{.batch = 1,
                         .sequence_length = tokens,
                         .heads = 1,
                         .kv_heads = 1,
                         .head_size = kSize,
                         .q = at(qkv, 0),
                         .k = at(qkv, kSize),
                         .v = at(qkv, 2 * kSize),
                         .out = at(out, 0),
                         .q_stride = 3 * kSize,
                         .k_stride = 3 * kSize,
                         .v_stride = 3 * kSize,
                         .out_stride = kSize,
                         .log_sum_exp = log_sum_exp.data(),
                         .dropout = {.probability = 0.25f, .seed = 5}};
      args.dout = at(dout, 0);
      args.dq = at(gradients, 0);
      args.dk = at(gradients, kSize);
      args.dv = at(gradients, 2 * kSize);
      const auto scratch = [&](int64_t floats) {
        return std::vector<float>(floats, dirty ? std::nanf("") : 0.0f);
      };
      for (int64_t block = 0; block * kAttentionBlock < tokens; ++block) {
        AttentionForwardBlock(args, 0, 0, block, scratch(AttentionForwardScratch(args)).data());
      }
      AttentionBackwardHead(args, 0, 0, nullptr, scratch(AttentionBackwardScratch(args)).data());
      results[dirty] = out;
      results[dirty].insert(results[dirty].end(), gradients.begin(), gradients.end());
    }
    EXPECT_EQ(results[0], results[1]) << tokens << " tokens";
  }
}

TEST_F(Bf16Dot, NumericClass_WithoutIt_IsAnother) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend(1);
  const std::string with = backend->NumericClass(DType::kBF16), exact = backend->NumericClass(DType::kF32);
  EXPECT_EQ(with.rfind(HasAmx() ? "cpu/avx512_amx/" : "cpu/avx512_bf16/", 0), 0u) << with;
  EXPECT_EQ(exact.rfind("cpu/avx512/", 0), 0u) << exact;
  hwy::SetSupportedTargetsForTest(HWY_AVX2);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  EXPECT_FALSE(HasBf16Dot());
  EXPECT_EQ(backend->NumericClass(DType::kBF16).rfind("cpu/avx2/", 0), 0u);
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace
}  // namespace accrue::cpu
#endif
