#include "worker/core/recollection.h"

#include <utility>

#include "common/check.h"

namespace accrue {
namespace {

template <typename Map>
void EraseBefore(int64_t window, Map& map) {
  map.erase(map.begin(), map.lower_bound(window));
}

}  // namespace

void Recollection::Send(v1::WorkerMessage message) {
  switch (message.message_case()) {
    case v1::WorkerMessage::kUnitReports:
      Remember(message.unit_reports());
      break;
    case v1::WorkerMessage::kEvaluationReports:
      Remember(message.evaluation_reports());
      break;
    case v1::WorkerMessage::kWindowComputed:
      computed_[message.window_computed().key().window()] = message.window_computed();
      break;
    case v1::WorkerMessage::kStepped:
      Remember(message.stepped());
      break;
    default:
      break;
  }
  link_.Send(std::move(message));
}

void Recollection::Remember(const v1::UnitReports& reports) {
  if (reports.probe() || reports.audit()) return;
  Units& units = units_[reports.key().window()];
  if (reports.key().attempt() > units.attempt) units = {.attempt = reports.key().attempt()};
  for (const v1::UnitReport& report : reports.reports()) units.by_number[report.unit()] = report;
}

void Recollection::Remember(const v1::EvaluationReports& reports) {
  std::map<int64_t, v1::EvaluationReport>& evaluations = evaluations_[reports.key().window()];
  for (const v1::EvaluationReport& report : reports.reports()) evaluations[report.unit()] = report;
}

void Recollection::Remember(const v1::Stepped& stepped) {
  stepped_ = stepped;
  const int64_t window = stepped.key().window();
  EraseBefore(window, computed_);
  EraseBefore(window, seals_);
  // The seal says what follows from them.
  EraseBefore(window + 1, units_);
  EraseBefore(window + 1, evaluations_);
}

void Recollection::Forget() {
  units_.clear();
  evaluations_.clear();
  computed_.clear();
  seals_.clear();
  stepped_.Clear();
}

void Recollection::RecallUnits(int64_t window, int64_t attempt, const std::vector<int64_t>& units,
                               v1::Holding& holding) const {
  if (units.empty()) return;
  const auto found = units_.find(window);
  ACCRUE_CHECK(found != units_.end() && found->second.attempt == attempt);
  for (int64_t unit : units) {
    const auto report = found->second.by_number.find(unit);
    ACCRUE_CHECK(report != found->second.by_number.end());  // what is accumulated is reported
    *holding.add_reports() = report->second;
  }
}

void Recollection::RecallEvaluations(int64_t window, v1::Holding& holding) const {
  const auto found = evaluations_.find(window);
  if (found == evaluations_.end()) return;
  for (const auto& [unit, report] : found->second) *holding.add_evaluations() = report;
}

void Recollection::RecallStep(int64_t window, v1::Holding& holding) const {
  ACCRUE_CHECK(stepped_.key().window() + 1 == window);
  *holding.mutable_stepped() = stepped_;
  if (const auto seal = seals_.find(window - 1); seal != seals_.end()) *holding.mutable_stepped_seal() = seal->second;
  if (const auto computed = computed_.find(window - 1); computed != computed_.end()) {
    *holding.mutable_computed() = computed->second;
  }
}

std::string Recollection::DigestOf(int64_t window) const {
  return stepped_.key().window() + 1 == window ? stepped_.digest() : "";
}

}  // namespace accrue
