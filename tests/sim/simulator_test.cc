// Whole jobs on simulated fleets: the digests must be those of one undisturbed worker, whatever happens.
#include <gtest/gtest.h>

#include <set>

#include "tests/sim/scenarios.h"

namespace accrue::core {
namespace {

TEST(Simulator, SameSeed_SameEffects) {
  SimulationConfig config = ChaosScenario(11);
  const SimulationResult first = Simulator(config).Run();
  const SimulationResult second = Simulator(config).Run();
  EXPECT_EQ(first.effect_hash, second.effect_hash);
  EXPECT_EQ(first.effects, second.effects);
  config.seed = 12;
  EXPECT_NE(Simulator(config).Run().effect_hash, first.effect_hash);
}

TEST(Simulator, AnyNumberOfWorkers_DigestsOfOne) {
  for (int workers : {1, 2, 3, 5, 64}) {
    SimulationConfig config = QuietScenario(static_cast<uint64_t>(workers));
    config.workers = workers;
    EXPECT_EQ(CheckScenario(config), "") << workers << " workers";
  }
}

TEST(Simulator, HundredsOfUnequalWorkers_MakespanNearIdeal) {
  SimulationConfig config = QuietScenario(7);
  config.workers = 300;
  config.job.max_workers = 300;
  config.job.units_per_window = 12'000;
  config.job.total_windows = 8;
  config.job.evaluation_units = 0;
  config.spread = 3;
  config.jitter = 0.05;
  const SimulationResult result = Simulator(config).Run();
  EXPECT_EQ(result.failure, "");
  EXPECT_EQ(result.state, JobState::kSucceeded) << result.reason;
  EXPECT_LT(result.worst_makespan_ratio, 1.10);
}

TEST(Simulator, OverflowsAndSkips_DigestsOfOne) {
  SimulationConfig config = QuietScenario(3);
  config.overflows = 0.01;
  config.non_finite = 0.005;
  config.empty = 0.05;
  config.job.total_windows = 60;
  SimulationResult result;
  EXPECT_EQ(CheckScenario(config, &result), "");
  EXPECT_GT(result.attempts, 0);
}

// Halved and doubled by turns: the scale that a window is computed with is the undisturbed run's, whatever happens.
TEST(Simulator, LossScaleUnderFaults_DigestsOfOne) {
  std::set<int> scales;
  int64_t skips = 0;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SimulationConfig config = ChaosScenario(seed);
    MakeFp16(config);
    config.non_finite = 0.01;
    config.faults.crashes = 1;
    config.on_durable = [&](const std::vector<Effect>& effects) {
      for (const Effect& effect : effects) {
        const auto* commit = std::get_if<PersistCommit>(&effect);
        if (commit == nullptr) continue;
        scales.insert(commit->record.loss_scale->exponent);
        skips += commit->record.skipped;
      }
    };
    EXPECT_EQ(CheckScenario(config), "") << seed;
  }
  EXPECT_GT(scales.size(), 4u);
  EXPECT_GT(skips, 20);
}

TEST(Simulator, BrokenReduces_GoOnFromFinalBucketsWithinTheAttempt) {
  int64_t runs_with_partial_seals = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SimulationConfig config = QuietScenario(seed);
    config.workers = 6;
    config.faults.breaks = 8;
    config.faults.kills = 1;
    config.job.total_windows = 40;
    config.job.units_per_window = 12;
    config.faults.until_ns = 20'000'000'000;
    SimulationResult result;
    EXPECT_EQ(CheckScenario(config, &result), "");
    EXPECT_EQ(result.attempts, 0);
    runs_with_partial_seals += result.partial_seals > 3;
  }
  EXPECT_GT(runs_with_partial_seals, 3);
}

SimulationConfig FourEqualWorkers() {
  SimulationConfig config = QuietScenario(9);
  config.workers = 4;
  config.spread = 1;
  config.jitter = 0.2;
  config.job.units_per_window = 48;  // 240 ms
  config.job.total_windows = 40;
  config.job.evaluation_units = 0;
  config.job.checkpoint_every = 0;
  return config;
}

