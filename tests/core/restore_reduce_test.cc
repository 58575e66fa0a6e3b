// A coordinator that died while a reduce was on its way: members that are still in it say what they hold later.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/core/restore_fixture.h"

namespace accrue::core {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class RestoreReduceTest : public RestoreTest {
 protected:
  // Everybody who is there is heard, and time passes.
  void Pass(int64_t delta_ns) {
    for (int64_t left_ns = delta_ns; left_ns > 0; left_ns -= 1'000'000'000) {
      h.AdvanceNs(std::min<int64_t>(left_ns, 1'000'000'000));
      for (const WorkerView& worker : h.core.Workers()) h.Apply(WorkerHeartbeat{worker.incarnation, 1});
      h.Apply(Tick{});
    }
  }
};

TEST_F(RestoreReduceTest, OneMemberNeverHadTheSeal_TheOthersAreCalledOff) {
  live_.attempt = Attempt(1);
  Submit();
  Resume(kA);  // blocked in the reduce
  EXPECT_THAT(h.Sent<Abort>(), IsEmpty());
  Resume(kC);
  h.Apply(Level(kC, {2, 3}));
  ASSERT_THAT(h.Sent<Abort>(), SizeIs(1));
  const Key key = h.Sent<Abort>().at(kA).key;
  EXPECT_EQ(key.term, RestoreOptions().term);
  EXPECT_EQ(key.timeline, live_.timeline);
  EXPECT_EQ(key.epoch, live_.epoch);  // not above that of any seal to come
  EXPECT_EQ(key.window, live_.window);
  EXPECT_EQ(key.attempt, Attempt(1));
  h.Apply(Tick{});
  EXPECT_THAT(h.Sent<Abort>(), IsEmpty()) << "once is enough";
  Resume(kB);  // comes when that is known
  EXPECT_THAT(h.Sent<Abort>(), SizeIs(1));
  h.Apply(Level(kB, {1}));
  h.Apply(Level(kA, {0}));
  EXPECT_EQ(h.View().state, JobState::kRunning);
  EXPECT_THAT(Expelled(), IsEmpty());
}

TEST_F(RestoreReduceTest, OthersStepped_TheLastOneMayStillStep) {
  Submit();
  Back(Ahead(kA, {{0, 2}}));
  Back(Ahead(kB, {{2, 1}}));
  Resume(kC);
  EXPECT_THAT(h.Sent<Abort>(), IsEmpty());
  Pass(2'900'000'000);
  EXPECT_THAT(h.Sent<Abort>(), IsEmpty());
  h.Apply(Ahead(kC, {{3, 1}}));
  EXPECT_EQ(h.View().window, Window(kCommitted + 1));
}

TEST_F(RestoreReduceTest, BusyAtTheDeadline_CalledOffAndAwaitedALittle) {
  Submit();
  Resume(kA);
  Resume(kB);  // kC is dead: they wait for it in the reduce
  Pass(2'900'000'000);
  EXPECT_THAT(h.Sent<Abort>(), IsEmpty());
  h.AdvanceNs(200'000'000);
  h.Apply(Tick{});
  EXPECT_THAT(h.Sent<Abort>(), SizeIs(2));
  EXPECT_EQ(h.View().state, JobState::kWaiting);
  h.Apply(Level(kA, {0, 1}));
  EXPECT_EQ(h.View().state, JobState::kWaiting);
  h.Apply(Level(kB, {2}));
  EXPECT_EQ(h.View().state, JobState::kRunning);
  EXPECT_EQ(h.View().window, Window(kCommitted));
}

TEST_F(RestoreReduceTest, BackAndNeverSaysWhatItHolds_ExpelledInTheEnd) {
  Submit();
  Back(Level(kA, {0, 1}));
  Back(Level(kB, {2}));
  Resume(kC);
  Pass(RestoreOptions().reconnect_ns);
  Pass(RestoreOptions().abort_timeout_ns - 1'000'000'000);
  EXPECT_EQ(h.View().state, JobState::kWaiting);
  h.AdvanceNs(1'100'000'000);
  h.Apply(Tick{});
  ASSERT_THAT(Expelled(), SizeIs(1));
  EXPECT_EQ(Expelled()[0].worker, kC);
  EXPECT_THAT(Expelled()[0].reason, HasSubstr("did not say in time"));
  EXPECT_EQ(h.View().state, JobState::kRunning);
  EXPECT_EQ(h.View().workers, 2);
}

}  // namespace
}  // namespace accrue::core
