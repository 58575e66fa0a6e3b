// A whole fleet from a seed: simulated workers, delays, deaths, and the checks that no test may break.
//
// The same configuration gives the same run, effect by effect.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "coordinator/core/core.h"
#include "tests/sim/simulated_collective.h"
#include "tests/sim/simulated_worker.h"

namespace accrue::core {

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

  // Faults, as means a second of simulated time until `faults_until_ns`; all random, all from the seed.
  double kills = 0;               // the stream ends
  double stops = 0;               // silence
  double leaves = 0;              // SIGTERM
  double joins = 0;               // beyond the replacement of those that went
  double crashes = 0;             // of the coordinator
  double pauses = 0;              // for a moment
  double breaks = 0;              // a reduce fails although everybody lives
  int64_t slow_down_at_ns = 0;    // the first worker, once, by slow_down; 0: never
  double slow_down = 1;
  double slows = 0;               // a worker becomes up to six times slower for a while
  double flips = 0;               // of a bit of a worker's state
  double failed_checkpoints = 0;  // probability
  int64_t faults_until_ns = 0;

  // A device that computes wrongly: the first worker, with this probability a unit.
  double lies = 0;
  enum class Lie { kGradient, kNotFinite, kOverflow } lie = Lie::kGradient;

  // Of units, as probabilities; the same for every run with this content_seed.
  double overflows = 0, non_finite = 0, empty = 0;

  int64_t give_up_ns = 3'600'000'000'000;  // simulated
  bool trace = false;                      // to standard error
};

struct SimulationResult {
  std::string failure;  // empty: every check held
  JobState state = JobState::kWaiting;
  std::string reason;
  std::vector<WindowRecord> commits;
  std::map<int64_t, double> evaluations;
  uint64_t effect_hash = 0;
  int64_t effects = 0;
  int64_t end_ns = 0;
  double worst_makespan_ratio = 0;  // over ideal, of windows from the fourth on
  int64_t deaths = 0, attempts = 0, restarts = 0, crashes = 0, lies = 0;
  int64_t quarantines = 0;
  int64_t recalls = 0;
  int64_t partial_seals = 0;  // that went on from buckets that were final
  std::map<std::string, int64_t> dropped;
};

class Simulator {
 public:
  explicit Simulator(const SimulationConfig& config);
  SimulationResult Run();

  // ---- for SimulatedWorker ----
  const SimulationConfig& config() const { return config_; }
  int64_t now_ns() const { return now_ns_; }
  void At(int64_t time_ns, std::function<void()> what);
  void FromWorker(SimulatedWorker& worker, Event event);
  double Uniform() { return static_cast<double>(Random() >> 11) * 0x1p-53; }
  uint64_t Random();
  SimulatedCollectives& collectives() { return collectives_; }
  SimulatedWorker* Find(Incarnation incarnation);  // null for one that is gone
  const SimulatedState* FindCheckpoint(const std::string& directory) const;
  void End(SimulatedWorker& worker, bool tell);
  void Violation(const std::string& what);
  // Changes what a faulty device makes of a unit, now and then.
  void MaybeLie(const SimulatedWorker& worker, UnitReport& report, uint64_t& gradient);

  // The gradient of a unit: a function of content, parameters, window and unit alone.
  UnitReport UnitOf(uint64_t digest, int64_t window, int64_t unit, const std::vector<int>& exponents) const;
  uint64_t GradientOf(uint64_t digest, int64_t window, int64_t unit, const std::vector<int>& exponents) const;
  EvaluationReport EvaluationOf(uint64_t digest, int64_t unit) const;

 private:
  struct Timed {
    int64_t time_ns;
    uint64_t sequence;
    std::function<void()> what;
    friend bool operator<(const Timed& a, const Timed& b) {
      return std::pair(a.time_ns, a.sequence) > std::pair(b.time_ns, b.sequence);
    }
  };

  void StartCore(const StartPoint& start);
  void CrashCoordinator();
  void Apply(const Event& event);
  void Carry(const Effect& effect);
  void CheckSend(const Send& send);
  void CheckCommit(const WindowRecord& record);
  void StartWorker();
  void Heartbeat(Incarnation worker);
  uint64_t DrawOf(int64_t window, int64_t unit) const;
  void PlanFaults();
  void Strike(int kind);
  void FinishCheckpointFiles(const FinishCheckpoint& finish);
  bool Done() const;

  const SimulationConfig config_;
  std::unique_ptr<Core> core_;
  int64_t term_ = 0;
  SimulationResult result_;
  int64_t now_ns_ = 0;
  uint64_t sequence_ = 0;
  uint64_t random_ = 0;
  std::priority_queue<Timed> queue_;
  std::map<Incarnation, std::unique_ptr<SimulatedWorker>> workers_;
  SimulatedCollectives collectives_{*this};
  std::map<std::string, std::vector<Incarnation>> communicator_members_;
  std::map<std::string, SimulatedState> checkpoints_;
  std::vector<std::string> checkpoint_order_;
  std::set<std::pair<int64_t, int64_t>> lied_about_;  // windows and units
  // What is durable.
  int64_t durable_timeline_ = 0, durable_epoch_ = 0;
  std::map<int64_t, int64_t> durable_attempt_;  // by window, of this timeline
  int64_t committed_ = 0;
};

// The digests of an undisturbed run on one worker.
std::vector<std::string> ReferenceDigests(const SimulationConfig& config);

}  // namespace accrue::core
