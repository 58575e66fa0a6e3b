#include "coordinator/core/audits.h"

#include <algorithm>

#include "common/philox.h"
#include "coordinator/core/difference.h"

namespace accrue::core {
namespace {

constexpr uint64_t kAuditKey = 0x6175646974;  // "audit"

}  // namespace

bool IsAudited(uint64_t seed, double fraction, int64_t window, int64_t unit) {
  uint64_t hash = SplitMix64(seed ^ kAuditKey);
  hash = SplitMix64(hash ^ static_cast<uint64_t>(window));
  hash = SplitMix64(hash ^ static_cast<uint64_t>(unit));
  return static_cast<double>(hash >> 11) * 0x1p-53 < fraction;
}

std::vector<Audit::Camp> Audit::Camps() const {
  std::vector<Camp> camps;
  for (const auto& [worker, word] : words) {
    const auto same = [&, &report = word.report](const Camp& camp) {
      return Difference(*camp.report, report).empty();
    };
    const auto camp = std::find_if(camps.begin(), camps.end(), same);
    if (camp == camps.end()) {
      camps.push_back({&word.report, {worker}});
    } else {
      camp->workers.push_back(worker);
    }
  }
  std::stable_sort(camps.begin(), camps.end(),
                   [](const Camp& a, const Camp& b) { return a.workers.size() > b.workers.size(); });
  return camps;
}

void Audits::Add(int64_t unit, const std::string& cause) {
  if (audits_.try_emplace(unit).second) audits_.at(unit).cause = cause;
  Review(unit);
}

bool Audits::Asked(int64_t unit, Incarnation worker) const {
  const auto found = audits_.find(unit);
  return found != audits_.end() && found->second.asked.count(worker) > 0;
}

void Audits::Hear(Incarnation worker, const UnitReport& report) {
  Audit& audit = audits_.at(report.unit);
  audit.asked.erase(worker);
  const auto [word, first] = audit.words.try_emplace(worker, Audit::Word{report, false, {}});
  if (!first) {
    if (Difference(word->second.report, report).empty()) {
      word->second.repeated = true;
    } else {
      word->second.contradiction = report;
    }
  }
  Review(report.unit);
}

void Audits::Gone(Incarnation worker) {
  for (auto& [unit, audit] : audits_) {
    if (audit.asked.erase(worker) > 0) Review(unit);
  }
}

void Audits::Distrust(Incarnation worker) {
  for (auto& [unit, audit] : audits_) {
    const bool asked = audit.asked.erase(worker) > 0;
    if (audit.words.erase(worker) > 0 || asked) Review(unit);
  }
}

void Audits::StartOver() {
  std::erase_if(audits_, [](const auto& entry) { return !entry.second.cause.empty(); });
  open_.clear();
  review_.clear();
  for (auto& [unit, audit] : audits_) {
    audit = Audit();
    Review(unit);
  }
}

void Audits::Review(int64_t unit) {
  open_.insert(unit);
  review_.insert(unit);
}

void Audits::ReviewRange(const UnitRange& range) {
  for (auto audit = audits_.lower_bound(range.first);
       audit != audits_.end() && audit->first < range.first + range.count; ++audit) {
    Review(audit->first);
  }
}

void Audits::ReviewAll() {
  for (const auto& [unit, audit] : audits_) Review(unit);
}

}  // namespace accrue::core
