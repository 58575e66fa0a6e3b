#include "common/clock.h"

#include <chrono>

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
};

}  // namespace

const Clock& Clock::Real() {
  static const RealClock clock;
  return clock;
}

}  // namespace accrue
