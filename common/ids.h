// Strong types for the identifiers of docs/architecture.md: two of them never mix by accident.
//
// A value type around int64; ordered and hashable. `Next()` is the only arithmetic, for identifiers that are
// raised. The default value 0 means "none" for incarnations and "the first" for the others.
#pragma once

#include <compare>
#include <cstdint>
#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"

namespace accrue {

template <typename Tag>
class StrongId {
 public:
  constexpr StrongId() = default;
  constexpr explicit StrongId(int64_t value) : value_(value) {}
  constexpr int64_t value() const { return value_; }
  constexpr StrongId Next() const { return StrongId(value_ + 1); }
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
  template <typename H>
  friend H AbslHashValue(H hash, StrongId id) {
    return H::combine(std::move(hash), id.value_);
  }
  friend std::ostream& operator<<(std::ostream& out, StrongId id) { return out << id.value_; }

 private:
  int64_t value_ = 0;
};

using Term = StrongId<struct TermTag>;                // one leadership of a coordinator
using Timeline = StrongId<struct TimelineTag>;        // one history of a job
using Epoch = StrongId<struct EpochTag>;              // a membership generation
using Incarnation = StrongId<struct IncarnationTag>;  // one life of a worker process
using Window = StrongId<struct WindowTag>;            // one optimizer step
using Attempt = StrongId<struct AttemptTag>;          // one try at a window
using JobId = std::string;                            // assigned by the coordinator, such as "headers-3"

}  // namespace accrue
