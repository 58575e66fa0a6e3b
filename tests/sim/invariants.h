// What must hold of everything that a coordinator makes durable and sends, in any order of faults; checked with every
// event. A breach is the simulation's failure.
//
//  1. Windows commit in order, none is skipped or recorded twice, each with the digest of the undisturbed run.
//  2. Epochs and attempts rise, and are durable before anybody hears of them. Messages are of the leader's term.
//  3. A window is sealed only after the one before was committed; a communicator's name stands for one list of members.
//  4. What an incarnation says that is gone has no effect.
//  5. Where nothing disturbs it any more, a job makes progress within a bound.
//  6. While somebody holds the state, the job does not go back (where the configuration promises it).
// That each unit of a window is reduced exactly once is checked where it is reduced (simulated_collective.cc); that no
// queue grows beyond its limit, where it is filled (network.cc).
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/core/effects.h"
#include "coordinator/core/events.h"

namespace accrue::core {

class Simulator;

class Invariants {
 public:
  explicit Invariants(Simulator& simulator);

  // A core begins with this term; what it publishes is of this timeline at least.
  void OnCoordinatorStarted(Timeline timeline);
  // The transaction of one event is on disk.
  void OnDurable(const std::vector<Effect>& effects);
  void OnSend(const core::Send& send);
  // With what the core made of it.
  void OnApplied(const Event& event, const std::vector<Effect>& effects);
  void OnTick();

 private:
  void OnEpoch(const PersistEpoch& epoch);
  void OnCommit(const WindowRecord& record);
  void OnPosition(const PersistPosition& position);
  void CheckThatNobodyHolds();

  Simulator& simulator_;
  int64_t timeline_ = 0, epoch_ = 0;
  std::map<std::pair<int64_t, int64_t>, int64_t> attempt_;  // by (timeline, window)
  int64_t recorded_ = 0;                // windows committed durably
  int64_t held_ = 0;                    // windows applied to the members' state
  int64_t progress_ns_ = 0;             // when that last rose
  std::vector<Incarnation> holders_;    // members of the last epoch that had any
  std::set<std::pair<int64_t, int64_t>> commit_entries_;  // of the ledger: (timeline, window)
  std::set<int64_t> evaluated_;                           // windows applied
  std::map<std::string, std::vector<Incarnation>> communicators_;
  std::set<Incarnation> known_;  // to the core of this term
};

}  // namespace accrue::core
