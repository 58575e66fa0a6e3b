#include "common/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"

namespace accrue {
namespace {

struct Ended {
  absl::Notification ended;
  std::string what;
  Watchdog::End End() {
    return [this](const std::string& stands_still) {
      what = stands_still;
      ended.Notify();
    };
  }
};

TEST(WatchdogTest, Expect_NothingIsHeard_EndsWithWhatStandsStill) {
  Ended ended;
  Watchdog watchdog(ended.End());
  watchdog.Expect(absl::Milliseconds(5), "a");
  ended.ended.WaitForNotification();
  EXPECT_EQ(ended.what, "a");
}

TEST(WatchdogTest, Rest_IsNotTakenForStandingStill) {
  Ended ended;
  Watchdog watchdog(ended.End());
  watchdog.Expect(absl::Milliseconds(200), "a");
  watchdog.Rest();
  watchdog.Expect(absl::Hours(1), "b");
  Ended other;  // some time in which "a" would have been missed
  Watchdog measure(other.End());
  measure.Expect(absl::Milliseconds(400), "c");
  other.ended.WaitForNotification();
  EXPECT_FALSE(ended.ended.HasBeenNotified());
}

TEST(WatchdogTest, Expect_Again_ReplacesWhatWasExpected) {
  Ended ended;
  Watchdog watchdog(ended.End());
  watchdog.Expect(absl::Hours(1), "a");
  watchdog.Rest();
  watchdog.Expect(absl::Milliseconds(5), "b");
  ended.ended.WaitForNotification();
  EXPECT_EQ(ended.what, "b");
}

}  // namespace
}  // namespace accrue
