// A worker without a model. Its gradients are names of units: an open bucket is the list of units added to it, a final
// one the sum that a reduce gave it, a digest is a hash of the whole history of what was reduced. So a unit lost,
// counted twice or computed from other parameters ends in another digest, for good.
//
// Follows docs/life_of_a_window.md as worker/core does. Single-threaded, driven by the Simulator.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/core/effects.h"
#include "coordinator/core/events.h"
#include "tests/sim/simulated_collective.h"

namespace accrue::core {

class Simulator;

// What a worker's memory, or a checkpoint, holds.
struct SimulatedState {
  int64_t window = 0;
  uint64_t digest = 0;
  std::vector<int> exponents;
  std::optional<LossScale> loss_scale;

  // What a unit's gradient depends on beside the parameters.
  std::vector<int> Scales() const {
    std::vector<int> scales = exponents;
    if (loss_scale) scales.push_back(loss_scale->exponent);
    return scales;
  }
};

class SimulatedWorker {
 public:
  SimulatedWorker(Simulator& simulator, Incarnation incarnation, int64_t slot, double unit_ns)
      : simulator_(simulator), incarnation_(incarnation), slot_(slot), unit_ns_(unit_ns) {}

  Incarnation incarnation() const { return incarnation_; }
  int64_t slot() const { return slot_; }  // of the process, whatever its lives
  double unit_ns() const { return unit_ns_; }
  void SlowDown(double factor) { slowdown_ = factor; }  // 1: as fast as it was
  const SimulatedState& state() const { return state_; }
  bool idle() const { return key_.job.empty(); }

  // What it is at, for a run that got stuck.
  std::string Doing() const;

  void Receive(const WorkerMessage& message);
  // Another coordinator goes on with this incarnation.
  void Resumed(Term term);
  // Of collectives; the simulator calls them back.
  void BucketDone(const std::string& collective, int64_t bucket, const SimulatedSum& sum);
  void CollectiveFailed(const std::string& collective, const std::string& reason,
                        std::vector<Incarnation> unreachable = {});
  void SyncDone(const std::string& collective, const SimulatedState& state);
  // What every open bucket holds; a unit computed after some were final is in these alone, as it is in here.
  const SimulatedUnits& accumulator() const { return accumulator_; }
  const std::vector<SimulatedSum>& final_sums() const { return final_sums_; }

  // A bit of its memory changes: of the parameters, or what the step makes of them.
  void Flip();

  bool alive = true;     // false: the process has ended
  bool flipped = false;  // its state is not what it should be
  bool faulty = false;   // its units come out wrong at times
  bool leaving = false;
  int64_t frozen_until_ns = 0;               // INT64_MAX: it hangs
  std::vector<std::function<void()>> held_back;  // what fell into that time
  // The network's: the stream, and when the last message that is on the way arrives.
  bool connected = false;
  size_t stream = 0;
  int64_t last_to_ns = 0, last_from_ns = 0;
  int64_t cut_to_until_ns = 0, cut_from_until_ns = 0;

 private:
  struct Share {
    Key key;
    std::deque<int64_t> units;
    std::deque<int64_t> evaluation;
    std::deque<int64_t> audits;
    std::vector<int> exponents;
    std::optional<LossScale> loss_scale;
    StepScalars scalars;
    bool told_computed = false;
    bool awaits_plan = false;  // of the present term
  };
  enum class Busy { kNo, kLoading, kProbing, kComputing, kAuditing, kEvaluating, kReducing, kStepping, kSyncing };

  // Does the next thing there is, if free.
  void Next();
  void TakeScales(const Share& share);
  void ComputeNext(Share& share);
  void EvaluateNext(Share& share);
  void AuditNext(Share& share);
  void TellComputed(Share& share);
  void BeginReduce();
  void BeginStep();
  void ClearAccumulator();
  void BeginSync();
  void OnCopyState(const CopyState& order);
  void OnPrepare(const Prepare& order);
  // As worker/core/reducer.h: the communicator that is there, one formed ahead, or a new one.
  void TakeCommunicator();
  void Follow();
  void BreakCopy(const std::string& name);
  void WriteCheckpoint(const Key& key, const CheckpointOrder& order);
  void Forget();
  void SendHolding();
  Share* Current();
  // Runs `done` after the time, unless the worker ended or forgot what it was doing.
  template <typename Done>
  void After(int64_t delay_ns, Busy what, Done done);
  void OnAssign(const AssignJob& assign);
  void OnPlan(const Plan& plan);
  void OnRecall(const Recall& recall);

  Simulator& simulator_;
  const Incarnation incarnation_;
  const int64_t slot_;
  const double unit_ns_;
  double slowdown_ = 1;
  Key key_;  // of the job that it is in
  bool has_state_ = false;
  SimulatedState state_;
  // Of the window after state_.
  SimulatedUnits accumulator_;
  std::vector<SimulatedSum> final_sums_;  // of the leading buckets
  std::map<int64_t, UnitReport> reports_;  // of the units in the accumulator
  WindowComputed computed_;                // what was said last
  std::vector<EvaluationReport> evaluations_;  // of state_
  std::optional<WorkerHolds::UncommittedStep> step_;  // into state_, if its Commit has not come
  bool owes_holding_ = false;
  std::map<int64_t, Share> shares_;
  std::optional<Seal> seal_;
  std::optional<StateSync> sync_;
  std::optional<CopyState> copy_;  // that it receives
  std::deque<CheckpointNow> orders_;
  std::optional<ProbeOrder> probe_;
  std::string collective_;               // that it takes part in
  std::string communicator_, prepared_;  // of the last reduce; formed ahead, or being formed
  bool is_formed_ = false;               // prepared_
  Busy busy_ = Busy::kNo;
  uint64_t generation_ = 0;  // raised when what is on the way is void
};

}  // namespace accrue::core
