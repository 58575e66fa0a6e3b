// Simulates with fresh seeds until the time is up, or something breaks: then the seed is printed, and --seed
// replays it.
//
//   sim_soak --seconds N [--seed FIRST] [--trace]
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "common/clock.h"
#include "tests/sim/scenarios.h"

int main(int argc, char** argv) {
  double seconds = 10;
  uint64_t seed = 0;
  bool one = false, trace = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) {
      seconds = std::atof(argv[++i]);
    } else if (std::strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
      one = true;
    } else if (std::strcmp(argv[i], "--commit") == 0 && i + 1 < argc) {
      std::printf("commit %s\n", argv[++i]);
    } else if (std::strcmp(argv[i], "--trace") == 0) {
      trace = true;
    } else {
      std::fprintf(stderr, "usage: sim_soak --seconds N | --seed S [--trace]\n");
      return 2;
    }
  }
  if (!one) {
    std::random_device device;
    seed = (static_cast<uint64_t>(device()) << 16) ^ device();
  }
  const accrue::Clock& clock = accrue::Clock::Real();
  const int64_t end_ns = clock.SteadyNowNs() + static_cast<int64_t>(seconds * 1e9);
  int64_t runs = 0;
  do {
    // Every fourth with a faulty device.
    accrue::core::SimulationConfig config =
        seed % 4 == 0 ? accrue::core::LiarScenario(seed) : accrue::core::ChaosScenario(seed);
    config.trace = trace;
    const std::string wrong = accrue::core::CheckScenario(config);
    ++runs;
    if (!wrong.empty()) {
      std::printf("%s\nreplay: sim_soak --seed %llu --trace\n", wrong.c_str(),
                  static_cast<unsigned long long>(seed));
      return 1;
    }
    ++seed;
  } while (!one && clock.SteadyNowNs() < end_ns);
  std::printf("%lld runs, the last with seed %llu: every check held\n", static_cast<long long>(runs),
              static_cast<unsigned long long>(seed - 1));
  return 0;
}
