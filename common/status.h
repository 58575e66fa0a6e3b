// Helpers around absl::Status: early returns, and context for a reader of the message.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace accrue {

// The same code with "context: " before the message.
inline absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

}  // namespace accrue

#define ACCRUE_CONCAT_INNER(a, b) a##b
#define ACCRUE_CONCAT(a, b) ACCRUE_CONCAT_INNER(a, b)

#define ACCRUE_RETURN_IF_ERROR(expression)                       \
  do {                                                           \
    if (absl::Status accrue_status = (expression); !accrue_status.ok()) return accrue_status; \
  } while (false)

#define ACCRUE_ASSIGN_OR_RETURN(declaration, expression) \
  ACCRUE_ASSIGN_OR_RETURN_INNER(ACCRUE_CONCAT(accrue_statusor_, __LINE__), declaration, expression)
#define ACCRUE_ASSIGN_OR_RETURN_INNER(holder, declaration, expression) \
  auto holder = (expression);                                          \
  if (!holder.ok()) return std::move(holder).status();                 \
  declaration = *std::move(holder)
