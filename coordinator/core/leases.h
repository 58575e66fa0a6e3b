// Who holds which unit of a window (or of an evaluation), and which are done.
//
// Invariants:
//  1. A unit is free, or leased to one worker. A done unit is leased, unless its holder's work outlived it
//     (RevokeUnfinished, CountFreeAsDone).
//  2. All counts are what counting the units would give.
//  3. Who is not in changed_ has the share that it had when TakeChanged was called last.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "coordinator/core/types.h"

namespace accrue::core {

class Leases {
 public:
  struct Share {
    int64_t leased = 0;
    int64_t done = 0;
    bool changed = false;  // is in changed_
  };

  explicit Leases(int64_t units) : units_(static_cast<size_t>(units)) { free_ = units; }

  int64_t size() const { return static_cast<int64_t>(units_.size()); }
  int64_t free() const { return free_; }
  int64_t done() const { return done_; }
  int64_t orphans() const { return orphans_; }  // done by workers that are gone
  bool complete() const { return done_ == size(); }

  // Leases the `count` lowest free units; returns them as ranges. Requires that many.
  std::vector<UnitRange> Grant(Incarnation worker, int64_t count);

  // Leases this one. Requires that it is free.
  void GrantUnit(Incarnation worker, int64_t unit);
  // What is free was done by workers that are gone.
  void CountFreeAsDone();

  bool Holds(Incarnation worker, int64_t unit) const {
    return unit >= 0 && unit < size() && units_[static_cast<size_t>(unit)].holder == worker;
  }
  // 0: free.
  Incarnation HolderOf(int64_t unit) const { return units_[static_cast<size_t>(unit)].holder; }
  bool Done(int64_t unit) const { return units_[static_cast<size_t>(unit)].done; }
  // Requires a leased unit that is not done.
  void MarkDone(int64_t unit);

  // Requires a unit that the worker holds and has not done: it is free.
  void Return(Incarnation worker, int64_t unit);

  // The worker's units are free, done or not.
  void Revoke(Incarnation worker);
  // What it has done stays done, the rest is free.
  void RevokeUnfinished(Incarnation worker);
  // What RevokeUnfinished left done is free.
  void FreeOrphans();
  // Nothing is done; leases stay. Requires that there are no orphans.
  void ForgetDone();

  // Counts everything anew and ends the program if an invariant is broken. O(units).
  void Check() const;

  Share ShareOf(Incarnation worker) const;
  // Workers whose shares have changed, or that were touched, since this was asked last; those that are gone, too.
  std::vector<Incarnation> TakeChanged();
  void Touch(Incarnation worker) { Change(worker); }
  std::vector<UnitRange> RangesOf(Incarnation worker) const;

 private:
  Share& Change(Incarnation worker);

  struct Unit {
    Incarnation holder;  // 0: free, or done by one that is gone
    bool done = false;
  };

  std::vector<Unit> units_;
  absl::flat_hash_map<Incarnation, Share> shares_;
  std::vector<Incarnation> changed_;
  int64_t free_ = 0;
  int64_t done_ = 0;
  int64_t orphans_ = 0;
  int64_t first_free_ = 0;  // no unit before it is free
};

// Appends a unit to ascending ranges, joining it to the last where they touch.
void AppendUnit(int64_t unit, std::vector<UnitRange>& ranges);

}  // namespace accrue::core
