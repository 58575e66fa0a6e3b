// When a program that has ended is started again: the first time at once; one that keeps failing after pauses that grow;
// after too many failures in a row, never.
//
// A plain value; the caller brings the time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace accrue {

class RestartPolicy {
 public:
  static constexpr int64_t kFirstPauseNs = 10'000'000'000, kLongestPauseNs = 100'000'000'000;
  // Who has run for so long had no trouble to start: the failures before are forgotten.
  static constexpr int64_t kLivedWellNs = 10'000'000'000;
  static constexpr int kMostInARow = 10;

  void OnStarted(int64_t now_ns) { started_ns_ = now_ns; }

  // The time to start it again, `now_ns` for at once; nothing: it has failed too often.
  std::optional<int64_t> OnEnded(int64_t now_ns) {
    if (now_ns - started_ns_ >= kLivedWellNs) failures_ = 0;
    ++failures_;
    if (failures_ > kMostInARow) return std::nullopt;
    if (failures_ == 1) return now_ns;
    int64_t pause_ns = kFirstPauseNs;
    for (int i = 2; i < failures_; ++i) pause_ns = std::min(2 * pause_ns, kLongestPauseNs);
    return now_ns + pause_ns;
  }

 private:
  int64_t started_ns_ = 0;
  int failures_ = 0;  // in a row
};

}  // namespace accrue
