// This worker's share of one window: what the Plans gave it, and how far it is. A plain value.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "accrue/v1/worker.pb.h"

namespace accrue {

struct WindowShare {
  v1::Key key;  // of the newest message about it
  v1::StepScalars scalars;
  std::vector<int> exponents;          // of the attempt; empty: those of the state
  std::deque<int64_t> units;           // not yet computed
  std::deque<int64_t> evaluation_units;  // not yet evaluated; an attempt's end does not touch them
  bool evaluation_only = false;
  bool begun = false;     // the accumulator is this attempt's
  bool computed = false;  // WindowComputed is sent and no unit was given since
  bool is_void = false;   // a new attempt has begun; nothing is done before its Plan
  bool failed = false;    // its reduce failed with some buckets final: the next attempt is awaited

  int64_t valid_tokens = 0;              // of the units in the accumulator
  std::vector<uint64_t> unit_checksums;  // their sum, per bucket
  std::vector<uint64_t> own_checksums;   // of the accumulator, when it was last computed
  v1::PhaseTimes phases;
  int64_t computed_at_ns = 0;

  // What is in the accumulator is forgotten, and so are the units that were given.
  void StartOver(const v1::Key& new_key) {
    key = new_key;
    units.clear();
    exponents.clear();
    begun = computed = failed = false;
    is_void = true;
    valid_tokens = 0;
    unit_checksums.clear();
    own_checksums.clear();
  }

  void Take(const v1::Plan& plan) {
    key = plan.key();
    scalars = plan.scalars();
    evaluation_only = plan.evaluation_only();
    if (plan.exponents_size() > 0) exponents.assign(plan.exponents().begin(), plan.exponents().end());
    if (plan.units_size() > 0) computed = false;
    Append(plan.units(), units);
    Append(plan.evaluation_units(), evaluation_units);
    is_void = false;
  }

  bool HasWork() const {
    return !is_void && !failed && (!units.empty() || !evaluation_units.empty() || (!computed && !evaluation_only));
  }

 private:
  template <typename Ranges>
  static void Append(const Ranges& ranges, std::deque<int64_t>& list) {
    for (const v1::UnitRange& range : ranges) {
      for (int64_t i = 0; i < range.count(); ++i) list.push_back(range.first() + i);
    }
  }
};

}  // namespace accrue
