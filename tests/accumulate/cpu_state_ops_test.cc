// The operations on whole-model state against plain loops written from docs/numerics.md, sections 5 to 9: the
// same bits on every instruction set that this machine has, and for any number of threads.
#include "worker/backend/cpu_state/cpu_state_ops.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <vector>

#include "common/exponents.h"
#include "common/philox.h"
#include "tests/accumulate/state_values.h"
#include "worker/backend/cpu_state/kernels.h"

namespace accrue {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

uint64_t Bits(double x) { return std::bit_cast<uint64_t>(x); }
uint32_t Bits(float x) { return std::bit_cast<uint32_t>(x); }

int64_t ReferenceRound(double x) {
  if (!(std::fabs(x) < 0x1p63)) return INT64_MIN;
  return static_cast<int64_t>(std::nearbyint(x));
}

struct Case {
  int64_t target;
  int threads;
};

// Runs on one instruction set with some threads.
class CpuStateOpsTest : public testing::TestWithParam<Case> {
 protected:
  CpuStateOpsTest() : pool_(GetParam().threads) {
    hwy::SetSupportedTargetsForTest(GetParam().target);
    ops_ = CreateCpuStateOps(pool_);
  }
  ~CpuStateOpsTest() override { hwy::SetSupportedTargetsForTest(0); }

  static int64_t Chunks(int64_t elements) { return (elements + kChunkElements - 1) / kChunkElements; }

  ThreadPool pool_;
  std::unique_ptr<StateOps> ops_;
};

TEST_P(CpuStateOpsTest, QuantizeAdd_OfAnySize_MatchesTheReference) {
  for (int64_t elements : kSizes) {
    const std::vector<float> gradient = Gradient(elements, 5);
    for (bool first : {true, false}) {
      const int k = 40;
      std::vector<int64_t> sums(elements + 1), expected(elements + 1);
      for (int64_t i = 0; i <= elements; ++i) sums[i] = expected[i] = static_cast<int64_t>(SplitMix64(i));
      std::vector<ChunkStats> stats(Chunks(elements)), expected_stats(Chunks(elements));
      for (int64_t i = 0; i < elements; ++i) {
        const int64_t q = ReferenceRound(static_cast<double>(gradient[i]) * std::ldexp(1.0, k));
        expected[i] =
            static_cast<int64_t>((first ? 0 : static_cast<uint64_t>(expected[i])) + static_cast<uint64_t>(q));
        ChunkStats& chunk = expected_stats[i / kChunkElements];
        chunk.max_abs = std::max(chunk.max_abs, std::fabs(gradient[i]));
        chunk.vanished += gradient[i] != 0 && q == 0;
        chunk.weighted_sum += ElementWeight(i % kChunkElements) * static_cast<uint64_t>(q);
      }
      ops_->QuantizeAdd(gradient.data(), elements, k, first, sums.data(), stats.data());
      EXPECT_EQ(sums, expected) << elements;
      for (size_t c = 0; c < stats.size(); ++c) {
        EXPECT_EQ(Bits(stats[c].max_abs), Bits(expected_stats[c].max_abs));
        EXPECT_FALSE(stats[c].non_finite);
        EXPECT_EQ(stats[c].vanished, expected_stats[c].vanished);
        EXPECT_EQ(stats[c].weighted_sum, expected_stats[c].weighted_sum);
      }
    }
  }
}

TEST_P(CpuStateOpsTest, QuantizeAdd_WithoutAccumulator_GivesTheSameStats) {
  for (int64_t elements : kSizes) {
    const std::vector<float> gradient = Gradient(elements, 6);
    std::vector<int64_t> sums(elements);
    std::vector<ChunkStats> expected(Chunks(elements)), stats(Chunks(elements));
    ops_->QuantizeAdd(gradient.data(), elements, 40, true, sums.data(), expected.data());
    ops_->QuantizeAdd(gradient.data(), elements, 40, true, nullptr, stats.data());
    for (size_t c = 0; c < stats.size(); ++c) {
      EXPECT_EQ(Bits(stats[c].max_abs), Bits(expected[c].max_abs));
      EXPECT_EQ(stats[c].vanished, expected[c].vanished);
      EXPECT_EQ(stats[c].weighted_sum, expected[c].weighted_sum);
    }
  }
}

TEST_P(CpuStateOpsTest, QuantizeAdd_AtTheEdgesOfRounding_IsToNearestEven) {
  const std::vector<float> gradient = {0.5f,      1.5f,           2.5f,        -0.5f,          -1.5f,
                                       -2.5f,     0.50000006f,    0.49999997f, 0x1p62f,        -0x1p62f,
                                       0x1p63f,   -0x1p63f,       0x1p64f,     0x1.fffffep62f, 0x1p-149f,
                                       0x1.8p52f, 0x1.000002p51f, 8388607.5f,  -8388608.5f};
  const std::vector<int64_t> expected = {0,
                                         2,
                                         2,
                                         0,
                                         -2,
                                         -2,
                                         1,
                                         0,
                                         int64_t{1} << 62,
                                         -(int64_t{1} << 62),
                                         INT64_MIN,
                                         INT64_MIN,
                                         INT64_MIN,
                                         0x7fffff8000000000,
                                         0,
                                         int64_t{3} << 51,
                                         (int64_t{1} << 51) + (1 << 28),
                                         8388608,
                                         -8388608};
  std::vector<int64_t> sums(gradient.size());
  ChunkStats stats;
  ops_->QuantizeAdd(gradient.data(), static_cast<int64_t>(gradient.size()), 0, true, sums.data(), &stats);
  EXPECT_EQ(sums, expected);
  EXPECT_EQ(stats.vanished, 4);  // 0.5, -0.5, just below 0.5, the subnormal
}

TEST_P(CpuStateOpsTest, QuantizeAdd_WithExtremeExponents_IsExact) {
  for (int k : {-kMaxExponent, -1, 0, 1, kMaxExponent}) {
    for (float g : {0x1p-149f, -0x1p-149f, 0x1.8p-126f, 0x1.234568p-70f, 0x1.fffffep127f, 3.0f}) {
      int64_t sum = 0;
      ChunkStats stats;
      ops_->QuantizeAdd(&g, 1, k, true, &sum, &stats);
      EXPECT_EQ(sum, ReferenceRound(std::ldexp(static_cast<double>(g), k))) << g << " k=" << k;
    }
  }
}

TEST_P(CpuStateOpsTest, Scans_OfNonFiniteElements_FlagThemAndKeepTheFiniteMaximum) {
  for (float bad : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN(),
                    -std::numeric_limits<float>::quiet_NaN()}) {
    for (int64_t where : {0, 5, 40, 44}) {
      std::vector<float> gradient(45, -2.0f);
      gradient[where] = bad;
      std::vector<int64_t> sums(45);
      std::vector<float> floats(45);
      ChunkStats quantized, inspected, added;
      ops_->QuantizeAdd(gradient.data(), 45, 0, true, sums.data(), &quantized);
      ops_->Inspect(gradient.data(), 45, &inspected);
      ops_->FloatAdd(gradient.data(), 45, true, floats.data(), &added);
      for (const ChunkStats& stats : {quantized, inspected, added}) {
        EXPECT_TRUE(stats.non_finite);
        EXPECT_EQ(stats.max_abs, 2.0f);
      }
      EXPECT_EQ(sums[where], INT64_MIN);
    }
  }
}

