// Checks of what a programmer promised; kept on in release builds. What users or networks can cause is an
// absl::Status instead.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace accrue::internal {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace accrue::internal

#define ACCRUE_CHECK(condition)                                                  \
  do {                                                                           \
    if (!(condition)) [[unlikely]]                                               \
      ::accrue::internal::CheckFailed(__FILE__, __LINE__, #condition);           \
  } while (false)
