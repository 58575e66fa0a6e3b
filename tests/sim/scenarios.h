// The simulations that tests and the soak run, and what must hold of each.
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/simulator.h"

namespace accrue::core {

// Nobody dies; evaluation and checkpoints on.
SimulationConfig QuietScenario(uint64_t seed);

// Fleet, job and the rates of all faults drawn from the seed.
// With a loss scale that falls and grows within few windows.
void MakeFp16(SimulationConfig& config);
SimulationConfig ChaosScenario(uint64_t seed);
// The same with a faulty device among them, and what finds it.
SimulationConfig LiarScenario(uint64_t seed);

// The coordinator dies over and over, sometimes a worker; while one holder of the state lives, nothing may be lost.
SimulationConfig CoordinatorScenario(uint64_t seed);

// So many workers, and faults at rates that grow with them.
SimulationConfig FleetScenario(uint64_t seed, int workers);

// By name: chaos (every fourth with a faulty device), coordinator, fleet, quiet. Ends the program for another.
SimulationConfig ScenarioOf(const std::string& name, uint64_t seed);

// Runs it and compares with one undisturbed worker: "" or what is wrong, with the seed. `result`, if given, is what the
// run came to.
std::string CheckScenario(SimulationConfig config, SimulationResult* result = nullptr);

}  // namespace accrue::core
