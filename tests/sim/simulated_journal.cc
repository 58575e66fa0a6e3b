#include "tests/sim/simulated_journal.h"

#include <algorithm>
#include <utility>

namespace accrue::core {
namespace {

bool IsDurable(const Effect& effect) {
  return !(std::holds_alternative<Send>(effect) || std::holds_alternative<Expel>(effect) ||
           std::holds_alternative<FinishCheckpoint>(effect) || std::holds_alternative<GiveUpCommunicator>(effect));
}

}  // namespace

bool SimulatedJournal::Write(const std::vector<Effect>& effects) {
  const size_t before = pending_.size();
  std::copy_if(effects.begin(), effects.end(), std::back_inserter(pending_), IsDurable);
  return pending_.size() > before;
}

void SimulatedJournal::Sync() {
  for (const Effect& effect : pending_) Fold(effect);
  pending_.clear();
}

bool SimulatedJournal::Crash() {
  const bool lost = !pending_.empty();
  pending_.clear();
  return lost;
}

void SimulatedJournal::Fold(const Effect& effect) {
  if (const auto* epoch = std::get_if<PersistEpoch>(&effect)) {
    if (epoch->timeline > timeline_) attempts_.clear();
    timeline_ = std::max(timeline_, epoch->timeline);
    epoch_ = epoch->epoch;
    members_ = epoch->members;
  } else if (const auto* layout = std::get_if<PersistLayout>(&effect)) {
    layout_ = layout->layout;
  } else if (const auto* position = std::get_if<PersistPosition>(&effect)) {
    position_ = *position;
    attempt_ = Attempt();
  } else if (const auto* exponents = std::get_if<PersistExponents>(&effect)) {
    if (position_) position_->exponents = exponents->exponents;
  } else if (const auto* attempt = std::get_if<PersistAttempt>(&effect)) {
    attempts_[attempt->window.value()] = attempt->attempt;
    if (!position_ || position_->window != attempt->window) return;
    attempt_ = attempt->attempt;
    position_->exponents = attempt->exponents;
  } else if (const auto* commit = std::get_if<PersistCommit>(&effect)) {
    commits_.push_back(commit->record);
  } else if (const auto* evaluation = std::get_if<PersistEvaluation>(&effect)) {
    evaluations_[evaluation->window.value()] = evaluation->loss;
  } else if (const auto* state = std::get_if<PersistState>(&effect)) {
    state_ = state->state;
    reason_ = state->reason;
  }
}

Attempt SimulatedJournal::AttemptOf(int64_t window) const {
  const auto found = attempts_.find(window);
  return found == attempts_.end() ? Attempt() : found->second;
}

std::optional<LiveState> SimulatedJournal::Live() const {
  if (members_.empty() || !layout_ || !position_ || position_->timeline != timeline_) return std::nullopt;
  LiveState live;
  live.layout = *layout_;
  live.timeline = timeline_;
  live.window = position_->window;
  live.steps = position_->steps;
  live.digest = position_->digest;
  live.parameter_hash = position_->parameter_hash;
  live.epoch = epoch_;
  live.attempt = attempt_;
  live.exponents = position_->exponents;
  live.loss_scale = position_->loss_scale;
  live.members = members_;
  return live;
}

StartPoint SimulatedJournal::Restart(StartPoint start) {
  start.timeline = std::max(start.timeline, timeline_.Next());
  start.live = Live();
  if (start.live && start.live->window < start.window) start.live.reset();
  int64_t next = start.window.value();
  for (const WindowRecord& record : commits_) {
    const int64_t window = record.window.value();
    if (window < start.window.value()) continue;
    start.recorded[window] = record.digest;
    next = std::max(next, window + 1);
  }
  for (const auto& [window, loss] : evaluations_) {
    if (window >= start.window.value() && window <= next + 1) start.evaluated[window] = loss;
  }
  if (start.live) return start;
  timeline_ = start.timeline;
  epoch_ = Epoch();
  members_.clear();
  attempts_.clear();
  return start;
}

}  // namespace accrue::core
