#include "coordinator/core/leases.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/check.h"

namespace accrue::core {

void AppendUnit(int64_t unit, std::vector<UnitRange>& ranges) {
  if (!ranges.empty() && ranges.back().first + ranges.back().count == unit) {
    ++ranges.back().count;
  } else {
    ranges.push_back({unit, 1});
  }
}

// A reference until the next call.
Leases::Share& Leases::Change(Incarnation worker) {
  Share& share = shares_[worker];
  if (!share.changed) changed_.push_back(worker);
  share.changed = true;
  return share;
}

std::vector<Incarnation> Leases::TakeChanged() {
  for (Incarnation worker : changed_) {
    const auto share = shares_.find(worker);
    if (share != shares_.end()) share->second.changed = false;
  }
  return std::exchange(changed_, {});
}

std::vector<UnitRange> Leases::Grant(Incarnation worker, int64_t count) {
  ACCRUE_CHECK(count >= 0 && count <= free_ && worker != Incarnation());
  std::vector<UnitRange> ranges;
  if (count == 0) return ranges;
  for (int64_t left = count; left > 0; ++first_free_) {
    Unit& unit = units_[static_cast<size_t>(first_free_)];
    if (unit.holder != Incarnation() || unit.done) continue;
    unit.holder = worker;
    AppendUnit(first_free_, ranges);
    --left;
  }
  free_ -= count;
  Change(worker).leased += count;
  return ranges;
}

void Leases::GrantUnit(Incarnation worker, int64_t unit) {
  Unit& entry = units_[static_cast<size_t>(unit)];
  ACCRUE_CHECK(worker != Incarnation() && entry.holder == Incarnation() && !entry.done);
  entry.holder = worker;
  --free_;
  ++Change(worker).leased;
}

void Leases::CountFreeAsDone() {
  for (Unit& unit : units_) {
    if (unit.holder != Incarnation() || unit.done) continue;
    unit.done = true;
    ++orphans_;
    ++done_;
    --free_;
  }
}

void Leases::MarkDone(int64_t unit) {
  Unit& entry = units_[static_cast<size_t>(unit)];
  ACCRUE_CHECK(entry.holder != Incarnation() && !entry.done);
  entry.done = true;
  ++done_;
  ++Change(entry.holder).done;
}

void Leases::Return(Incarnation worker, int64_t unit) {
  ACCRUE_CHECK(Holds(worker, unit) && !Done(unit));
  units_[static_cast<size_t>(unit)] = Unit();
  --Change(worker).leased;
  ++free_;
  first_free_ = std::min(first_free_, unit);
}

void Leases::Revoke(Incarnation worker) {
  if (shares_.erase(worker) == 0) return;
  for (int64_t i = size() - 1; i >= 0; --i) {
    Unit& unit = units_[static_cast<size_t>(i)];
    if (unit.holder != worker) continue;
    if (unit.done) --done_;
    unit = Unit();
    ++free_;
    if (i < first_free_) first_free_ = i;
  }
}

void Leases::RevokeUnfinished(Incarnation worker) {
  if (shares_.erase(worker) == 0) return;
  for (int64_t i = size() - 1; i >= 0; --i) {
    Unit& unit = units_[static_cast<size_t>(i)];
    if (unit.holder != worker) continue;
    unit.holder = Incarnation();
    if (unit.done) {
      ++orphans_;
      continue;
    }
    ++free_;
    if (i < first_free_) first_free_ = i;
  }
}

void Leases::FreeOrphans() {
  if (orphans_ == 0) return;
  for (int64_t i = size() - 1; i >= 0; --i) {
    Unit& unit = units_[static_cast<size_t>(i)];
    if (unit.holder != Incarnation() || !unit.done) continue;
    unit.done = false;
    if (i < first_free_) first_free_ = i;
  }
  done_ -= orphans_;
  free_ += orphans_;
  orphans_ = 0;
}

void Leases::ForgetDone() {
  ACCRUE_CHECK(orphans_ == 0);
  for (Unit& unit : units_) unit.done = false;
  for (auto& [worker, share] : shares_) Change(worker).done = 0;
  done_ = 0;
}

void Leases::Check() const {
  std::map<Incarnation, Share> shares;
  int64_t free = 0, done = 0, orphans = 0;
  for (int64_t i = 0; i < size(); ++i) {
    const Unit& unit = units_[static_cast<size_t>(i)];
    if (unit.done) ++done;
    if (unit.holder != Incarnation()) {
      ++shares[unit.holder].leased;
      if (unit.done) ++shares[unit.holder].done;
    } else if (unit.done) {
      ++orphans;
    } else {
      ++free;
      ACCRUE_CHECK(i >= first_free_);
    }
  }
  ACCRUE_CHECK(free == free_ && done == done_ && orphans == orphans_);
  for (const auto& [worker, share] : shares) {
    const Share counted = ShareOf(worker);
    ACCRUE_CHECK(share.leased == counted.leased && share.done == counted.done);
  }
}

Leases::Share Leases::ShareOf(Incarnation worker) const {
  const auto found = shares_.find(worker);
  return found == shares_.end() ? Share() : found->second;
}

std::vector<UnitRange> Leases::RangesOf(Incarnation worker) const {
  std::vector<UnitRange> ranges;
  for (int64_t i = 0; i < size(); ++i) {
    if (units_[static_cast<size_t>(i)].holder == worker) AppendUnit(i, ranges);
  }
  return ranges;
}

}  // namespace accrue::core
