// Units of a window that more than one worker computes, and what each said of them.
//
// Plain bookkeeping; audit.cc decides. A worker's word on a unit outlives the worker, unless it was
// quarantined: a unit's report is a function of the attempt alone. Invariants:
//  1. A unit that is not open is settled: its holder's report is that of another worker too, or nobody could
//  check it.
//  2. What is to be looked at again is open.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/core/types.h"

namespace accrue::core {

// Whether a job audits a unit: docs/numerics.md, section 11. A pure function, so that nothing is to be kept.
bool IsAudited(uint64_t seed, double fraction, int64_t window, int64_t unit);

struct Audit {
  struct Word {
    UnitReport report;
    bool repeated = false;                    // it was computed again, and came out the same
    std::optional<UnitReport> contradiction;  // it was computed again, and came out as this
  };
  // Workers that said the same, and what.
  struct Camp {
    const UnitReport* report = nullptr;
    std::vector<Incarnation> workers;
  };

  std::string cause;                  // empty: the hash chose it; else why its report has to be checked
  std::map<Incarnation, Word> words;  // of its holder too
  std::set<Incarnation> asked;        // who is to compute it for its report alone
  bool waived = false;                // there was nobody to check it

  // The largest first; of equal ones that of the earliest worker.
  std::vector<Camp> Camps() const;
};

class Audits {
 public:
  void Add(int64_t unit, const std::string& cause);
  bool Has(int64_t unit) const { return audits_.count(unit) > 0; }
  Audit& At(int64_t unit) { return audits_.at(unit); }
  const std::map<int64_t, Audit>& all() const { return audits_; }

  void Ask(int64_t unit, Incarnation worker) { audits_.at(unit).asked.insert(worker); }
  bool Asked(int64_t unit, Incarnation worker) const;
  // A report by a worker that was asked, or holds the unit.
  void Hear(Incarnation worker, const UnitReport& report);

  // It computes nothing any more.
  void Gone(Incarnation worker);
  // It is not to be trusted: its words do not count, and what they settled is open again.
  void Distrust(Incarnation worker);
  // The attempt is void. Which units the hash chose stays.
  void StartOver();

  // Something has changed that bears on the unit, or on every unit.
  void Review(int64_t unit);
  void ReviewRange(const UnitRange& range);
  void ReviewAll();
  // The units to be looked at; they are asked for once.
  std::set<int64_t> TakeReviews() { return std::exchange(review_, {}); }
  void Settle(int64_t unit) { open_.erase(unit); }
  bool settled() const { return open_.empty(); }

 private:
  std::map<int64_t, Audit> audits_;
  std::set<int64_t> open_;
  std::set<int64_t> review_;
};

}  // namespace accrue::core
