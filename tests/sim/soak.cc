// Simulates with fresh seeds until the time is up, or something breaks: then seed and rates are printed, and --seed
// replays the run, effect by effect with --trace.
//
//   tests/sim/soak --seconds N [--first S] | --seed S [--trace]    [--scenario chaos|coordinator|fleet|quiet]
#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "common/clock.h"
#include "tests/sim/scenarios.h"

namespace {

using accrue::core::SimulationConfig;
using accrue::core::SimulationResult;

// A check of the core's own ends the program; the seed must not be lost with it.
char last_words[200];
void SayLastWords(int) {
  const ssize_t written = write(STDERR_FILENO, last_words, strlen(last_words));
  _exit(written > 0 ? 1 : 2);
}

struct Options {
  double seconds = 10;
  uint64_t seed = 0;  // the first one; 0: a fresh one
  bool one = false, trace = false;
  std::string scenario = "chaos";
  std::string commit = "unknown";
};

bool Parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--trace") {
      options.trace = true;
      continue;
    }
    if (i + 1 >= argc) return false;
    const std::string value = argv[++i];
    if (name == "--seconds") {
      options.seconds = std::atof(value.c_str());
    } else if (name == "--seed" || name == "--first") {
      options.seed = std::strtoull(value.c_str(), nullptr, 10);
      options.one = name == "--seed";
    } else if (name == "--scenario") {
      options.scenario = value;
      if (value != "chaos" && value != "coordinator" && value != "fleet" && value != "quiet") return false;
    } else if (name == "--commit") {
      options.commit = value;
    } else {
      return false;
    }
  }
  return true;
}

// What a soak came to, over all of its runs.
struct Sum {
  int64_t runs = 0, windows = 0, events = 0;
  double simulated_s = 0;
  std::map<std::string, int64_t> covered, dropped;

  void Add(const SimulationResult& result) {
    ++runs;
    windows += static_cast<int64_t>(result.commits.size());
    events += result.events;
    simulated_s += static_cast<double>(result.end_ns) * 1e-9;
    covered["window replayed"] += result.attempts;
    covered["went back to a checkpoint"] += result.restarts;
    covered["seal with final buckets"] += result.partial_seals;
    for (const auto& [what, times] : result.covered) covered[what] += times;
    for (const auto& [what, times] : result.dropped) dropped[what] += times;
  }

  void Print(double real_s) const {
    std::printf("%lld runs, %lld windows, %.1f hours simulated, %lld events; %.0f windows a second\n",
                static_cast<long long>(runs), static_cast<long long>(windows), simulated_s / 3600,
                static_cast<long long>(events), static_cast<double>(windows) / real_s);
    std::printf("covered:\n");
    for (const auto& [what, times] : covered) std::printf("  %9lld  %s\n", static_cast<long long>(times), what.c_str());
    std::printf("messages that were not taken:\n");
    for (const auto& [what, times] : dropped) std::printf("  %9lld  %s\n", static_cast<long long>(times), what.c_str());
  }
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, options)) {
    std::fprintf(stderr,
                 "usage: soak --seconds N [--first S] | --seed S [--trace]  [--scenario chaos|coordinator|fleet|quiet]\n");
    return 2;
  }
  uint64_t seed = options.seed;
  if (!options.one && seed == 0) {
    std::random_device device;
    seed = (static_cast<uint64_t>(device()) << 16) ^ device();
  }
  std::printf("scenario %s, first seed %llu, commit %s\n", options.scenario.c_str(),
              static_cast<unsigned long long>(seed), options.commit.c_str());
  std::fflush(stdout);
  for (int fatal : {SIGABRT, SIGSEGV}) signal(fatal, SayLastWords);
  const accrue::Clock& clock = accrue::Clock::Real();
  const int64_t begin_ns = clock.SteadyNowNs();
  const auto elapsed_s = [&] { return static_cast<double>(clock.SteadyNowNs() - begin_ns) * 1e-9; };
  Sum sum;
  do {
    std::snprintf(last_words, sizeof(last_words), "FAILED\nreplay: tests/sim/soak --scenario %s --seed %llu --trace\n",
                  options.scenario.c_str(), static_cast<unsigned long long>(seed));
    SimulationConfig config = accrue::core::ScenarioOf(options.scenario, seed);
    config.trace = options.trace;
    SimulationResult result;
    const std::string wrong = accrue::core::CheckScenario(config, &result);
    sum.Add(result);
    if (options.one || !wrong.empty()) std::printf("rates %s\n", config.faults.Text().c_str());
    if (!wrong.empty()) {
      sum.Print(elapsed_s());
      std::printf("FAILED after %.1f s\n%s\nreplay: tests/sim/soak --scenario %s --seed %llu --trace\n", elapsed_s(),
                  wrong.c_str(), options.scenario.c_str(), static_cast<unsigned long long>(seed));
      return 1;
    }
    ++seed;
  } while (!options.one && elapsed_s() < options.seconds);
  sum.Print(elapsed_s());
  std::printf("every check held; the last seed was %llu\n", static_cast<unsigned long long>(seed - 1));
  return 0;
}
