#include "coordinator/core/window_run.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/exponents.h"
#include "coordinator/core/counted.h"

namespace accrue::core {

std::vector<UnitRange> WindowRun::Grant(Incarnation worker, int64_t count) {
  Part& part = parts[worker];
  if (count > 0 && part.computed) {
    part.computed = false;
    --computed;
  }
  std::vector<UnitRange> granted = leases.Grant(worker, count);
  for (const UnitRange& range : granted) audits.ReviewRange(range);  // they have another holder
  return granted;
}

void WindowRun::NoteProgress(Incarnation worker, int64_t now_ns) {
  Part& part = parts.at(worker);
  part.progress_ns = part.active_ns = now_ns;
  Touch(worker);
}

void WindowRun::Take(UnitReport report) {
  leases.MarkDone(report.unit);
  reports[static_cast<size_t>(report.unit)] = std::move(report);
}

std::string WindowRun::CheckManifest(Incarnation worker, const std::vector<BucketManifest>& manifest) const {
  const auto entries = static_cast<int64_t>(manifest.size());
  if (entries != 1 && entries != buckets) {
    return absl::StrCat("a manifest of ", entries, " buckets, expected 1 or ", buckets);
  }
  const int64_t final_buckets = parts.at(worker).final_buckets;
  const bool alike = final_buckets == 0 || final_buckets == buckets;
  if (entries < buckets && !alike) {
    return absl::StrCat("one entry for ", buckets, " buckets, of which ", final_buckets, " are final");
  }
  const int64_t reported = leases.ShareOf(worker).done;
  for (int64_t b = 0; b < entries; ++b) {
    const BucketManifest& bucket = manifest[static_cast<size_t>(b)];
    const bool is_final = b < final_buckets;
    if (bucket.final != is_final) {
      return absl::StrCat("bucket ", b, " is said to be ", is_final ? "open" : "final", "; ", final_buckets, " of ",
                          buckets, " are final");
    }
    if (is_final && !bucket.units.empty()) return absl::StrCat("bucket ", b, " is final and names units");
    if (is_final) continue;
    const std::string wrong = CheckUnits(worker, bucket.units, reported);
    if (!wrong.empty()) return absl::StrCat("bucket ", b, " ", wrong);
  }
  return "";
}

std::string WindowRun::CheckUnits(Incarnation worker, const std::vector<UnitRange>& ranges, int64_t expected) const {
  std::vector<UnitRange> ascending = ranges;
  std::sort(ascending.begin(), ascending.end(),
            [](const UnitRange& a, const UnitRange& b) { return a.first < b.first; });
  int64_t units = 0, next = 0;
  for (const UnitRange& range : ascending) {
    if (range.first < 0 || range.count < 1 || range.first > leases.size() - range.count) {
      return absl::StrCat("names units from ", range.first, ", ", range.count, " of them; the window has ",
                          leases.size());
    }
    if (range.first < next) return absl::StrCat("holds unit ", range.first, " twice");
    next = range.first + range.count;
    units += range.count;
    for (int64_t unit = range.first; unit < next; ++unit) {
      if (!leases.Holds(worker, unit) || !leases.Done(unit)) {
        return absl::StrCat("holds unit ", unit, ", which this worker did not report under a lease");
      }
    }
  }
  if (units == expected) return "";
  return absl::StrCat("holds ", Counted(units, "unit"), ", but ", expected, expected == 1 ? " was" : " were",
                      " reported");
}

int64_t WindowRun::FinalBuckets() const {
  int64_t most = 0;
  for (const auto& [worker, part] : parts) most = std::max(most, part.final_buckets);
  return most;
}

bool WindowRun::Finished(Incarnation worker) const {
  const Leases::Share share = leases.ShareOf(worker);
  return share.leased == share.done;
}

void WindowRun::MarkComputed(Incarnation worker, const std::string& parameter_hash, double gradient_norm) {
  Part& part = parts[worker];
  if (!part.computed) ++computed;
  part.computed = true;
  part.parameter_hash = parameter_hash;
  part.gradient_norm = gradient_norm;
}

void WindowRun::RememberReports(Incarnation worker, const std::string& name) {
  for (const UnitRange& range : leases.RangesOf(worker)) {
    for (int64_t unit = range.first; unit < range.first + range.count; ++unit) {
      if (leases.Done(unit)) lost[unit] = {worker, name, reports[static_cast<size_t>(unit)]};
    }
  }
}

void WindowRun::Drop(Incarnation worker) {
  const auto part = parts.find(worker);
  if (part != parts.end()) {
    if (part->second.computed) --computed;
    if (part->second.recalled > 0) --recalls;
    parts.erase(part);
  }
  leases.RevokeUnfinished(worker);
  if (FinalBuckets() < buckets) leases.FreeOrphans();
  audits.Gone(worker);
  if (evaluation) evaluation->leases.RevokeUnfinished(worker);
}

void WindowRun::Unseal(const std::vector<Incarnation>& members) {
  for (const auto& [worker, failure] : sealed->failed) parts.at(worker).final_buckets = failure.final_buckets;
  sealed.reset();
  for (Incarnation worker : PartsBeyond(members)) Drop(worker);
}

std::vector<Incarnation> WindowRun::PartsBeyond(const std::vector<Incarnation>& members) const {
  std::vector<Incarnation> beyond;
  for (const auto& [worker, part] : parts) {
    if (!std::binary_search(members.begin(), members.end(), worker)) beyond.push_back(worker);
  }
  return beyond;
}

void WindowRun::StartOver(Attempt next) {
  attempt = next;
  leases.FreeOrphans();
  leases.ForgetDone();
  lost.clear();
  disputed.clear();
  for (auto& [worker, part] : parts) part = Part();
  computed = recalls = returned = 0;
  standings_epoch = Epoch();
  audits.StartOver();
  sealed.reset();
}

void WindowRun::Check(const std::vector<Incarnation>& members) const {
  leases.Check();
  if (evaluation) evaluation->leases.Check();
  int64_t counted = 0, asked = 0, covered = leases.free() + leases.orphans();
  for (const auto& [worker, part] : parts) {
    const Leases::Share share = leases.ShareOf(worker);
    covered += share.leased;
    counted += part.computed ? 1 : 0;
    asked += part.recalled > 0 ? 1 : 0;
    ACCRUE_CHECK(!part.computed || share.leased == share.done);
    ACCRUE_CHECK(part.final_buckets >= 0 && part.final_buckets <= buckets);
    ACCRUE_CHECK(sealed || std::binary_search(members.begin(), members.end(), worker));
  }
  ACCRUE_CHECK(covered == leases.size() && counted == computed && asked == recalls);
  ACCRUE_CHECK(leases.orphans() == 0 || FinalBuckets() == buckets);
  ACCRUE_CHECK(!sealed || (leases.complete() && computed == static_cast<int64_t>(parts.size())));
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
