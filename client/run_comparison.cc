#include "client/run_comparison.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace accrue {
namespace {

using Pins = google::protobuf::RepeatedPtrField<v1::ShardPin>;

// As JSON.
std::string PinText(const v1::ShardPin& pin) {
  std::string text = absl::StrCat(pin.path(), ", XXH3-128 ", pin.xxh3_128());
  if (!pin.mask_xxh3_128().empty()) absl::StrAppend(&text, ", mask ", pin.mask_xxh3_128());
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool SamePin(const v1::ShardPin& a, const v1::ShardPin& b) {
  return a.xxh3_128() == b.xxh3_128() && a.mask_xxh3_128() == b.mask_xxh3_128();
}

// Wherever the files lie: it is what they hold that counts.
void ComparePins(absl::string_view name, const Pins& a, const Pins& b, std::vector<RunFieldDifference>& fields) {
  for (int i = 0; i < std::max(a.size(), b.size()); ++i) {
    if (i < a.size() && i < b.size() && SamePin(a[i], b[i])) continue;
    fields.push_back({{absl::StrCat(name, "[", i, "]"), i < a.size() ? PinText(a[i]) : "", i < b.size() ? PinText(b[i]) : ""},
                      true});
  }
}

// The pins say which data were used, more exactly than the spec's patterns.
bool AffectsResult(absl::string_view field) {
  return field != "name" && field != "recompute" && !absl::StartsWith(field, "workers.") &&
         !absl::StartsWith(field, "audit.") && field != "data.train" && field != "data.validation";
}

std::vector<RunFieldDifference> CompareJobs(const v1::ResolvedJob& a, const v1::ResolvedJob& b) {
  std::vector<RunFieldDifference> fields;
  for (SpecDifference& difference : CompareSpecs(a.spec(), b.spec())) {
    const bool affects = AffectsResult(difference.field);
    fields.push_back({std::move(difference), affects});
  }
  ComparePins("shards.train", a.train(), b.train(), fields);
  ComparePins("shards.validation", a.validation(), b.validation(), fields);
  return fields;
}

}  // namespace

bool RunComparison::FieldsMatter() const {
  return fields.has_value() && std::any_of(fields->begin(), fields->end(),
                                           [](const RunFieldDifference& field) { return field.affects_result; });
}

RunComparison CompareRuns(const RunHistory& a, const RunHistory& b) {
  RunComparison result;
  for (const auto& [window, record] : a.windows) {
    const auto other = b.windows.find(window);
    if (other == b.windows.end()) {
      ++result.only_a;
      continue;
    }
    ++result.common;
    if (record.digest == other->second.digest) {
      ++result.equal;
    } else if (!result.first_difference.has_value()) {
      result.first_difference = window;
    }
  }
  result.only_b = static_cast<int64_t>(b.windows.size()) - result.common;
  if (a.job.has_value() && b.job.has_value()) result.fields = CompareJobs(*a.job, *b.job);
  if (result.first_difference.has_value()) {
    result.verdict = RunVerdict::kDigests;
  } else if (result.only_a > 0 || result.only_b > 0) {
    result.verdict = RunVerdict::kLonger;
  } else if (result.FieldsMatter()) {
    result.verdict = RunVerdict::kSpecs;
  }
  return result;
}

}  // namespace accrue
