// Numbers of things, as reasons for people say them: "1 unit", "2 units".
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"

namespace accrue::core {

// The thing in the singular; its plural has an s.
template <typename Integer>
std::string Counted(Integer count, const char* thing) {
  return absl::StrCat(count, " ", thing, count == 1 ? "" : "s");
}

inline const char* IsOrAre(int64_t count) { return count == 1 ? "is" : "are"; }

}  // namespace accrue::core
