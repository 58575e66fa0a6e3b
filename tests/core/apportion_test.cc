#include "coordinator/core/apportion.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/philox.h"

namespace accrue::core {
namespace {

using ::testing::ElementsAre;

// The best makespan over all ways to split.
double BestMakespanNs(int64_t units, const std::vector<Load>& loads, size_t from = 0) {
  const auto finish = [&](int64_t count) {
    return static_cast<double>(loads[from].pending + count) * loads[from].unit_ns;
  };
  if (from + 1 == loads.size()) return finish(units);
  double best = std::numeric_limits<double>::infinity();
  for (int64_t count = 0; count <= units; ++count) {
    best = std::min(best, std::max(finish(count), BestMakespanNs(units - count, loads, from + 1)));
  }
  return best;
}

TEST(Apportion, NothingMeasured_SplitsEvenlyAndEarlierWorkersTakeTheRest) {
  EXPECT_THAT(Apportion(8, {{}, {}, {}}), ElementsAre(3, 3, 2));
  EXPECT_THAT(Apportion(2, {{}, {}, {}}), ElementsAre(1, 1, 0));
  EXPECT_THAT(Apportion(0, {{}, {}}), ElementsAre(0, 0));
}

TEST(Apportion, UnequalSpeeds_FollowsThem) {
  EXPECT_THAT(Apportion(9, {{.unit_ns = 10}, {.unit_ns = 20}}), ElementsAre(6, 3));
  // One that was not measured counts as the mean of the others.
  EXPECT_THAT(Apportion(9, {{.unit_ns = 10}, {.unit_ns = 10}, {}}), ElementsAre(3, 3, 3));
}

TEST(Apportion, RandomLoads_ReachTheBestMakespan) {
  uint64_t state = 5;
  const auto draw = [&](uint64_t bound) { return static_cast<int64_t>(SplitMix64(state++) % bound); };
  for (int round = 0; round < 300; ++round) {
    std::vector<Load> loads(static_cast<size_t>(draw(4) + 1));
    const bool pending = draw(2) == 1;
    for (Load& load : loads) load = {static_cast<double>(draw(50) + 1), pending ? draw(5) : 0};
    const int64_t units = draw(15);
    const std::vector<int64_t> counts = Apportion(units, loads);
    ASSERT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), units);
    double best = BestMakespanNs(units, loads);
    for (const Load& load : loads) best = std::max(best, static_cast<double>(load.pending) * load.unit_ns);
    ASSERT_DOUBLE_EQ(MakespanNs(loads, counts), best) << "round " << round;
  }
}

TEST(Apportion, PendingUnitsAndUnitsUnderWay_AsOneByOne) {
  uint64_t state = 9;
  const auto draw = [&](uint64_t bound) { return static_cast<int64_t>(SplitMix64(state++) % bound); };
  for (int round = 0; round < 20; ++round) {
    std::vector<Load> loads(static_cast<size_t>(draw(60) + 1));
    for (Load& load : loads) {
      load = {static_cast<double>(draw(900) + 100), draw(40), static_cast<double>(draw(100))};
    }
    const int64_t units = draw(3000);
    std::vector<int64_t> expected(loads.size(), 0);
    for (int64_t unit = 0; unit < units; ++unit) {
      size_t first = 0;
      const auto finish = [&](size_t i) {
        return static_cast<double>(loads[i].pending + expected[i] + 1) * loads[i].unit_ns - loads[i].ahead_ns;
      };
      for (size_t i = 1; i < loads.size(); ++i) {
        if (finish(i) < finish(first)) first = i;
      }
      ++expected[first];
    }
    const std::vector<int64_t> counts = Apportion(units, loads);
    ASSERT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), units);
    ASSERT_DOUBLE_EQ(MakespanNs(loads, counts), MakespanNs(loads, expected)) << "round " << round;
  }
}

TEST(ApportionSteadily, SmallGain_KeepsThePreviousShares) {
  const std::vector<Load> loads = {{.unit_ns = 100}, {.unit_ns = 104}};
  EXPECT_THAT(ApportionSteadily(100, loads, {50, 50}, 0.03), ElementsAre(50, 50));
  EXPECT_THAT(ApportionSteadily(100, loads, {50, 50}, 0.001), ElementsAre(51, 49));
}

TEST(ApportionSteadily, LargeGain_Moves) {
  const std::vector<Load> loads = {{.unit_ns = 100}, {.unit_ns = 300}};
  EXPECT_THAT(ApportionSteadily(100, loads, {50, 50}, 0.03), ElementsAre(75, 25));
}

}  // namespace
}  // namespace accrue::core
