// A whole fleet from a seed: a coordinator with its journal, workers, a network, and faults of all of them.
//
// The same configuration gives the same run, effect by effect. What must hold is in invariants.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/core/core.h"
#include "tests/sim/faults.h"
#include "tests/sim/invariants.h"
#include "tests/sim/network.h"
#include "tests/sim/simulated_collective.h"
#include "tests/sim/simulated_journal.h"
#include "tests/sim/simulated_worker.h"
#include "tests/sim/simulation.h"

namespace accrue::core {

class Simulator {
 public:
  explicit Simulator(const SimulationConfig& config);
  SimulationResult Run();

  // ---- for the parts ----
  const SimulationConfig& config() const { return config_; }
  int64_t now_ns() const { return now_ns_; }
  void At(int64_t time_ns, std::function<void()> what);
  // Not if the worker is gone by then; later if it is frozen.
  void AtWorker(int64_t time_ns, Incarnation worker, std::function<void()> what);
  double Uniform() { return static_cast<double>(Random() >> 11) * 0x1p-53; }
  uint64_t Random();
  SimulatedNetwork& network() { return network_; }
  SimulatedCollectives& collectives() { return collectives_; }
  void Violation(const std::string& what);
  void CountUnit() { ++result_.units_computed; }
  void Cover(const std::string& what) { ++result_.covered[what]; }
  void Trace(const std::string& what) const;
  // No fault of the plan lasts longer; after the last of them a job must make progress.
  void QuietFrom(int64_t time_ns) { quiet_from_ns_ = std::max(quiet_from_ns_, time_ns); }
  int64_t quiet_from_ns() const { return quiet_from_ns_; }
  std::string Stuck() const;  // what the job and its workers are at

  // ---- the coordinator ----
  bool up() const { return core_ != nullptr; }
  int64_t term() const { return term_; }
  void Apply(const Event& event);
  void CrashSoon() { crash_wanted_ = true; }  // with the next event that has effects
  void CrashCoordinator();
  void Pause(bool paused);
  bool Awaits(Incarnation worker) const { return core_->WhyNotAwaited(worker).empty(); }

  // ---- workers ----
  SimulatedWorker* Find(Incarnation incarnation);  // null for one that is gone
  const std::set<Incarnation>& Living() const { return living_; }
  void StartWorker();
  void Join(SimulatedWorker& worker, bool resumed);
  // The process ends; another takes its place after a while. told: its stream ends with it.
  void End(SimulatedWorker& worker, bool told);
  // It does nothing more, but for its heartbeats, until its process ends.
  void Hang(SimulatedWorker& worker, int64_t until_ns);
  // The process goes on as a new incarnation, with nothing of what it held.
  void NewLife(SimulatedWorker& worker, const std::string& why);
  void FromWorker(SimulatedWorker& worker, Event event) { network_.FromWorker(worker, std::move(event)); }
  const SimulatedState* FindCheckpoint(const std::string& directory) const;

  // ---- content: a function of content_seed, parameters, window and unit alone ----
  UnitReport UnitOf(uint64_t digest, int64_t window, int64_t unit, const std::vector<int>& exponents) const;
  uint64_t GradientOf(uint64_t digest, int64_t window, int64_t unit, const std::vector<int>& exponents) const;
  EvaluationReport EvaluationOf(uint64_t digest, int64_t unit) const;
  // Changes what a faulty device makes of a unit, now and then.
  void MaybeLie(const SimulatedWorker& worker, UnitReport& report, uint64_t& gradient);

 private:
  struct Timed {
    int64_t time_ns;
    uint64_t sequence;
    std::function<void()> what;
    friend bool operator<(const Timed& a, const Timed& b) {
      return std::pair(a.time_ns, a.sequence) > std::pair(b.time_ns, b.sequence);
    }
  };
  struct Checkpoint {
    std::string directory;
    SimulatedState state;
    int64_t steps = 0;
  };

  void Thaw(int64_t time_ns, Incarnation worker);
  void StartCore(const StartPoint& start);
  void RestartCoordinator();
  // How many effects are carried out before the coordinator dies; nothing: it lives. -1: not even the transaction.
  void KillOne();  // as the configuration says
  std::optional<int64_t> DrawCrash(int64_t number, size_t effects);
  void Carry(const Effect& effect);
  void MeasureMakespan(const WindowRecord& record);
  void StartProcess(int64_t slot);
  void Heartbeat(Incarnation worker);
  void HeartbeatOfHung(Incarnation worker);
  void Tick();
  void FinishCheckpointFiles();  // of the first that waits
  bool IsGood(const FinishCheckpoint& finish) const;
  std::string StoreCheckpoint(const FinishCheckpoint& finish);
  void EndLife(SimulatedWorker& worker, bool told, double away_s);
  uint64_t DrawOf(int64_t window, int64_t unit) const;
  bool Done() const;

  const SimulationConfig config_;
  SimulationResult result_;
  int64_t now_ns_ = 0;
  uint64_t sequence_ = 0;
  uint64_t random_ = 0;
  std::priority_queue<Timed> queue_;
  int64_t quiet_from_ns_ = 0;

  std::unique_ptr<Core> core_;  // null while it is down
  SimulatedJournal journal_;
  std::vector<Checkpoint> checkpoints_;      // on disk, verified; the newest last
  std::vector<FinishCheckpoint> finishing_;  // being verified
  int64_t term_ = 0;
  bool paused_ = false;
  bool crash_wanted_ = false;

  std::map<Incarnation, std::unique_ptr<SimulatedWorker>> workers_;
  std::set<Incarnation> living_;
  std::set<std::pair<int64_t, int64_t>> lied_about_;  // windows and units
  int64_t slots_ = 0;  // processes that were started, whatever their lives
  SimulatedNetwork network_{*this};
  SimulatedCollectives collectives_{*this};
  Faults faults_{*this};
  Invariants invariants_{*this};
};

// The digests of an undisturbed run on one worker.
std::vector<std::string> ReferenceDigests(const SimulationConfig& config);

}  // namespace accrue::core
