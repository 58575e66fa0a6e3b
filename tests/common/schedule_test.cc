#include "common/schedule.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

namespace accrue {
namespace {

constexpr double kPi = 3.14159265358979323846;

TEST(DeterministicCosine, FromZeroToPi_AgreesWithLibm) {
  for (int i = 0; i <= 100000; ++i) {
    const double x = kPi * i / 100000;
    ASSERT_NEAR(DeterministicCosine(x), std::cos(x), 1e-15) << x;
  }
  EXPECT_EQ(DeterministicCosine(0), 1.0);
  EXPECT_EQ(DeterministicCosine(kPi), -1.0);
}

TEST(BiasCorrection, OverManySteps_AgreesWithPow) {
  for (double beta : {0.0, 0.9, 0.95, 0.999, 0.9999}) {
    for (int64_t steps : {1, 2, 3, 10, 1000, 123457}) {
      const double expected = 1 - std::pow(beta, static_cast<double>(steps));
      EXPECT_NEAR(BiasCorrection(beta, steps), expected, 1e-13) << beta << " " << steps;
    }
  }
  EXPECT_EQ(BiasCorrection(0.5, 1), 0.5);
  EXPECT_EQ(BiasCorrection(0.5, 3), 0.875);
}

ScheduleConfig Config(ScheduleKind kind) {
  return {.kind = kind,
          .learning_rate = 2e-3,
          .warmup_windows = 10,
          .total_windows = 111,
          .decay_windows = 20,
          .minimum_ratio = 0.1};
}

// Written from the job file's documentation, with libm.
double Reference(const ScheduleConfig& c, int64_t w) {
  if (w < c.warmup_windows) return c.learning_rate * (w + 1.0) / c.warmup_windows;
  const double last = static_cast<double>(c.total_windows - 1), floor = c.learning_rate * c.minimum_ratio;
  const double x = (w - c.warmup_windows) / (last - c.warmup_windows);
  switch (c.kind) {
    case ScheduleKind::kConstant:
      return c.learning_rate;
    case ScheduleKind::kLinear:
      return c.learning_rate * (1 - x) + floor * x;
    case ScheduleKind::kCosine:
      return floor + (c.learning_rate - floor) * (1 + std::cos(kPi * x)) / 2;
    case ScheduleKind::kWarmupStableDecay: {
      const double y = std::max(0.0, (w - (last - c.decay_windows)) / c.decay_windows);
      return c.learning_rate * (1 - y) + floor * y;
    }
  }
  return 0;
}

class LearningRateTest : public testing::TestWithParam<ScheduleKind> {};

TEST_P(LearningRateTest, OfEveryWindow_AgreesWithTheReference) {
  const ScheduleConfig config = Config(GetParam());
  for (int64_t window = 0; window < config.total_windows; ++window) {
    EXPECT_NEAR(LearningRate(config, window), Reference(config, window), 1e-17) << window;
  }
  EXPECT_EQ(LearningRate(config, 0), 2e-3 / 10);
  EXPECT_EQ(LearningRate(config, 9), 2e-3);
  EXPECT_EQ(LearningRate(config, 10), 2e-3);
  const double last = GetParam() == ScheduleKind::kConstant ? 2e-3 : 2e-4;
  EXPECT_NEAR(LearningRate(config, 110), last, 1e-18);
  EXPECT_NEAR(LearningRate(config, 500), last, 1e-18);  // beyond the end it stays
}

TEST_P(LearningRateTest, OfShortJobs_StaysWithinItsBounds) {
  for (int64_t total : {1, 2, 3, 11}) {
    for (int64_t warmup : {0, 1, 3, 50}) {
      for (int64_t decay : {0, 1, 50}) {
        ScheduleConfig config = Config(GetParam());
        config.total_windows = total;
        config.warmup_windows = warmup;
        config.decay_windows = decay;
        for (int64_t window = 0; window < total; ++window) {
          const double rate = LearningRate(config, window);
          EXPECT_TRUE(rate > 0 && rate <= 2e-3) << total << " " << warmup << " " << decay << " " << window;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, LearningRateTest,
                         testing::Values(ScheduleKind::kConstant, ScheduleKind::kLinear,
                                         ScheduleKind::kCosine, ScheduleKind::kWarmupStableDecay));

TEST(ScalarsOf, AWindow_AreTheRoundedBits) {
  ScheduleConfig config = Config(ScheduleKind::kCosine);
  config.beta1 = 0.9;
  config.beta2 = 0.95;
  const StepScalars scalars = ScalarsOf(config, 60, 41);
  EXPECT_EQ(std::bit_cast<float>(scalars.learning_rate_bits), static_cast<float>(LearningRate(config, 60)));
  EXPECT_EQ(std::bit_cast<float>(scalars.bias_correction1_bits), static_cast<float>(BiasCorrection(0.9, 42)));
  EXPECT_EQ(std::bit_cast<float>(scalars.bias_correction2_bits),
            static_cast<float>(BiasCorrection(0.95, 42)));
}

}  // namespace
}  // namespace accrue
