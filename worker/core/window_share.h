// This worker's share of one window: what the Plans gave it, and how far it is. A plain value.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "accrue/v1/worker.pb.h"
#include "common/loss_scale.h"

namespace accrue {

inline LossScale LossScaleFromProto(const v1::LossScale& scale) { return {scale.exponent(), scale.good_windows()}; }

struct WindowShare {
  v1::Key key;  // of the newest message about it
  v1::StepScalars scalars;
  std::vector<int> exponents;          // of the attempt; empty: those of the state
  std::optional<LossScale> loss_scale;  // of the window; nothing: the state's, if it has one
  std::deque<int64_t> units;           // not yet computed
  std::deque<int64_t> audit_units;     // not yet computed for their reports alone
  std::deque<int64_t> evaluation_units;  // not yet evaluated; an attempt's end does not touch them
  bool evaluation_only = false;
  bool begun = false;     // the accumulator is this attempt's
  bool computed = false;  // WindowComputed is sent and no unit was given since
  bool is_void = false;   // a new attempt has begun, or a new term; nothing is done before its Plan

  int64_t valid_tokens = 0;                // of the units in the accumulator
  std::vector<uint64_t> unit_checksums;    // per open bucket: the sum of its units'
  std::vector<uint64_t> bucket_checksums;  // of the accumulator's buckets: open ones when it was last computed, final
                                           // ones as they were proved
  double local_norm = 0;                   // of this worker's units alone
  v1::PhaseTimes phases;
  int64_t computed_at_ns = 0;

  // What is in the accumulator is forgotten, and so are the units that were given.
  void StartOver(const v1::Key& new_key) {
    key = new_key;
    units.clear();
    audit_units.clear();
    exponents.clear();
    begun = computed = false;
    is_void = true;
    valid_tokens = 0;
    unit_checksums.clear();
    bucket_checksums.clear();
    local_norm = 0;
  }

  // Of a coordinator of this term. What is in the accumulator stays; what was given and not begun is forgotten.
  void AwaitPlan(int64_t term) {
    key.set_term(term);
    units.clear();
    audit_units.clear();
    evaluation_units.clear();
    computed = false;
    is_void = true;
  }

  void Take(const v1::Plan& plan) {
    key = plan.key();
    scalars = plan.scalars();
    evaluation_only = plan.evaluation_only();
    if (plan.exponents_size() > 0) exponents.assign(plan.exponents().begin(), plan.exponents().end());
    if (plan.has_loss_scale()) loss_scale = LossScaleFromProto(plan.loss_scale());
    if (plan.units_size() > 0) computed = false;
    Append(plan.units(), units);
    Append(plan.evaluation_units(), evaluation_units);
    Append(plan.audit_units(), audit_units);
    is_void = false;
  }

  // Takes back up to `count` units that are not begun, the last ones first.
  std::vector<int64_t> GiveBack(int64_t count) {
    std::vector<int64_t> returned;
    for (; count > 0 && !units.empty(); --count) {
      returned.push_back(units.back());
      units.pop_back();
    }
    return returned;
  }

  bool HasWork() const {
    return !is_void &&
           (!units.empty() || !evaluation_units.empty() || (!computed && !evaluation_only) || !audit_units.empty());
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
