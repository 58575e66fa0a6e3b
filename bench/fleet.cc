// The coordinator's CPU time for a window, from 10 to 10,000 simulated workers, and simulated windows a second.
//
//   accrue_bench_fleet [LARGEST]     the number of workers of the last row, 10000 by default
//
// The core alone: messages are values, the journal is memory. Each figure is the difference of two runs of the same
// fleet, a short and a long one, so that joining and the job's end count for nothing; the median of three.
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/sim/scenarios.h"

namespace {

constexpr int kRepetitions = 3;
constexpr int64_t kUnitsPerWorker = 4;

int64_t ThreadCpuNs() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

struct Cost {
  double core_ns = 0, all_ns = 0, events = 0;
};

Cost Run(int workers, int64_t windows, uint64_t seed) {
  accrue::core::SimulationConfig config = accrue::core::QuietScenario(seed);
  config.workers = workers;
  config.job.max_workers = workers;
  config.job.min_workers = workers;
  config.job.units_per_window = kUnitsPerWorker * workers;
  config.job.total_windows = config.job.schedule.total_windows = windows;
  config.job.evaluation_every = 0;
  config.job.checkpoint_every = 0;
  config.unit_ns = 250e6;  // windows of a second
  config.hash_effects = false;
  config.cpu_ns = ThreadCpuNs;
  const int64_t begin_ns = ThreadCpuNs();
  const accrue::core::SimulationResult result = accrue::core::Simulator(config).Run();
  const auto all_ns = static_cast<double>(ThreadCpuNs() - begin_ns);
  if (!result.failure.empty() || result.state != accrue::core::JobState::kSucceeded) {
    std::fprintf(stderr, "the run failed: %s%s\n", result.failure.c_str(), result.reason.c_str());
    std::exit(1);
  }
  return {static_cast<double>(result.core_cpu_ns), all_ns, static_cast<double>(result.events)};
}

Cost PerWindow(int workers, uint64_t seed) {
  const int64_t more = std::clamp<int64_t>(20'000 / workers, 4, 200);
  const Cost few = Run(workers, 4, seed), many = Run(workers, 4 + more, seed);
  const auto windows = static_cast<double>(more);
  return {(many.core_ns - few.core_ns) / windows, (many.all_ns - few.all_ns) / windows,
          (many.events - few.events) / windows};
}

}  // namespace

int main(int argc, char** argv) {
  const int largest = argc > 1 ? std::atoi(argv[1]) : 10'000;
  std::printf("%8s %14s %14s %22s %20s %22s\n", "workers", "units", "events", "core CPU ms", "core CPU us", "simulated windows");
  std::printf("%8s %14s %14s %22s %20s %22s\n", "", "a window", "a window", "a window", "a window and worker", "a second of CPU");
  for (int workers = 10; workers <= largest; workers *= 10) {
    std::vector<Cost> costs;
    for (int i = 0; i < kRepetitions; ++i) costs.push_back(PerWindow(workers, static_cast<uint64_t>(i + 1)));
    std::sort(costs.begin(), costs.end(), [](const Cost& a, const Cost& b) { return a.core_ns < b.core_ns; });
    const Cost& median = costs[kRepetitions / 2];
    std::printf("%8d %14lld %14.0f %22.3f %20.3f %22.1f\n", workers, static_cast<long long>(kUnitsPerWorker * workers),
                median.events, median.core_ns * 1e-6, median.core_ns * 1e-3 / workers, 1e9 / median.all_ns);
    std::fflush(stdout);
  }
  return 0;
}
