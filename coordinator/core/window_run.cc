#include "coordinator/core/window_run.h"

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/exponents.h"

namespace accrue::core {

std::vector<UnitRange> WindowRun::Grant(Incarnation worker, int64_t count) {
  Part& part = parts[worker];
  if (count > 0 && part.computed) {
    part.computed = false;
    --computed;
  }
  return leases.Grant(worker, count);
}

void WindowRun::Take(const UnitReport& report) {
  leases.MarkDone(report.unit);
  reports[static_cast<size_t>(report.unit)] = report;
}

std::string WindowRun::CheckManifest(Incarnation worker, const std::vector<BucketManifest>& buckets,
                                     int64_t bucket_count) const {
  if (buckets.size() != 1 && static_cast<int64_t>(buckets.size()) != bucket_count) {
    return absl::StrCat("a manifest of ", buckets.size(), " buckets, expected 1 or ", bucket_count);
  }
  const int64_t reported = leases.ShareOf(worker).done;
  for (size_t b = 0; b < buckets.size(); ++b) {
    if (buckets[b].final) return absl::StrCat("bucket ", b, " is said to be final before any reduce");
    std::vector<bool> seen(reports.size(), false);
    int64_t units = 0;
    for (const UnitRange& range : buckets[b].units) {
      if (range.first < 0 || range.count < 1 || range.first > leases.size() - range.count) {
        return absl::StrCat("bucket ", b, " names units from ", range.first, ", ", range.count,
                            " of them; the window has ", leases.size());
      }
      for (int64_t unit = range.first; unit < range.first + range.count; ++unit, ++units) {
        if (!leases.Holds(worker, unit) || !leases.Done(unit)) {
          return absl::StrCat("bucket ", b, " holds unit ", unit,
                              ", which this worker did not report under a lease");
        }
        if (seen[static_cast<size_t>(unit)])
          return absl::StrCat("bucket ", b, " holds unit ", unit, " twice");
        seen[static_cast<size_t>(unit)] = true;
      }
    }
    if (units != reported) {
      return absl::StrCat("bucket ", b, " holds ", units, " units, but ", reported, " were reported");
    }
  }
  return "";
}

bool WindowRun::Finished(Incarnation worker) const {
  const Leases::Share share = leases.ShareOf(worker);
  return share.leased == share.done;
}

void WindowRun::MarkComputed(Incarnation worker, const std::string& parameter_hash, double gradient_norm) {
  Part& part = parts[worker];
  if (!part.computed) ++computed;
  part = {true, parameter_hash, gradient_norm};
}

void WindowRun::Drop(Incarnation worker) {
  const auto part = parts.find(worker);
  if (part != parts.end()) {
    if (part->second.computed) --computed;
    parts.erase(part);
  }
  leases.Revoke(worker);
  if (evaluation) evaluation->leases.RevokeUnfinished(worker);
}

void WindowRun::StartOver(Attempt next) {
  attempt = next;
  leases.ForgetDone();
  for (auto& [worker, part] : parts) part = Part();
  computed = 0;
  sealed.reset();
}

Totals WindowRun::Sum() const {
  ACCRUE_CHECK(leases.complete());
  Totals totals;
  for (const UnitReport& report : reports) {
    totals.loss_sum += report.loss_sum;
    totals.valid_tokens += report.valid_tokens;
    totals.non_finite |= report.non_finite;
    totals.vanished_elements += report.vanished_elements;
    MergeMaxExponents(report.max_exponents, totals.max_exponents);
    AddChecksums(report.bucket_checksums, totals.bucket_checksums);
  }
  return totals;
}

}  // namespace accrue::core