TEST_P(CpuStateOpsTest, InspectAndFloatAdd_OfAnySize_MatchTheReference) {
  for (int64_t elements : kSizes) {
    const std::vector<float> gradient = Gradient(elements, 6), before = Gradient(elements, 7);
    for (bool first : {true, false}) {
      std::vector<float> sums = before;
      std::vector<ChunkStats> added(Chunks(elements)), inspected(Chunks(elements));
      ops_->FloatAdd(gradient.data(), elements, first, sums.data(), added.data());
      ops_->Inspect(gradient.data(), elements, inspected.data());
      for (int64_t i = 0; i < elements; ++i) {
        ASSERT_EQ(sums[i], first ? gradient[i] : before[i] + gradient[i]);
      }
      for (int64_t c = 0; c < Chunks(elements); ++c) {
        float largest = 0;
        for (int64_t i = c * kChunkElements; i < std::min(elements, (c + 1) * kChunkElements); ++i) {
          largest = std::max(largest, std::fabs(gradient[i]));
        }
        EXPECT_EQ(Bits(added[c].max_abs), Bits(largest));
        EXPECT_EQ(Bits(inspected[c].max_abs), Bits(largest));
        EXPECT_EQ(inspected[c].weighted_sum, 0u);
        EXPECT_EQ(inspected[c].vanished, 0);
      }
    }
  }
}

TEST_P(CpuStateOpsTest, WeightedSums_OfAnySize_MatchTheReference) {
  for (int64_t elements : kSizes) {
    const std::vector<int64_t> values = Sums(elements, 8);
    std::vector<uint64_t> sums(Chunks(elements)), expected(Chunks(elements));
    for (int64_t i = 0; i < elements; ++i) {
      expected[i / kChunkElements] += ElementWeight(i % kChunkElements) * static_cast<uint64_t>(values[i]);
    }
    ops_->WeightedSums(values.data(), elements, sums.data());
    EXPECT_EQ(sums, expected) << elements;
  }
}

TEST_P(CpuStateOpsTest, SquareSums_OfAnySize_FollowTheSixteenPartials) {
  for (int64_t elements : kSizes) {
    const std::vector<int64_t> values = Sums(elements, 9);
    std::vector<float> scaled(elements);
    const int k = 44;
    for (int64_t i = 0; i < elements; ++i) scaled[i] = static_cast<float>(values[i]) * std::ldexp(1.0f, -k);
    std::vector<double> exact(Chunks(elements)), fast(Chunks(elements));
    ops_->SquareSums(values.data(), elements, k, exact.data());
    ops_->SquareSums(scaled.data(), elements, fast.data());
    for (int64_t c = 0; c < Chunks(elements); ++c) {
      double partials[16] = {};
      for (int64_t j = 0; j < kChunkElements && c * kChunkElements + j < elements; ++j) {
        const double s = scaled[c * kChunkElements + j];
        partials[j % 16] += s * s;
      }
      double sum = 0;
      for (double partial : partials) sum += partial;
      EXPECT_EQ(Bits(exact[c]), Bits(sum)) << elements;
      EXPECT_EQ(Bits(fast[c]), Bits(sum)) << elements;
    }
  }
}

