// Units that move within a window, and workers that leave at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/harness.h"

namespace accrue::core {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::SizeIs;

constexpr int64_t kMs = 1'000'000;

class Balance : public ::testing::Test {
 protected:
  // Two members of a job of 12 units a window; the first has units 0 to 5, the second 6 to 11.
  std::vector<Incarnation> Start(int workers = 2) {
    JobConfig config = SmallJob();
    config.units_per_window = 12;
    harness_.Submit(config);
    return harness_.Start(workers);
  }
  // One unit of window 0 that took so long; `passes`: the time goes by.
  void Report(Incarnation worker, int64_t unit, int64_t unit_ms, bool passes = true) {
    if (passes) harness_.AdvanceNs(unit_ms * kMs);
    UnitReport report = harness_.UnitOf(0, unit);
    report.compute_ns = unit_ms * kMs;
    harness_.ReportUnit(worker, 0, report);
  }
  // The first is done after 60 ms; the second, at 100 ms a unit, has five left, of which one has begun.
  std::vector<Incarnation> OneIsLate() {
    const auto workers = Start();
    Report(workers[1], 6, 100);
    for (int64_t unit = 0; unit < 6; ++unit) Report(workers[0], unit, 10);
    harness_.SendComputed(workers[0], 0);
    return workers;
  }
  Harness harness_;
};

TEST_F(Balance, LateWorker_IsAskedForWhatAFairSplitTakesFromIt) {
  const auto workers = Start();
  Report(workers[1], 6, 100);
  for (int64_t unit = 0; unit < 5; ++unit) Report(workers[0], unit, 10);
  // At 10 and 100 ms a unit: the first takes all that has not begun.
  const Recall recall = harness_.Last<Recall>(workers[1]);
  EXPECT_EQ(recall.units, 4);
  EXPECT_EQ(recall.key.window, Window(0));
  EXPECT_EQ(recall.key.incarnation, workers[1]);
}

TEST_F(Balance, ReturnedUnits_GoToTheFastOneAndCountOnce) {
  const auto workers = OneIsLate();
  harness_.Return(workers[1], {{10, 2}, {8, 2}});
  EXPECT_THAT(harness_.Sent<Plan>().at(workers[0]).units, ElementsAre(UnitRange{8, 4}));
  harness_.Compute(workers[1], 0);
  EXPECT_THAT(harness_.Sent<Seal>(), IsEmpty());
  harness_.Compute(workers[0], 0);
  EXPECT_THAT(harness_.Sent<Seal>(), SizeIs(2));
  for (Incarnation worker : workers) harness_.Step(worker, 0, "d0");
  ASSERT_THAT(harness_.commits, SizeIs(1));
  EXPECT_EQ(harness_.commits[0].workers[0].units, 10);
  EXPECT_EQ(harness_.commits[0].workers[1].units, 2);
  EXPECT_THAT(harness_.ledger, Contains(Field(&LedgerEntry::reason, HasSubstr("gives back 4 of 4 units"))));
}

TEST_F(Balance, SeveralAreAsked_WhatTheyGiveBackIsLeasedTogetherOrAfterTheInterval) {
  for (const bool all_answer : {true, false}) {
    Harness harness;
    JobConfig config = SmallJob();
    config.units_per_window = 12;
    harness.Submit(config);
    const auto workers = harness.Start(3);
    const auto report = [&](Incarnation worker, int64_t unit, int64_t unit_ms) {
      UnitReport report = harness.UnitOf(0, unit);
      report.compute_ns = unit_ms * kMs;
      harness.ReportUnit(worker, 0, report);
    };
    harness.AdvanceNs(100 * kMs);
    report(workers[1], 4, 100);
    report(workers[2], 8, 100);
    for (int64_t unit = 0; unit < 4; ++unit) report(workers[0], unit, 10);
    harness.Wait(20 * kMs);
    ASSERT_THAT(harness.Sent<Recall>(), SizeIs(2));
    harness.Return(workers[1], {{6, 2}});
    EXPECT_THAT(harness.Sent<Plan>(), IsEmpty());
    if (all_answer) {
      harness.Return(workers[2], {{10, 2}});
      EXPECT_THAT(harness.Sent<Plan>().at(workers[0]).units, ElementsAre(UnitRange{6, 2}, UnitRange{10, 2}));
    } else {
      harness.Wait(20 * kMs);
      EXPECT_THAT(harness.Sent<Plan>().at(workers[0]).units, ElementsAre(UnitRange{6, 2}));
    }
  }
}

TEST_F(Balance, AskedAndNotAnswered_IsNotAskedAgain) {
  const auto workers = OneIsLate();
  const Recall first = harness_.Last<Recall>(workers[1]);
  for (int i = 0; i < 20; ++i) {
    harness_.Wait(50 * kMs);
    EXPECT_THAT(harness_.Sent<Recall>(), IsEmpty());
  }
  EXPECT_EQ(first.units, 4);
}

TEST_F(Balance, SmallGain_NothingMoves) {
  const auto workers = Start();
  harness_.AdvanceNs(30 * kMs);
  for (int64_t unit : {6, 7}) Report(workers[1], unit, 12, false);
  for (int64_t unit : {0, 1, 2}) Report(workers[0], unit, 10, false);
  // 30 and 48 ms are left; split fairly 40 and 36, which is not 10 ms sooner.
  for (int i = 0; i < 5; ++i) {
    harness_.Wait(2 * kMs);
    EXPECT_THAT(harness_.Sent<Recall>(), IsEmpty());
  }
}

TEST_F(Balance, SilentWorkerThatWasFast_CountsAsSlowAndGetsNothingBack) {
  const auto workers = Start();
  Report(workers[1], 6, 4);
  for (int64_t unit = 0; unit < 6; ++unit) Report(workers[0], unit, 4);
  harness_.SendComputed(workers[0], 0);
  EXPECT_THAT(harness_.Sent<Recall>(), IsEmpty());  // 16 ms are left, split fairly 8
  harness_.Wait(100 * kMs);
  EXPECT_EQ(harness_.Last<Recall>(workers[1]).units, 4);
  harness_.Return(workers[1], {{8, 4}});
  EXPECT_THAT(harness_.Sent<Plan>(), ElementsAre(Key(workers[0])));
}

TEST_F(Balance, UnitsOfTheNextWindow_NobodyIsLateForThem) {
  const auto workers = Start(3);
  for (int64_t unit = 0; unit < 4; ++unit) Report(workers[0], unit, 10);
  for (int64_t unit = 4; unit < 6; ++unit) Report(workers[1], unit, 30);
  ASSERT_THAT(harness_.Held(workers[0], 1), SizeIs(7));
  ASSERT_THAT(harness_.Held(workers[1], 1), SizeIs(2));
  harness_.Wait(1'000 * kMs);
  harness_.Gone(workers[2]);
  EXPECT_THAT(harness_.Held(workers[0], 1), SizeIs(9));
  EXPECT_THAT(harness_.Held(workers[1], 1), SizeIs(3));
}

TEST_F(Balance, ReturnedNothing_AskedAgainLaterButNotWithoutEnd) {
  const auto workers = OneIsLate();
  int asked = 1;
  for (int i = 0; i < 20; ++i) {
    harness_.Return(workers[1], {});
    for (int j = 0; j < 3; ++j) {
      harness_.Wait(30 * kMs);
      asked += static_cast<int>(harness_.Sent<Recall>().size());
    }
  }
  EXPECT_EQ(asked, 4);
}

TEST_F(Balance, ReturnedEverything_ManifestIsOfWhatItKept) {
  const auto workers = OneIsLate();
  harness_.Return(workers[1], {{8, 4}});
  harness_.Compute(workers[0], 0);
  harness_.Compute(workers[1], 0);  // unit 7 had begun
  EXPECT_THAT(harness_.Effects<Expel>(), IsEmpty());
  EXPECT_THAT(harness_.Sent<Seal>(), SizeIs(2));
}

class Lie : public Balance, public ::testing::WithParamInterface<std::vector<UnitRange>> {};

TEST_P(Lie, ReturnsWhatItHasNot_IsExpelled) {
  const auto workers = OneIsLate();
  harness_.Apply(UnitsReturned{workers[1], harness_.Last<Recall>(workers[1]).key, GetParam()});
  ASSERT_THAT(harness_.Effects<Expel>(), SizeIs(1));
  EXPECT_THAT(harness_.Effects<Expel>()[0].reason, HasSubstr("it gives back unit"));
  EXPECT_THAT(harness_.Held(workers[0], 0), SizeIs(12));
}

using Units = std::vector<UnitRange>;
INSTANTIATE_TEST_SUITE_P(Balance, Lie,
                         ::testing::Values(Units{{0, 1}},          // another's
                                           Units{{6, 1}},          // reported
                                           Units{{8, 1}, {8, 1}},  // twice
                                           Units{{7, 5}},          // more than it was asked for
                                           Units{{8, 0}}, Units{{-1, 1}}, Units{{11, 2}},
                                           Units{{8, INT64_MAX}}));

TEST_F(Balance, ReturnedUnasked_IsDropped) {
  const auto workers = Start();
  harness_.Apply(UnitsReturned{workers[1], harness_.KeyOf(workers[1], 0), {{6, 6}}});
  EXPECT_EQ(harness_.core.Dropped().at("nothing was recalled"), 1);
  EXPECT_THAT(harness_.Held(workers[1], 0), SizeIs(6));
}

TEST_F(Balance, DiesBeforeItAnswers_ItsUnitsAreLeasedAgainOnce) {
  const auto workers = OneIsLate();
  const Recall recall = harness_.Last<Recall>(workers[1]);
  harness_.Gone(workers[1]);
  EXPECT_THAT(harness_.Held(workers[0], 0), SizeIs(12));
  harness_.Apply(UnitsReturned{workers[1], recall.key, {{8, 4}}});
  EXPECT_EQ(harness_.core.Dropped().at("incarnation is gone"), 1);
  harness_.Compute(workers[0], 0);
  EXPECT_THAT(harness_.Sent<Seal>(), SizeIs(1));
}

TEST_F(Balance, ReceiverDies_TheUnitsComeBack) {
  const auto workers = OneIsLate();
  harness_.Return(workers[1], {{8, 4}});
  harness_.Gone(workers[0]);
  EXPECT_THAT(harness_.Held(workers[1], 0), SizeIs(12));
  harness_.Compute(workers[1], 0);
  EXPECT_THAT(harness_.Sent<Seal>(), SizeIs(1));
}

TEST_F(Balance, AnswerAfterTheSeal_ChangesNothing) {
  const auto workers = OneIsLate();
  const Recall recall = harness_.Last<Recall>(workers[1]);
  harness_.Compute(workers[1], 0);  // crossed the recall
  EXPECT_THAT(harness_.Sent<Seal>(), SizeIs(2));
  harness_.Apply(UnitsReturned{workers[1], recall.key, {}});
  EXPECT_THAT(harness_.Effects<Expel>(), IsEmpty());
  for (Incarnation worker : workers) harness_.Step(worker, 0, "d0");
  harness_.Apply(UnitsReturned{workers[1], recall.key, {}});
  EXPECT_EQ(harness_.core.Dropped().at("window is not on the way"), 1);
  EXPECT_THAT(harness_.commits, SizeIs(1));
}

TEST_F(Balance, AnswerOfAnAttemptThatIsVoid_ChangesNothing) {
  const auto workers = OneIsLate();
  const Recall recall = harness_.Last<Recall>(workers[1]);
  UnitReport large = harness_.UnitOf(0, 11);
  large.max_exponents = {20, 0};
  harness_.special[{0, 11}] = large;
  harness_.Compute(workers[1], 0);  // crossed the recall
  ASSERT_EQ(harness_.Last<Plan>(workers[1]).key.attempt, Attempt(1));
  harness_.Apply(UnitsReturned{workers[1], recall.key, {}});
  EXPECT_EQ(harness_.core.Dropped().at("attempt is old"), 1);
  for (Incarnation worker : workers) harness_.Compute(worker, 0);
  EXPECT_THAT(harness_.Sent<Seal>(), SizeIs(2));
}

TEST_F(Balance, UnitsThatAreFree_AreNotTakenFromTheLateOne) {
  JobConfig config = SmallJob();
  config.units_per_window = 12;
  config.min_workers = 3;
  harness_.Submit(config);
  const auto workers = harness_.Start(3);
  harness_.Gone(workers[2]);  // below the minimum its units stay free
  Report(workers[1], 4, 100);
  for (int64_t unit = 0; unit < 4; ++unit) Report(workers[0], unit, 10);
  harness_.Wait(500 * kMs);
  EXPECT_THAT(harness_.Sent<Recall>(), IsEmpty());
}

// ---- leaving at once ----

class AtOnce : public Balance {
 protected:
  void Leave(Incarnation worker) { harness_.Apply(WorkerLeaving{worker, "drained", true}); }
};

TEST_F(AtOnce, BeforeTheSeal_ItsUnitsAreHandedBackAndTheOthersKeepTheirs) {
  const auto workers = Start();
  harness_.ReportUnits(workers[0], 0);
  Report(workers[1], 6, 1);
  Leave(workers[1]);
  EXPECT_THAT(harness_.Sent<Release>(), ElementsAre(Key(workers[1])));
  EXPECT_THAT(harness_.Held(workers[0], 0), SizeIs(12));
  EXPECT_EQ(harness_.Last<Plan>(workers[0]).key.attempt, Attempt(0));
  harness_.Compute(workers[0], 0);
  EXPECT_THAT(harness_.Last<Seal>(workers[0]).members, ElementsAre(workers[0]));
}

TEST_F(AtOnce, InTheReduce_FinishesThatFirst) {
  const auto workers = Start();
  for (Incarnation worker : workers) harness_.Compute(worker, 0);
  Leave(workers[1]);
  EXPECT_THAT(harness_.Sent<Abort>(), IsEmpty());
  EXPECT_THAT(harness_.Sent<Release>(), IsEmpty());
  for (Incarnation worker : workers) harness_.Step(worker, 0, "d0");
  EXPECT_THAT(harness_.commits, SizeIs(1));
  EXPECT_THAT(harness_.Sent<Release>(), ElementsAre(Key(workers[1])));
  EXPECT_THAT(harness_.Held(workers[0], 1), SizeIs(12));
}

TEST_F(AtOnce, AfterItSaidThatItLeavesAtTheWindowsEnd_GoesNow) {
  const auto workers = Start();
  harness_.Leave(workers[1]);
  EXPECT_THAT(harness_.Sent<Release>(), IsEmpty());
  Leave(workers[1]);
  EXPECT_THAT(harness_.Sent<Release>(), ElementsAre(Key(workers[1])));
  for (int64_t window = 0; window < 4; ++window) harness_.RunWindow({workers[0]}, window);
  EXPECT_THAT(harness_.commits, SizeIs(4));
}

TEST_F(AtOnce, LastHolder_WritesACheckpointFirst) {
  const auto workers = Start(1);
  harness_.RunWindow(workers, 0);
  Leave(workers[0]);
  EXPECT_THAT(harness_.Sent<Release>(), IsEmpty());
  EXPECT_EQ(harness_.Sent<CheckpointNow>().at(workers[0]).order.window, Window(1));
  harness_.WriteShard(workers[0]);
  harness_.VerifyCheckpoint(1);
  EXPECT_THAT(harness_.Sent<Release>(), SizeIs(1));
}

TEST_F(AtOnce, OwesAShard_ComputesNoMoreButStaysForIt) {
  JobConfig config = SmallJob();
  config.checkpoint_every = 1;
  harness_.Submit(config);
  const auto workers = harness_.Start(2);
  harness_.RunWindow(workers, 0);
  Leave(workers[1]);
  EXPECT_THAT(harness_.Held(workers[0], 1), SizeIs(4));
  EXPECT_THAT(harness_.Sent<Release>(), IsEmpty());
  harness_.WriteShard(workers[1]);
  EXPECT_THAT(harness_.Sent<Release>(), SizeIs(1));
}

}  // namespace
}  // namespace accrue::core
