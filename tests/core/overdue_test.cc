// Leases that are over: members that are heard, and do not get on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/harness.h"

namespace accrue::core {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::SizeIs;

constexpr int64_t kSecond = 1'000'000'000;

// Lets the time pass; whether somebody was expelled.
bool Expels(Harness& harness, int64_t seconds) {
  for (int64_t i = 0; i < 10 * seconds; ++i) {
    harness.Wait(kSecond / 10);
    if (!harness.Effects<Expel>().empty()) return true;
  }
  return false;
}

class Overdue : public ::testing::Test {
 protected:
  // Two members, each with two units of window 0.
  void SetUp() override {
    JobConfig config = SmallJob();
    config.checkpoint_every = 1;
    harness_.Submit(config);
    workers_ = harness_.Start(2);
  }
  void Report(Incarnation worker, int64_t unit, int64_t compute_ns) {
    UnitReport report = harness_.UnitOf(0, unit);
    report.compute_ns = compute_ns;
    harness_.ReportUnit(worker, 0, report);
  }
  bool Expels(int64_t seconds) { return ::accrue::core::Expels(harness_, seconds); }
  Harness harness_;
  std::vector<Incarnation> workers_;
};

TEST_F(Overdue, HeardButNothingComes_LosesItsUnitsToOthers) {
  Report(workers_[1], 2, 1'000'000);
  harness_.Compute(workers_[0], 0);
  EXPECT_FALSE(Expels(60));
  ASSERT_TRUE(Expels(2));
  ASSERT_THAT(harness_.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(harness_.Effects<Expel>()[0].worker, workers_[1]);
  EXPECT_TRUE(harness_.Effects<Expel>()[0].rejoin);
  EXPECT_THAT(harness_.Effects<Expel>()[0].reason, HasSubstr("its leases are over"));
  EXPECT_THAT(harness_.Sent<Plan>().at(workers_[0]).units, ElementsAre(UnitRange{2, 2}));
}

TEST_F(Overdue, UnitsTakeLong_LimitIsAMultipleOfThese) {
  Report(workers_[1], 2, 10 * kSecond);
  harness_.Compute(workers_[0], 0);
  EXPECT_FALSE(Expels(400));
  EXPECT_TRUE(Expels(2));
}

TEST_F(Overdue, FirstUnit_MayTakeTwentyTimesAsLong) {
  harness_.Compute(workers_[0], 0);
  EXPECT_FALSE(Expels(1200));
  EXPECT_TRUE(Expels(2));
  EXPECT_EQ(harness_.Effects<Expel>()[0].worker, workers_[1]);
}

TEST_F(Overdue, GetsOn_Stays) {
  harness_.Compute(workers_[0], 0);
  Report(workers_[1], 2, 1'000'000);
  EXPECT_FALSE(Expels(50));
  Report(workers_[1], 3, 1'000'000);
  EXPECT_FALSE(Expels(50));
}

TEST_F(Overdue, OwesItsManifest_IsExpelled) {
  harness_.Compute(workers_[0], 0);
  harness_.ReportUnits(workers_[1], 0);
  EXPECT_FALSE(Expels(59));
  EXPECT_TRUE(Expels(3));
}

TEST_F(Overdue, NothingIsAwaitedOfIt_Stays) {
  harness_.ReportUnits(workers_[1], 0);
  harness_.SendComputed(workers_[1], 0);
  EXPECT_FALSE(Expels(600));  // the other, of which nothing is known yet, may take longer
}

TEST_F(Overdue, WritesAShard_IsAwaited) {
  harness_.RunWindow(workers_, 0);
  ASSERT_THAT(harness_.commits, SizeIs(1));
  harness_.WriteShard(workers_[0]);
  harness_.Compute(workers_[0], 1);
  EXPECT_FALSE(Expels(300));  // it waits for its disk
  harness_.WriteShard(workers_[1]);
  EXPECT_FALSE(Expels(59));
  EXPECT_TRUE(Expels(3));
}

TEST_F(Overdue, StateIsSent_SourceIsAwaited) {
  Report(workers_[0], 0, 1'000'000);
  Report(workers_[1], 2, 1'000'000);
  const Incarnation joiner = harness_.Join();
  harness_.Load(joiner, "");
  ASSERT_THAT(harness_.Sent<StateSync>(), Contains(Key(joiner)));
  EXPECT_FALSE(Expels(100));
}

TEST_F(Overdue, JoinsALongWindow_HasItsOwnTime) {
  harness_.Compute(workers_[0], 0);
  Report(workers_[1], 2, 100 * kSecond);  // its window may last
  EXPECT_FALSE(Expels(1300));
  const Incarnation joiner = harness_.Join();
  harness_.Load(joiner);
  harness_.Synced(workers_[0], "scratch");
  harness_.Synced(joiner, "scratch");
  ASSERT_EQ(harness_.View().workers, 3);
  EXPECT_FALSE(Expels(100));
}

TEST_F(Overdue, CoordinatorWasAsleep_IsNobodysSilence) {
  Report(workers_[0], 0, 1'000'000);
  Report(workers_[1], 2, 1'000'000);
  harness_.Wait(kSecond);
  harness_.AdvanceNs(1000 * kSecond);
  harness_.Apply(Tick{});
  EXPECT_THAT(harness_.Effects<Expel>(), IsEmpty());
  EXPECT_FALSE(Expels(59));
}

TEST(OverdueAudit, AuditorStandsStill_AnotherIsAsked) {
  Harness harness;
  harness.answer_audits = false;
  JobConfig config = SmallJob();
  config.audit_fraction = 1;
  harness.Submit(config);
  const auto workers = harness.Start(3);
  for (Incarnation worker : workers) harness.ReportUnits(worker, 0);
  for (Incarnation worker : workers) harness.SendComputed(worker, 0);
  harness.ReportAudits(workers[0], 0);
  harness.ReportAudits(workers[1], 0);
  ASSERT_THAT(harness.Audited(workers[2], 0), testing::Not(IsEmpty()));
  ASSERT_TRUE(Expels(harness, 62));
  EXPECT_EQ(harness.Effects<Expel>()[0].worker, workers[2]);
}

}  // namespace
}  // namespace accrue::core