TEST_P(CpuStateOpsTest, Update_OfBothOptimizers_MatchesTheReferenceAndHashes) {
  for (OptimizerKind kind : {OptimizerKind::kAdamW, OptimizerKind::kSgd}) {
    const UpdateArgs a = Args(kind);
    const bool adamw = kind == OptimizerKind::kAdamW;
    for (int64_t elements : kSizes) {
      const int k = 50;
      const std::vector<int64_t> sums = Sums(elements, 10);
      std::vector<float> scaled(elements), p = Gradient(elements, 11), m = Gradient(elements, 12),
                                           v = Gradient(elements, 13);
      for (float& x : v) x = std::fabs(x);
      std::vector<float> p1 = p, m1 = m, v1 = v, p2 = p, m2 = m, v2 = v;
      for (int64_t i = 0; i < elements; ++i) {
        scaled[i] = static_cast<float>(sums[i]) * std::ldexp(1.0f, -k);
        const float g = scaled[i] * a.scale;
        if (adamw) {
          m[i] = a.beta1 * m[i] + a.one_minus_beta1 * g;
          v[i] = a.beta2 * v[i] + (a.one_minus_beta2 * g) * g;
          const float mh = m[i] / a.bias_correction1, vh = v[i] / a.bias_correction2;
          p[i] = p[i] - a.learning_rate * (mh / (std::sqrt(vh) + a.epsilon) + a.weight_decay * p[i]);
        } else {
          const float u = g + a.weight_decay * p[i];
          m[i] = a.momentum * m[i] + u;
          p[i] = p[i] - a.learning_rate * m[i];
        }
      }
      const int64_t chunks = Chunks(elements), arrays = adamw ? 3 : 2;
      std::vector<Hash128> hashes(arrays * chunks), fast_hashes(arrays * chunks), again(chunks);
      ops_->Update(sums.data(), elements, k, a, p1.data(), m1.data(), adamw ? v1.data() : nullptr,
                   hashes.data());
      ops_->Update(scaled.data(), elements, a, p2.data(), m2.data(), adamw ? v2.data() : nullptr,
                   fast_hashes.data());
      const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
        return std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
      };
      EXPECT_TRUE(same(p1, p) && same(m1, m) && same(v1, v)) << elements;
      EXPECT_TRUE(same(p2, p) && same(m2, m) && same(v2, v)) << elements;
      EXPECT_EQ(hashes, fast_hashes);
      const std::vector<float>* held[] = {&p, &m, &v};
      for (int64_t array = 0; array < arrays; ++array) {
        ops_->HashChunks(held[array]->data(), elements, 4, again.data());
        for (int64_t c = 0; c < chunks; ++c) {
          const int64_t begin = c * kChunkElements, count = std::min(kChunkElements, elements - begin);
          EXPECT_EQ(again[c], HashBytes(held[array]->data() + begin, count * 4));
          EXPECT_EQ(hashes[array * chunks + c], again[c]);
        }
      }
    }
  }
}

TEST_P(CpuStateOpsTest, Update_OfSubnormalMoments_KeepsThem) {
  UpdateArgs args = Args(OptimizerKind::kAdamW);
  const float sum = 0;
  float p = 0, m = 0x1p-140f, v = 0x1p-130f;
  ops_->Update(&sum, 1, args, &p, &m, &v, nullptr);
  EXPECT_EQ(Bits(m), Bits(args.beta1 * 0x1p-140f));
  EXPECT_NE(m, 0);
  EXPECT_NE(v, 0);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const int64_t supported = hwy::SupportedTargets();
  for (int bit = 0; bit < 63; ++bit) {
    if (supported >> bit & 1) cases.push_back({int64_t{1} << bit, 2});
  }
  for (int threads : {1, 3, 7, 64}) cases.push_back({supported, threads});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Targets, CpuStateOpsTest, testing::ValuesIn(Cases()), [](const auto& info) {
  const bool one = (info.param.target & (info.param.target - 1)) == 0;
  return (one ? hwy::TargetName(info.param.target) : std::string("Best")) +
         std::to_string(info.param.threads) + "Threads";
});

TEST(BestKernels, ForEachInstructionSet_IsATableOfItsOwn) {
  std::set<const cpu_state::Kernels*> tables;
  const int64_t supported = hwy::SupportedTargets();
  for (int bit = 0; bit < 63; ++bit) {
    if ((supported >> bit & 1) == 0) continue;
    hwy::SetSupportedTargetsForTest(int64_t{1} << bit);
    tables.insert(&cpu_state::BestKernels());
  }
  hwy::SetSupportedTargetsForTest(0);
  // At least a vector form and the portable one, wherever there are vectors.
  EXPECT_GE(tables.size(), 2u);
}

}  // namespace
}  // namespace accrue
