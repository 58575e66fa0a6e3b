#include "tests/sim/scenarios.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/philox.h"

namespace accrue::core {

SimulationConfig QuietScenario(uint64_t seed) {
  SimulationConfig config;
  config.seed = seed;
  config.spread = 2;
  config.jitter = 0.1;
  config.job.id = "job";
  config.job.units_per_window = 48;
  config.job.total_windows = 12;
  config.job.sequences_per_unit = 4;
  config.job.sequence_length = 16;
  config.job.evaluation_every = 3;
  config.job.evaluation_units = 10;
  config.job.checkpoint_every = 5;
  config.job.max_workers = 64;
  config.job.schedule.total_windows = 12;
  return config;
}

SimulationConfig ChaosScenario(uint64_t seed) {
  uint64_t state = seed * 0x9E3779B97F4A7C15;
  const auto draw = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(SplitMix64(state++) % static_cast<uint64_t>(high - low + 1));
  };
  SimulationConfig config = QuietScenario(seed);
  config.content_seed = seed % 5;
  config.job.min_workers = draw(1, 3);
  config.workers = static_cast<int>(draw(config.job.min_workers, 9));
  config.spread = static_cast<double>(draw(1, 4));
  config.job.max_workers = draw(config.job.min_workers, 12);
  config.job.units_per_window = draw(1, 40);
  config.job.total_windows = 40;
  config.job.schedule.total_windows = 40;
  config.job.evaluation_every = draw(0, 4);
  config.job.checkpoint_every = draw(0, 6);
  config.kills = static_cast<double>(draw(0, 30)) / 10;
  config.stops = static_cast<double>(draw(0, 3)) / 10;
  config.leaves = static_cast<double>(draw(0, 8)) / 10;
  config.joins = static_cast<double>(draw(0, 5)) / 10;
  config.breaks = static_cast<double>(draw(0, 10)) / 10;
  config.crashes = static_cast<double>(draw(0, 2)) / 10;
  config.pauses = static_cast<double>(draw(0, 3)) / 10;
  config.failed_checkpoints = static_cast<double>(draw(0, 5)) / 1000;
  config.job.audit_fraction = static_cast<double>(std::max<int64_t>(0, draw(-4, 4))) / 8;
  config.overflows = static_cast<double>(draw(0, 5)) / 1000;
  config.non_finite = static_cast<double>(draw(0, 5)) / 1000;
  config.slows = static_cast<double>(draw(0, 5)) / 10;
  // Messages that take as long as units do cross each other.
  if (draw(0, 3) == 0) config.delay_spread_ns = draw(5, 60) * 1'000'000;
  config.faults_until_ns = draw(5, 30) * 1'000'000'000;
  return config;
}

SimulationConfig LiarScenario(uint64_t seed) {
  SimulationConfig config = ChaosScenario(seed);
  config.lies = 0.01 * static_cast<double>(1 + seed % 7);
  config.lie = static_cast<SimulationConfig::Lie>(seed / 7 % 3);
  config.job.audit_fraction = config.lie == SimulationConfig::Lie::kGradient ? 1 : 0;
  // One worker alone has nobody to contradict it.
  config.job.min_workers = std::max<int64_t>(2, config.job.min_workers);
  config.job.max_workers = std::max<int64_t>(3, config.job.max_workers);
  config.workers = std::max(3, config.workers);
  return config;
}

std::string CheckScenario(const SimulationConfig& config) {
  const SimulationResult result = Simulator(config).Run();
  if (!result.failure.empty()) return result.failure;
  const std::string name = absl::StrCat("seed ", config.seed, ": ");
  // Three bad disks in a row end a job rightly; what it did until then must hold all the same.
  const bool disk = config.failed_checkpoints > 0 && result.state == JobState::kFailed &&
                    result.reason.find("the disk is full") != std::string::npos;
  if (result.state != JobState::kSucceeded && !disk) {
    return absl::StrCat(name, "the job did not succeed: ", result.reason);
  }
  const std::vector<std::string> expected = ReferenceDigests(config);
  if (result.commits.size() > expected.size() || (result.commits.size() < expected.size() && !disk)) {
    return absl::StrCat(name, result.commits.size(), " windows are committed, expected ", expected.size());
  }
  for (size_t window = 0; window < result.commits.size(); ++window) {
    if (result.commits[window].digest == expected[window]) continue;
    return absl::StrCat(name, "window ", window, " has digest ", result.commits[window].digest,
                        ", on one worker ", expected[window]);
  }
  if (disk) return "";
  const JobConfig& job = config.job;
  for (int64_t window = 1; window <= job.total_windows; ++window) {
    const bool wanted = job.evaluation_every > 0 && job.evaluation_units > 0 &&
                        (window == job.total_windows || window % job.evaluation_every == 0);
    if (wanted != (result.evaluations.count(window) > 0)) {
      return absl::StrCat(name, "evaluation after window ", window,
                          wanted ? " is missing" : " was not asked for");
    }
  }
  return "";
}

}  // namespace accrue::core
