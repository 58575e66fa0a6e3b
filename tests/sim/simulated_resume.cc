// A simulated worker that outlives its coordinator: what it tells the next one. As worker/core/runner_reconnect.cc.
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/sim/simulator.h"

namespace accrue::core {
namespace {

// A reduce that has begun is finished; but members that never heard of its seal will not come. The deadline of a meeting
// is longer than anybody is awaited: the coordinator has to call its members off.
constexpr int64_t kMeetingDeadlineNs = 20'000'000'000;

}  // namespace

// Nothing is begun before the coordinator was told what is held, and has planned.
void SimulatedWorker::Resumed(Term term) {
  key_.term = term;
  owes_holding_ = true;
  shares_.erase(shares_.upper_bound(state_.window), shares_.end());
  if (Share* share = Current()) {
    share->units.clear();
    share->evaluation.clear();
    share->audits.clear();
    share->told_computed = share->awaits_plan = true;
  }
  probe_.reset();
  orders_.clear();
  if (busy_ == Busy::kNo) seal_.reset();
  if (busy_ == Busy::kSyncing) {
    ++generation_;
    busy_ = Busy::kNo;
    collective_.clear();
  }
  sync_.reset();
  if (busy_ == Busy::kReducing) {
    simulator_.AtWorker(simulator_.now_ns() + kMeetingDeadlineNs, incarnation_, [this, collective = collective_] {
      if (busy_ == Busy::kReducing) CollectiveFailed(collective, "its coordinator is gone");
    });
  }
  Next();
}

void SimulatedWorker::SendHolding() {
  owes_holding_ = false;
  WorkerHolds holds;
  holds.from = incarnation_;
  holds.key = key_;
  holds.key.window = Window(state_.window);
  holds.key.attempt = Attempt();
  if (const Share* share = Current()) {
    holds.key.epoch = share->key.epoch;
    holds.key.attempt = share->key.attempt;
  }
  if (has_state_) holds.digest = absl::StrCat(absl::Hex(state_.digest, absl::kZeroPad16));
  holds.parameter_hash = holds.digest;
  for (const auto& [unit, report] : reports_) holds.reports.push_back(report);
  holds.final_buckets = static_cast<int64_t>(final_sums_.size());
  holds.evaluations = evaluations_;
  holds.step = step_;
  simulator_.Cover(step_ ? "holding with a step" : "holding without a step");
  if (!holds.reports.empty()) simulator_.Cover("holding with units");
  if (holds.final_buckets > 0) simulator_.Cover("holding with final buckets");
  if (!holds.evaluations.empty()) simulator_.Cover("holding with evaluations");
  simulator_.FromWorker(*this, std::move(holds));
}

}  // namespace accrue::core
