// A fleet whose units are audited, and whose audits are answered by hand.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/core/harness.h"

namespace accrue::core {

// Four units a window, all of them audited.
inline JobConfig AuditedJob() {
  JobConfig config = SmallJob();
  config.audit_fraction = 1;
  return config;
}

struct Fleet : Harness {
  explicit Fleet(int count, JobConfig config = AuditedJob()) {
    answer_audits = false;
    Submit(config);
    workers = Start(count);
  }
  int64_t Id(size_t index) const { return workers[index].value(); }
  // A report of the unit that is not what it should be.
  UnitReport Lie(int64_t window, int64_t unit, uint64_t change = 1) const {
    UnitReport report = UnitOf(window, unit);
    report.bucket_checksums[0] += change;
    return report;
  }
  // Units and manifests of everybody, without the audits.
  void ComputeOwn(int64_t window) {
    for (Incarnation worker : workers) ReportUnits(worker, window);
    for (Incarnation worker : workers) SendComputed(worker, window);
  }
  // With what they were given to audit by then, and while they report it.
  void ComputeAll(int64_t window) {
    ComputeOwn(window);
    for (Incarnation worker : workers) ReportAudits(worker, window);
  }
  // From the start, after all gave up the state.
  void LoadAgain() {
    for (Incarnation worker : workers) Load(worker);
    AnswerProbe(workers[0]);
  }
  // Who was asked to audit the unit, and has not answered.
  Incarnation AuditorOf(int64_t unit) const {
    for (Incarnation worker : workers) {
      const std::vector<int64_t> audited = Audited(worker, 0);
      if (std::count(audited.begin(), audited.end(), unit) > 0) return worker;
    }
    return Incarnation();
  }
  std::vector<LedgerEntry> AuditEntries() const {
    std::vector<LedgerEntry> entries;
    for (const LedgerEntry& entry : ledger) {
      if (entry.kind == "audit") entries.push_back(entry);
    }
    return entries;
  }
  std::vector<Incarnation> workers;
};

}  // namespace accrue::core
