// UTF-8, as RFC 3629 has it. Pure functions.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace accrue {

bool IsValidUtf8(absl::string_view text);

// Every maximal part of an ill-formed sequence becomes one U+FFFD.
std::string ReplaceInvalidUtf8(absl::string_view text);

// Appends a code point. Requires a scalar value.
void AppendUtf8(char32_t code_point, std::string* out);

// The largest position <= `position` that does not cut a well-formed sequence.
size_t Utf8Boundary(absl::string_view text, size_t position);

}  // namespace accrue
