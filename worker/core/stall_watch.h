// Ends a worker whose compute thread stands still while its heartbeats go on: nobody else could tell it from one that
// computes, and its units would be waited for.
//
// Of the compute thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/watchdog.h"

namespace accrue {

class StallWatch {
 public:
  // stall: the least that a unit is given; 20 times as much for the first one, and for all that is no unit.
  StallWatch(absl::Duration stall, Watchdog::End end) : stall_(stall), watchdog_(std::move(end)) {}

  // A unit may take 20 times as long as the longest one so far took.
  void BeginsUnit() {
    const absl::Duration limit =
        longest_ == absl::ZeroDuration() ? kFactor * stall_ : std::max(stall_, kFactor * longest_);
    watchdog_.Expect(limit, "a unit does not end");
  }
  void EndsUnit(int64_t took_ns) { longest_ = std::max(longest_, absl::Nanoseconds(took_ns)); }
  void Begins(absl::string_view what) { watchdog_.Expect(kFactor * stall_, what); }
  void Waits() { watchdog_.Rest(); }

 private:
  static constexpr int kFactor = 20;

  const absl::Duration stall_;
  absl::Duration longest_;  // unit; zero: none was computed
  Watchdog watchdog_;
};

}  // namespace accrue
