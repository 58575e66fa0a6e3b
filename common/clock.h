// Time, injected so that tests advance it by hand.
//
// Thread-safe. SteadyNow is for durations and deadlines and never goes back; WallNow is for people and records
// and may jump. Neither can be turned into the other.
#pragma once

#include <atomic>
#include <cstdint>

namespace accrue {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t SteadyNowNs() const = 0;
  virtual int64_t WallNowUnixNs() const = 0;
  // Blocks the calling thread until SteadyNowNs has come to steady_ns. A fake clock is advanced to it instead.
  virtual void WaitUntilNs(int64_t steady_ns) const = 0;

  // The process-wide real clock.
  static const Clock& Real();
};

class FakeClock : public Clock {
 public:
  int64_t SteadyNowNs() const override { return steady_ns_.load(); }
  int64_t WallNowUnixNs() const override { return wall_ns_.load(); }
  void AdvanceNs(int64_t delta_ns) {
    steady_ns_ += delta_ns;
    wall_ns_ += delta_ns;
  }
  void WaitUntilNs(int64_t steady_ns) const override {
    const int64_t left_ns = steady_ns - steady_ns_.load();
    if (left_ns <= 0) return;
    steady_ns_ += left_ns;
    wall_ns_ += left_ns;
  }

 private:
  mutable std::atomic<int64_t> steady_ns_{1};
  mutable std::atomic<int64_t> wall_ns_{1'700'000'000'000'000'000};
};

}  // namespace accrue
