// Collectives among simulated workers: a reduce, bucket by bucket, or a copy of the state.
//
// A reduce that breaks stops at a bucket drawn at random: up to there every member may still get the sums, each at its
// own time, so that members end with different numbers of final buckets.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/core/effects.h"

namespace accrue::core {

class SimulatedWorker;
class Simulator;

inline constexpr int64_t kSimulatedBuckets = 4;

// Units and the hashes of their gradients.
using SimulatedUnits = std::vector<std::pair<int64_t, uint64_t>>;

// What the gradient with this hash is in one bucket.
uint64_t SimulatedGradient(uint64_t gradient, int64_t bucket);

// What a bucket holds over all members.
struct SimulatedSum {
  std::shared_ptr<const SimulatedUnits> units;  // ascending
  uint64_t checksum = 0;
  uint64_t hash = 0;
};

class SimulatedCollectives {
 public:
  explicit SimulatedCollectives(Simulator& simulator) : simulator_(simulator) {}

  void JoinSync(const std::string& name, SimulatedWorker& worker, const StateSync& sync);
  void JoinReduce(const std::string& name, SimulatedWorker& worker, const Seal& seal);
  // Whatever is on the way of this communicator stops; nobody is told.
  void GiveUp(const std::string& communicator);
  // Some of those who wait for the dead one see it soon, the others only when told to abort.
  void Break(Incarnation dead);
  // Until then nothing passes between these workers and the others.
  void Split(std::set<Incarnation> side, int64_t until_ns);
  bool Apart(Incarnation a, Incarnation b) const;
  // One that is on the way fails for one of those in it.
  void BreakOne();

 private:
  struct Collective {
    std::vector<Incarnation> members;
    std::optional<Incarnation> source;   // of a sync
    std::vector<int64_t> final_buckets;  // of a reduce, as the seal says
    std::set<Incarnation> arrived, finished;
    std::vector<SimulatedSum> sums;  // by bucket, once all have arrived
    int64_t most_done = 0;           // buckets that some member has
    bool broken = false;
    bool split = false;  // that is why
    int64_t limit = kSimulatedBuckets;  // buckets that members get before it is stuck
  };

  void Join(const std::string& name, SimulatedWorker& worker);
  void Stop(Collective& collective);
  void CompleteSync(const std::string& name);
  void BeginReduce(const std::string& name);
  SimulatedSum SumOf(const Collective& collective, int64_t bucket, const SimulatedUnits& open) const;
  void Fail(const std::string& name, Incarnation worker, int64_t delay_ns, const std::string& reason,
            std::vector<Incarnation> unreachable = {});
  void FailBySplit(const std::string& name, Incarnation worker);
  void CheckCover(const Collective& collective, const SimulatedUnits& open) const;

  Simulator& simulator_;
  std::map<std::string, Collective> collectives_;
  std::set<Incarnation> side_;
  int64_t split_until_ns_ = 0;
};

}  // namespace accrue::core
