#include "tests/sim/scenarios.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/philox.h"

namespace accrue::core {
namespace {

class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15) {}
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(SplitMix64(state_++) % static_cast<uint64_t>(high - low + 1));
  }
  // A tenth of it.
  double Tenths(int64_t low, int64_t high) { return static_cast<double>(Between(low, high)) / 10; }

 private:
  uint64_t state_;
};

// Undisturbed runs, by what their digests depend on.
const std::vector<std::string>& Reference(const SimulationConfig& config) {
  static auto& known = *new std::map<std::string, std::vector<std::string>>();
  const JobConfig& job = config.job;
  const std::string key = absl::StrCat(config.content_seed, " ", job.units_per_window, " ", job.total_windows, " ",
                                       config.overflows, " ", config.non_finite, " ", config.empty, " ",
                                       job.loss_scale ? job.loss_scale->initial_exponent : -1, " ",
                                       job.loss_scale ? job.loss_scale->growth_windows : 0);
  const auto [entry, fresh] = known.try_emplace(key);
  if (fresh) entry->second = ReferenceDigests(config);
  return entry->second;
}

}  // namespace

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

void MakeFp16(SimulationConfig& config) {
  config.job.precision = Precision::kFp16;
  config.job.loss_scale = LossScaleConfig{.initial_exponent = 3, .growth_windows = 4};
}

SimulationConfig ChaosScenario(uint64_t seed) {
  Draws draw(seed);
  SimulationConfig config = QuietScenario(seed);
  config.content_seed = seed % 5;
  config.job.min_workers = draw.Between(1, 3);
  config.workers = static_cast<int>(draw.Between(config.job.min_workers, 9));
  config.spread = static_cast<double>(draw.Between(1, 4));
  config.job.max_workers = draw.Between(config.job.min_workers, 12);
  config.job.units_per_window = draw.Between(1, 40);
  config.job.total_windows = 40;
  config.job.schedule.total_windows = 40;
  config.job.evaluation_every = draw.Between(0, 4);
  config.job.checkpoint_every = draw.Between(0, 6);
  FaultRates& faults = config.faults;
  faults.kills = draw.Tenths(0, 30);
  faults.losses = draw.Tenths(0, 3);
  faults.leaves = draw.Tenths(0, 8);
  faults.joins = draw.Tenths(0, 5);
  faults.breaks = draw.Tenths(0, 10);
  faults.crashes = draw.Tenths(0, 8);
  faults.pauses = draw.Tenths(0, 3);
  faults.freezes = draw.Tenths(0, 4);
  faults.drops = draw.Tenths(0, 6);
  faults.cuts = draw.Tenths(0, 4);
  faults.splits = draw.Tenths(0, 2);
  faults.blackouts = draw.Tenths(0, 1);
  faults.repeats = draw.Tenths(0, 6);
  faults.slows = draw.Tenths(0, 5);
  faults.failed_checkpoints = static_cast<double>(draw.Between(0, 5)) / 1000;
  config.job.audit_fraction = static_cast<double>(std::max<int64_t>(0, draw.Between(-4, 4))) / 8;
  config.overflows = static_cast<double>(draw.Between(0, 5)) / 1000;
  config.non_finite = static_cast<double>(draw.Between(0, 5)) / 1000;
  // Messages that take as long as units do cross each other.
  if (draw.Between(0, 3) == 0) config.delay_spread_ns = draw.Between(5, 60) * 1'000'000;
  faults.until_ns = draw.Between(5, 30) * 1'000'000'000;
  faults.hangs = draw.Tenths(0, 2);
  if (seed % 3 == 0) MakeFp16(config);
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

SimulationConfig CoordinatorScenario(uint64_t seed) {
  Draws draw(seed + 1'000'000'007);
  SimulationConfig config = QuietScenario(seed);
  config.content_seed = seed % 5;
  config.workers = static_cast<int>(draw.Between(1, 7));
  config.job.units_per_window = draw.Between(1, 30);
  config.job.total_windows = 30;
  config.job.schedule.total_windows = 30;
  config.job.evaluation_every = draw.Between(0, 4);
  config.job.checkpoint_every = draw.Between(0, 6);
  config.faults.crashes = draw.Tenths(5, 20);
  config.faults.kills = draw.Tenths(0, 5);
  config.faults.repeats = 0.5;
  config.overflows = static_cast<double>(draw.Between(0, 10)) / 1000;
  config.non_finite = static_cast<double>(draw.Between(0, 10)) / 1000;
  config.faults.until_ns = 40'000'000'000;
  config.holders_suffice = true;
  return config;
}

SimulationConfig FleetScenario(uint64_t seed, int workers) {
  SimulationConfig config = QuietScenario(seed);
  config.workers = workers;
  config.spread = 3;
  config.job.max_workers = workers + workers / 10;
  config.job.min_workers = workers / 4;
  config.job.units_per_window = 4 * static_cast<int64_t>(workers);
  config.job.total_windows = 12;
  config.job.evaluation_every = 4;
  config.job.evaluation_units = workers;
  const double hundreds = static_cast<double>(workers) / 100;
  FaultRates& faults = config.faults;
  faults.kills = 0.5 * hundreds;
  faults.losses = 0.05 * hundreds;
  faults.freezes = 0.1 * hundreds;
  faults.drops = 0.2 * hundreds;
  faults.cuts = 0.1 * hundreds;
  faults.crashes = 0.4;
  faults.splits = 0.05;
  faults.repeats = 0.2;
  faults.until_ns = 8'000'000'000;
  return config;
}

SimulationConfig ScenarioOf(const std::string& name, uint64_t seed) {
  if (name == "chaos") return seed % 4 == 0 ? LiarScenario(seed) : ChaosScenario(seed);
  if (name == "coordinator") return CoordinatorScenario(seed);
  if (name == "fleet") return FleetScenario(seed, 1000);
  ACCRUE_CHECK(name == "quiet");
  return QuietScenario(seed);
}

std::string CheckScenario(SimulationConfig config, SimulationResult* result_out) {
  config.expected = Reference(config);
  const SimulationResult result = Simulator(config).Run();
  if (result_out != nullptr) *result_out = result;
  if (!result.failure.empty()) return result.failure;
  const std::string name = absl::StrCat("seed ", config.seed, ": ");
  // Three bad disks in a row end a job rightly; what it did until then must hold all the same.
  const bool disk = config.faults.failed_checkpoints > 0 && result.state == JobState::kFailed &&
                    result.reason.find("the disk is full") != std::string::npos;
  if (result.state != JobState::kSucceeded && !disk) {
    return absl::StrCat(name, "the job did not succeed: ", result.reason);
  }
  // That each window has the right digest was checked as it was recorded.
  if (result.commits.size() > config.expected.size() || (result.commits.size() < config.expected.size() && !disk)) {
    return absl::StrCat(name, result.commits.size(), " windows are committed, expected ", config.expected.size());
  }
  if (disk) return "";
  const JobConfig& job = config.job;
  for (int64_t window = 1; window <= job.total_windows; ++window) {
    const bool wanted = job.evaluation_every > 0 && job.evaluation_units > 0 &&
                        (window == job.total_windows || window % job.evaluation_every == 0);
    if (wanted != (result.evaluations.count(window) > 0)) {
      return absl::StrCat(name, "evaluation after window ", window, wanted ? " is missing" : " was not asked for");
    }
  }
  return "";
}

}  // namespace accrue::core
