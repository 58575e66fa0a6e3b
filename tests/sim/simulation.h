// What a simulation is given, and what came of it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "coordinator/core/core.h"

namespace accrue::core {

// Faults, as means a second of simulated time until `until_ns`; all random, all from the seed.
struct FaultRates {
  double kills = 0;      // a process ends, and its stream with it
  double losses = 0;     // a machine is gone: silence
  double freezes = 0;    // SIGSTOP for a while, then SIGCONT
  double leaves = 0;     // SIGTERM
  double joins = 0;      // beyond the replacement of those that went
  double breaks = 0;     // a reduce fails although everybody lives
  double drops = 0;      // a stream breaks, with what is on the way, although both sides live
  double cuts = 0;       // nothing passes between a worker and the coordinator for a while, one way or both
  double splits = 0;     // nothing passes between some workers and the others
  double crashes = 0;    // of the coordinator, before, between or after the effects of one event
  double blackouts = 0;  // everything at once
  double pauses = 0;     // asked for by people, for a moment
  double slows = 0;      // a worker becomes up to six times slower for a while
  double flips = 0;      // of a bit of a worker's state
  double hangs = 0;      // a worker does nothing more, but for its heartbeats
  // Probabilities.
  double failed_checkpoints = 0;
  double repeats = 0;  // that a message comes once more after its stream has ended, or its attempt or seal is void

  int64_t until_ns = 0;
  std::string Text() const;
};

struct SimulationConfig {
  uint64_t seed = 1;          // of speeds, delays and faults
  uint64_t content_seed = 1;  // of gradients: what the digests depend on
  JobConfig job;
  StartPoint start;
  int workers = 4;
  double unit_ns = 20e6;
  double spread = 1;  // slowest over fastest worker
  double jitter = 0;  // of a unit's time
  int64_t delay_ns = 200'000, delay_spread_ns = 300'000;
  FaultRates faults;

  int64_t slow_down_at_ns = 0;  // the first worker, once, by slow_down; 0: never
  double slow_down = 1;

  // A device that computes wrongly: the first worker, with this probability a unit.
  double lies = 0;
  enum class Lie { kGradient, kNotFinite, kOverflow } lie = Lie::kGradient;

  // One fault with the event of this number, counted from 0 over all of the core's; -1: none.
  int64_t crash_at = -1;
  int crash_cut = 0;  // 0: before its transaction is synced; 1: after; 2: with half of its effects carried out; 3: all
  int64_t kill_at = -1;  // the worker of this number among those alive, modulo their number
  int kill_worker = 0;

  // Of units, as probabilities; the same for every run with this content_seed.
  double overflows = 0, non_finite = 0, empty = 0;

  // Digests that the windows must have, from the first on; those beyond are not compared.
  std::vector<std::string> expected;
  // While a process that holds the state lives and can be reached, the job must not go back to a checkpoint.
  bool holders_suffice = false;

  int64_t give_up_ns = 3'600'000'000'000;  // simulated
  bool trace = false;                      // to standard error
  bool hash_effects = true;                // SimulationResult::effect_hash
  // Called with the effects of each transaction that is on disk, and with what each coordinator after the first begins.
  std::function<void(const std::vector<Effect>&)> on_durable;
  std::function<void(const StartPoint&)> on_restart;
  std::function<int64_t()> cpu_ns;         // CPU time of this thread, where the core's is to be measured
};

struct SimulationResult {
  std::string failure;  // empty: every check held
  JobState state = JobState::kWaiting;
  std::string reason;
  std::vector<WindowRecord> commits;
  std::map<int64_t, double> evaluations;
  uint64_t effect_hash = 0;
  int64_t effects = 0;
  int64_t events = 0;            // of the core
  int64_t end_ns = 0;
  int64_t core_cpu_ns = 0;
  double worst_makespan_ratio = 0;  // over ideal, of windows from the fourth on
  int64_t deaths = 0, attempts = 0, restarts = 0, crashes = 0, lies = 0;
  int64_t quarantines = 0;
  int64_t recalls = 0;
  int64_t units_computed = 0;  // and accumulated
  int64_t partial_seals = 0;  // that went on from buckets that were final
  std::map<std::string, int64_t> covered;  // what happened how often
  std::map<std::string, int64_t> dropped;
};

}  // namespace accrue::core
