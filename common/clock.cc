#include "common/clock.h"

#include <chrono>
#include <thread>

namespace accrue {
namespace {

class RealClock : public Clock {
 public:
  int64_t SteadyNowNs() const override {
    return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  int64_t WallNowUnixNs() const override {
    return std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count();
  }
  void WaitUntilNs(int64_t steady_ns) const override {
    std::this_thread::sleep_until(std::chrono::steady_clock::time_point(std::chrono::nanoseconds(steady_ns)));
  }
};

}  // namespace

const Clock& Clock::Real() {
  static const RealClock clock;
  return clock;
}

}  // namespace accrue
