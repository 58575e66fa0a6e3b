// The journal of a simulated coordinator: what of its effects survives it. As coordinator/journal, in memory.
//
// Invariants:
//  1. What was written and not synced is lost with the coordinator, whole: a transaction that a crash tore is none.
//  2. Restart gives what the server gives its core after a restart (coordinator/server/coordinator_jobs.cc).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/core/effects.h"

namespace accrue::core {

class SimulatedJournal {
 public:
  explicit SimulatedJournal(Timeline timeline) : timeline_(timeline) {}

  // One transaction. False if there is nothing to be made durable among the effects.
  bool Write(const std::vector<Effect>& effects);
  void Sync();
  // Returns whether a transaction was lost.
  bool Crash();

  // Who held what, as Journal::Live.
  std::optional<LiveState> Live() const;
  // The coordinator's next start; `checkpoint` is the newest one found on disk, or the job's beginning.
  StartPoint Restart(StartPoint checkpoint);

  // ---- what is durable ----
  Timeline timeline() const { return timeline_; }
  Epoch epoch() const { return epoch_; }  // of the newest timeline
  Attempt AttemptOf(int64_t window) const;
  const std::vector<Incarnation>& members() const { return members_; }
  const std::vector<WindowRecord>& commits() const { return commits_; }
  const std::map<int64_t, double>& evaluations() const { return evaluations_; }
  JobState state() const { return state_; }
  const std::string& reason() const { return reason_; }

 private:
  void Fold(const Effect& effect);

  std::vector<Effect> pending_;
  Timeline timeline_;
  Epoch epoch_;
  std::vector<Incarnation> members_;
  std::optional<Layout> layout_;
  std::optional<PersistPosition> position_;
  Attempt attempt_;  // of the window at position_
  std::map<int64_t, Attempt> attempts_;  // by window, of the newest timeline
  std::vector<WindowRecord> commits_;
  std::map<int64_t, double> evaluations_;
  JobState state_ = JobState::kWaiting;
  std::string reason_;
};

}  // namespace accrue::core
