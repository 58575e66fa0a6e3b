// Two runs side by side: where their digests part, what one has and the other lacks, how their specs differ.
//
// Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/run_history.h"
#include "common/spec/job_spec.h"

namespace accrue {

enum class RunVerdict {
  kEqual,    // the same windows with the same digests, of specs that ask for the same
  kSpecs,    // only the specs differ
  kLonger,   // a run has windows that the other lacks; those that both have are equal
  kDigests,  // a window that both have has two digests
};

struct RunFieldDifference {
  SpecDifference field;
  bool affects_result = true;  // false: names, the fleet and its memory, where the same data lie
};

struct RunComparison {
  RunVerdict verdict = RunVerdict::kEqual;
  int64_t common = 0;                       // windows that both have
  int64_t equal = 0;                        // of these, the ones with equal digests
  std::optional<int64_t> first_difference;  // the number of a window that both have
  int64_t only_a = 0, only_b = 0;           // windows that the other lacks
  // Of the specs and of the pinned data, from a to b; nothing where a spec is not known.
  std::optional<std::vector<RunFieldDifference>> fields;

  bool FieldsMatter() const;
};

RunComparison CompareRuns(const RunHistory& a, const RunHistory& b);

}  // namespace accrue