// But in the first window, where one unit, longer or shorter by chance, is all that is known of a worker.
TEST(Simulator, EqualWorkers_NothingMovesOnceTheyAreKnown) {
  int64_t first = 0, later = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SimulationConfig config = FourEqualWorkers();
    config.seed = seed;
    config.on_durable = [&](const std::vector<Effect>& effects) {
      for (const Effect& effect : effects) {
        const auto* send = std::get_if<Send>(&effect);
        const auto* recall = send == nullptr ? nullptr : std::get_if<Recall>(&send->message);
        if (recall != nullptr) ++(recall->key.window.value() == 0 ? first : later);
      }
    };
    EXPECT_EQ(Simulator(config).Run().state, JobState::kSucceeded);
  }
  EXPECT_LT(first, 10);
  EXPECT_EQ(later, 0);
}

TEST(Simulator, OneBecomesThreeTimesSlower_WindowsStayNearTheIdeal) {
  SimulationConfig config = FourEqualWorkers();
  config.slow_down_at_ns = 3'100'000'000;  // in the middle of a window
  config.slow_down = 3;
  const SimulationResult result = Simulator(config).Run();
  EXPECT_EQ(result.state, JobState::kSucceeded);
  EXPECT_GT(result.recalls, 0);
  const double ideal_ns = 48 * config.unit_ns / (3 + 1. / 3);
  const double reduce_and_step_ns = 18e6;  // at most, and messages
  double sum_ns = 0;
  int64_t after = 0;
  for (const WindowRecord& record : result.commits) {
    const auto duration_ns = static_cast<double>(record.duration_ns);
    if (record.window.value() < 4) continue;
    EXPECT_LT(duration_ns, 1.25 * ideal_ns + reduce_and_step_ns) << record.window;
    if (record.window.value() < 20) continue;
    sum_ns += duration_ns;
    ++after;
  }
  EXPECT_LT(sum_ns / static_cast<double>(after), 1.10 * ideal_ns + reduce_and_step_ns);
}

TEST(Simulator, WorkersJoinAllTheTime_MostEnterWithACommunicatorFormedAhead) {
  SimulationConfig config = QuietScenario(4);
  config.workers = 4;
  config.faults.kills = 3;
  config.faults.joins = 3;
  config.faults.until_ns = 20'000'000'000;
  config.job.total_windows = 120;
  SimulationResult result;
  EXPECT_EQ(CheckScenario(config, &result), "");
  EXPECT_GT(result.covered["a communicator formed ahead is used"], 8);
}

TEST(Simulator, BitsFlip_DigestsOfOne) {
  int64_t quarantines = 0, restarts = 0;
  for (uint64_t seed = 101; seed <= 120; ++seed) {
    SimulationConfig config = QuietScenario(seed);
    config.workers = 2 + static_cast<int>(seed % 4);
    config.job.min_workers = 2;
    config.job.total_windows = 60;
    config.job.units_per_window = 15;
    config.faults.flips = 0.6;
    config.faults.breaks = 2;
    config.faults.until_ns = 10'000'000'000;
    const SimulationResult result = Simulator(config).Run();
    quarantines += result.quarantines;
    restarts += result.restarts;
    EXPECT_EQ(CheckScenario(config), "");
  }
  EXPECT_GT(quarantines, 20);
  EXPECT_GT(restarts, 0);
}

TEST(Simulator, FaultyDevice_FoundByItsFirstAuditedLie) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SimulationConfig config = QuietScenario(seed);
    config.workers = seed % 2 == 0 ? 2 : 4;
    config.job.min_workers = 2;
    config.workers += 1;
    config.lies = 0.1;
    config.job.audit_fraction = 1;
    EXPECT_EQ(CheckScenario(config), "") << "seed " << seed;
    EXPECT_GT(Simulator(config).Run().lies, 0) << "seed " << seed;
    config.job.audit_fraction = 0;
    EXPECT_NE(CheckScenario(config), "") << "seed " << seed << ": nothing else can see it";
  }
}

// A digest that is not the undisturbed run's must be seen, or no test here means anything.
TEST(Simulator, WrongDigest_IsSeenAtItsWindow) {
  SimulationConfig config = QuietScenario(1);
  config.expected = ReferenceDigests(config);
  EXPECT_EQ(Simulator(config).Run().failure, "");
  config.expected[7] = "another";
  EXPECT_NE(Simulator(config).Run().failure.find("window 7 has digest"), std::string::npos);
}

