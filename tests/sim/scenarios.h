// The simulations that tests and the soak run, and what must hold of each.
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/simulator.h"

namespace accrue::core {

// Nobody dies; evaluation and checkpoints on.
SimulationConfig QuietScenario(uint64_t seed);

// Fleet, job and fault rates drawn from the seed.
SimulationConfig ChaosScenario(uint64_t seed);
// The same with a faulty device among them, and what finds it.
SimulationConfig LiarScenario(uint64_t seed);

// Runs it and compares with one undisturbed worker: "" or what is wrong, with the seed.
std::string CheckScenario(const SimulationConfig& config);

}  // namespace accrue::core
