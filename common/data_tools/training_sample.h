// The lines of training documents that a SentencePiece model is trained on: a bounded sample that inputs and
// seed alone decide.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/data_tools/inputs.h"
#include "common/file_system.h"

namespace accrue {

// About limit_bytes, spread evenly; all lines when there are no more. Empty lines are left out, long ones
// cut, and bytes that are not UTF-8 become U+FFFD. Held-out documents are not among them.
absl::StatusOr<std::vector<std::string>> SampleTrainingLines(FileSystem& file_system, const InputPlan& plan,
                                                             uint64_t limit_bytes);

}  // namespace accrue