TEST(Simulator, NoWorkerComesBack_LackOfProgressIsSeen) {
  SimulationConfig config = QuietScenario(1);
  config.job.min_workers = 5;
  EXPECT_NE(Simulator(config).Run().failure.find("no progress"), std::string::npos);
}

// What a worker was sent while it was frozen, and frozen again, comes in order: it would else follow what was called off.
TEST(Simulator, FrozenAgainAndAgain_StreamsStayInOrder) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SimulationConfig config = QuietScenario(seed);
    config.faults.freezes = 4;
    config.faults.kills = 1;
    config.faults.until_ns = 8'000'000'000;
    EXPECT_EQ(CheckScenario(config), "");
  }
}

// ---- one death, at every event there is ----

SimulationConfig SmallScenario() {
  SimulationConfig config = QuietScenario(3);
  config.workers = 3;
  config.job.units_per_window = 7;
  config.job.total_windows = 6;
  config.job.schedule.total_windows = 6;
  config.job.evaluation_every = 2;
  config.job.evaluation_units = 3;
  config.job.checkpoint_every = 2;
  config.holders_suffice = true;
  return config;
}

class EveryEvent : public ::testing::TestWithParam<int> {};

TEST_P(EveryEvent, CoordinatorDies_NothingIsLost) {
  SimulationConfig config = SmallScenario();
  const int64_t events = Simulator(config).Run().events;
  ASSERT_GT(events, 100);
  config.crash_cut = GetParam();
  const int64_t units = config.job.units_per_window * config.job.total_windows;
  int64_t with_a_step = 0, with_units = 0;
  for (config.crash_at = 0; config.crash_at < events; ++config.crash_at) {
    SimulationResult result;
    ASSERT_EQ(CheckScenario(config, &result), "") << "at event " << config.crash_at;
    // Not a window and not a unit is computed again: everybody that has something comes back.
    ASSERT_EQ(result.units_computed, units) << "at event " << config.crash_at;
    with_a_step += result.covered["holding with a step"];
    with_units += result.covered["holding with units"];
  }
  EXPECT_GT(with_a_step, 0);
  EXPECT_GT(with_units, 0);
}

INSTANTIATE_TEST_SUITE_P(Cuts, EveryEvent, ::testing::Range(0, 4));

class EveryWorker : public ::testing::TestWithParam<int> {};

TEST_P(EveryWorker, DiesAtEveryEvent_NothingIsLost) {
  SimulationConfig config = SmallScenario();
  config.overflows = 0.05;
  const int64_t events = Simulator(config).Run().events;
  config.kill_worker = GetParam();
  for (config.kill_at = 0; config.kill_at < events; ++config.kill_at) {
    ASSERT_EQ(CheckScenario(config), "") << "at event " << config.kill_at;
  }
}

INSTANTIATE_TEST_SUITE_P(Workers, EveryWorker, ::testing::Range(0, 3));

// ---- everything, from seeds ----

class Chaos : public ::testing::TestWithParam<uint64_t> {};

TEST_P(Chaos, AllFaults_DigestsOfOne) { EXPECT_EQ(CheckScenario(ChaosScenario(GetParam())), ""); }

TEST_P(Chaos, AFaultyDeviceToo_DigestsOfOne) { EXPECT_EQ(CheckScenario(LiarScenario(GetParam())), ""); }

INSTANTIATE_TEST_SUITE_P(Seeds, Chaos, ::testing::Range(uint64_t{1}, uint64_t{41}));

// Seeds of soaks that once failed.
INSTANTIATE_TEST_SUITE_P(Found, Chaos, ::testing::Values(uint64_t{239912267066419}, uint64_t{101571242603792}));

class Coordinator : public ::testing::TestWithParam<uint64_t> {};

TEST_P(Coordinator, DiesAgainAndAgain_NothingIsLostWhileAHolderLives) {
  EXPECT_EQ(CheckScenario(CoordinatorScenario(GetParam())), "");
}

INSTANTIATE_TEST_SUITE_P(Seeds, Coordinator, ::testing::Range(uint64_t{1}, uint64_t{31}));

TEST(Fleet, AThousandWorkers_DigestsOfOne) {
  SimulationResult result;
  EXPECT_EQ(CheckScenario(FleetScenario(2, 1000), &result), "");
  EXPECT_GT(result.deaths, 10);
  EXPECT_GT(result.crashes, 0);
}

}  // namespace
}  // namespace accrue::core
