// One line of JSONL: {"text": ...}, or {"prompt": ..., "completion": ...} for training with a loss mask.
//
// Pure functions.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace accrue {

enum class RecordKind { kText, kPromptCompletion };

struct Record {
  RecordKind kind = RecordKind::kText;
  std::string text;        // of kText
  std::string prompt;      // of kPromptCompletion
  std::string completion;  // of kPromptCompletion
};

// Longer lines are refused.
inline constexpr size_t kMaxRecordBytes = size_t{256} << 20;

// INVALID_ARGUMENT: `place` (file:line), the column where the JSON ends to be JSON, what was expected and
// found.
absl::StatusOr<Record> ParseRecord(absl::string_view line, const std::string& place);

// Only white space: no record.
bool IsBlank(absl::string_view line);

// "text", or "prompt and completion".
absl::string_view RecordKindName(RecordKind kind);

}  // namespace accrue
