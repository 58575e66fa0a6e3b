#include "common/end_process.h"

#include <gtest/gtest.h>

namespace accrue {
namespace {

TEST(EndProcess, SaysWhatStandsStill_ExitsWithItsOwnCode) {
  EXPECT_EXIT(EndProcess("the reduce of window 7"), testing::ExitedWithCode(kStandsStillExitCode),
              "stands still.*the reduce of window 7");
}

}  // namespace
}  // namespace accrue
