#include "tests/sim/invariants.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/sim/simulated_worker.h"
#include "tests/sim/simulator.h"

namespace accrue::core {
namespace {

// Above the sum of what may be waited for: silence, an abort's answers, a state sync, a restart, three times over.
constexpr int64_t kProgressNs = 60'000'000'000;

// Who said it; 0 for what is no worker's word.
Incarnation SenderOf(const Event& event) {
  return std::visit(
      [](const auto& one) {
        if constexpr (requires { one.from; }) return one.from;
        return Incarnation();
      },
      event);
}

}  // namespace

Invariants::Invariants(Simulator& simulator)
    : simulator_(simulator),
      timeline_(simulator.config().start.timeline.value()),
      recorded_(simulator.config().start.window.value()) {}

void Invariants::OnCoordinatorStarted(Timeline timeline) {
  known_.clear();
  if (timeline.value() <= timeline_) return;
  timeline_ = timeline.value();
  epoch_ = 0;
}

void Invariants::OnDurable(const std::vector<Effect>& effects) {
  for (const Effect& effect : effects) {
    if (const auto* epoch = std::get_if<PersistEpoch>(&effect)) {
      OnEpoch(*epoch);
    } else if (const auto* attempt = std::get_if<PersistAttempt>(&effect)) {
      int64_t& highest = attempt_[{timeline_, attempt->window.value()}];
      if (attempt->attempt.value() <= highest) simulator_.Violation("an attempt is not raised");
      highest = attempt->attempt.value();
    } else if (const auto* commit = std::get_if<PersistCommit>(&effect)) {
      OnCommit(commit->record);
    } else if (const auto* position = std::get_if<PersistPosition>(&effect)) {
      OnPosition(*position);
    } else if (const auto* evaluation = std::get_if<PersistEvaluation>(&effect)) {
      if (!evaluated_.insert(evaluation->window.value()).second) simulator_.Violation("an evaluation is recorded twice");
    } else if (const auto* ledger = std::get_if<PersistLedger>(&effect)) {
      const LedgerEntry& entry = ledger->entry;
      simulator_.Cover(absl::StrCat("ledger: ", entry.kind));
      if (entry.kind != "commit") continue;
      if (!commit_entries_.emplace(entry.timeline.value(), entry.window.value()).second) {
        simulator_.Violation(absl::StrCat("window ", entry.window.value(), " is in the ledger twice"));
      }
    }
  }
}

void Invariants::OnEpoch(const PersistEpoch& epoch) {
  if (epoch.timeline.value() > timeline_) {
    if (simulator_.config().holders_suffice) CheckThatNobodyHolds();
    timeline_ = epoch.timeline.value();
  }
  if (epoch.epoch.value() <= epoch_) simulator_.Violation("an epoch is not raised");
  epoch_ = epoch.epoch.value();
  if (!epoch.members.empty()) holders_ = epoch.members;
}

void Invariants::CheckThatNobodyHolds() {
  for (Incarnation holder : holders_) {
    if (simulator_.Find(holder) == nullptr) continue;
    simulator_.Violation(absl::StrCat("the job goes back although worker ", holder.value(), " holds the state"));
  }
}

void Invariants::OnCommit(const WindowRecord& record) {
  const int64_t window = record.window.value();
  if (window != recorded_) {
    simulator_.Violation(absl::StrCat("window ", window, " is recorded, expected ", recorded_));
  }
  ++recorded_;
  const std::vector<std::string>& expected = simulator_.config().expected;
  const int64_t index = window - simulator_.config().start.window.value();
  if (index >= 0 && index < static_cast<int64_t>(expected.size()) &&
      expected[static_cast<size_t>(index)] != record.digest) {
    simulator_.Violation(absl::StrCat("window ", window, " has digest ", record.digest, ", on one worker ",
                                      expected[static_cast<size_t>(index)]));
  }
}

void Invariants::OnPosition(const PersistPosition& position) {
  const int64_t window = position.window.value();
  if (window > recorded_) simulator_.Violation("members hold a state that was never recorded");
  held_ = window;
  progress_ns_ = simulator_.now_ns();
}

void Invariants::OnSend(const core::Send& send) {
  const Key key = std::visit([](const auto& message) { return message.key; }, send.message);
  if (key.term.value() != simulator_.term()) simulator_.Violation("a message is not of the leader's term");
  if (key.timeline.value() > timeline_) simulator_.Violation("a timeline is published before it is durable");
  if (key.epoch.value() > epoch_) simulator_.Violation("an epoch is published before it is durable");
  const auto attempt = attempt_.find({key.timeline.value(), key.window.value()});
  if (key.attempt.value() > (attempt == attempt_.end() ? 0 : attempt->second)) {
    simulator_.Violation("an attempt is published before it is durable");
  }
  if (const auto* commit = std::get_if<Commit>(&send.message)) {
    if (commit->key.window.value() >= recorded_) simulator_.Violation("a commit is published before it is durable");
  }
  const auto* seal = std::get_if<Seal>(&send.message);
  if (seal == nullptr) return;
  if (key.window.value() != held_) simulator_.Violation("a window is sealed before the one before it is committed");
  const auto [known, fresh] = communicators_.emplace(seal->communicator, seal->members);
  if (!fresh && known->second != seal->members) simulator_.Violation("a communicator's name is used for other members");
}

void Invariants::OnApplied(const Event& event, const std::vector<Effect>& effects) {
  const auto* joined = std::get_if<WorkerJoined>(&event);
  if (joined != nullptr) known_.insert(joined->incarnation);
  const Incarnation sender = SenderOf(event);
  if (sender != Incarnation() && known_.count(sender) == 0 && !effects.empty()) {
    simulator_.Violation(absl::StrCat("what worker ", sender.value(), " said after its end had an effect"));
  }
  if (std::holds_alternative<WorkerGone>(event)) known_.erase(sender);
  for (const Effect& effect : effects) {
    if (const auto* expel = std::get_if<Expel>(&effect)) known_.erase(expel->worker);
  }
}

void Invariants::OnTick() {
  const SimulationConfig& config = simulator_.config();
  const double alone_ns = config.unit_ns * config.spread * static_cast<double>(config.job.units_per_window);
  const int64_t since_ns = std::max(progress_ns_, simulator_.quiet_from_ns());
  if (simulator_.now_ns() - since_ns <= kProgressNs + static_cast<int64_t>(3 * alone_ns)) return;
  simulator_.Violation(absl::StrCat("no progress since window ", held_, ", ", simulator_.Stuck()));
}

}  // namespace accrue::core
