// A window without deaths: plan, verdict, seal, step, commit.
#include <algorithm>
#include <bit>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/harness.h"

namespace accrue::core {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kQuarter = uint64_t{1} << 62;

TEST(Window, Planned_ContiguousSharesWithProbesExponentsAndScalars) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  EXPECT_THAT(harness.Effects<PersistExponents>(), SizeIs(1));
  const auto plans = harness.Sent<Plan>();
  EXPECT_THAT(plans.at(workers[0]).units, ElementsAre(UnitRange{0, 2}));
  EXPECT_THAT(plans.at(workers[1]).units, ElementsAre(UnitRange{2, 2}));
  EXPECT_EQ(plans.at(workers[0]).exponents, NextExponents(4, {0, -3}));
  EXPECT_EQ(plans.at(workers[0]).key.term, Term(3));
  EXPECT_EQ(plans.at(workers[0]).key.incarnation, workers[0]);
  const StepScalars scalars = ScalarsOf(SmallJob().schedule, 0, 0);
  EXPECT_EQ(plans.at(workers[0]).scalars.bias_correction1_bits, scalars.bias_correction1_bits);
}

TEST(Window, HalfReported_NextIsPlannedWithoutExponents) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  harness.ReportUnits(workers[0], 0);
  const auto plans = harness.Sent<Plan>();
  ASSERT_THAT(plans, SizeIs(2));
  EXPECT_EQ(plans.at(workers[1]).key.window, Window(1));
  EXPECT_THAT(plans.at(workers[1]).exponents, IsEmpty());
  EXPECT_EQ(plans.at(workers[1]).scalars.bias_correction1_bits,
            ScalarsOf(SmallJob().schedule, 1, 1).bias_correction1_bits);
  harness.ReportUnits(workers[1], 0);
  EXPECT_THAT(harness.Sent<Plan>(), IsEmpty());  // never two ahead
}

TEST(Window, OnlyThePlanAhead_MayWaitToBeSent) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto waits = [&] {
    std::vector<bool> waits;
    for (const Send& send : harness.Effects<Send>()) waits.push_back(send.may_wait);
    return waits;
  };
  const auto workers = harness.Start(2);
  EXPECT_THAT(waits(), ElementsAre(false, false));  // Plans of window 0
  harness.ReportUnits(workers[0], 0);
  EXPECT_THAT(waits(), ElementsAre(true, true));  // of window 1
  harness.Gone(workers[0]);
  EXPECT_THAT(waits(), ElementsAre(false, true));  // its units, of both
  harness.Compute(workers[1], 0);
  EXPECT_THAT(waits(), ElementsAre(false));  // the Seal
}

TEST(Window, AllComputed_SealsForAllMembersInRankOrderWithSumsOfTheUnits) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  harness.Compute(workers[0], 0);
  EXPECT_THAT(harness.Sent<Seal>(), IsEmpty());
  harness.ReportUnits(workers[1], 0);
  EXPECT_THAT(harness.Sent<Seal>(), IsEmpty());  // reported, but not proved by a manifest
  harness.SendComputed(workers[1], 0);
  const auto seals = harness.Sent<Seal>();
  ASSERT_THAT(seals, SizeIs(2));
  const Seal& seal = seals.at(workers[1]);
  EXPECT_EQ(seal.verdict, Verdict::kReduce);
  EXPECT_THAT(seal.members, ElementsAre(workers[0], workers[1]));
  EXPECT_EQ(seal.valid_tokens, 64);
  EXPECT_THAT(seal.bucket_checksums, ElementsAre(uint64_t{0}));  // 4 * 2^62 modulo 2^64
  EXPECT_EQ(seal.next_exponents, NextExponents(4, {0, -3}));
  EXPECT_FALSE(seal.checkpoint.has_value());
}

TEST(Window, Stepped_CommitIsDurableBeforeItIsSaid) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  harness.Compute(workers[0], 0);
  harness.AdvanceNs(5);
  harness.Step(workers[0], 0, "d0");
  const std::vector<Effect> effects = harness.effects();
  const auto position = [&](auto wanted) { return std::find_if(effects.begin(), effects.end(), wanted); };
  const auto said = position([](const Effect& effect) {
    return std::holds_alternative<Send>(effect) &&
           std::holds_alternative<Commit>(std::get<Send>(effect).message);
  });
  ASSERT_NE(said, effects.end());
  EXPECT_LT(position([](const Effect& effect) { return std::holds_alternative<PersistCommit>(effect); }),
            said);
  ASSERT_THAT(harness.commits, SizeIs(1));
  const WindowRecord& record = harness.commits[0];
  EXPECT_EQ(record.window, Window(0));
  EXPECT_EQ(record.digest, "d0");
  EXPECT_EQ(record.loss, (16. + 32. + 48. + 64.) / 64.);
  EXPECT_EQ(record.gradient_norm, 1.5);
  EXPECT_EQ(record.tokens, 64);
  EXPECT_EQ(record.sequences, 8);
  EXPECT_EQ(record.steps, 1);
  EXPECT_EQ(record.duration_ns, 5);
  EXPECT_EQ(record.next_exponents, NextExponents(4, {0, -3}));
  ASSERT_THAT(record.workers, SizeIs(1));
  EXPECT_EQ(record.workers[0].units, 4);
}

TEST(Window, Committed_LedgerTellsPlanSealAndCommit) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  harness.RunWindow(workers, 0);
  for (const char* kind : {"submitted", "worker", "epoch", "plan", "seal", "commit"}) {
    EXPECT_THAT(harness.ledger, Contains(AllOf(Field(&LedgerEntry::kind, kind),
                                               Field(&LedgerEntry::reason, testing::Not(IsEmpty())))));
  }
}

TEST(Window, VanishedElements_AsFractionOfUnitsTimesParameters) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  UnitReport report = harness.UnitOf(0, 2);
  report.vanished_elements = 10;
  harness.special[{0, 2}] = report;
  harness.RunWindow(workers, 0);
  EXPECT_DOUBLE_EQ(harness.commits[0].vanished_fraction, 10. / (4 * 100));
}

TEST(Window, UnequalUnitTimes_NextPlanFollowsThem) {
  Harness harness;
  JobConfig config = SmallJob();
  config.units_per_window = 12;
  harness.Submit(config);
  const auto workers = harness.Start(2);
  for (int64_t unit = 6; unit < 12; ++unit) {
    UnitReport slow = harness.UnitOf(0, unit);
    slow.compute_ns = 3'000'000;
    harness.special[{0, unit}] = slow;
  }
  harness.Compute(workers[1], 0);
  harness.Compute(workers[0], 0);
  harness.Step(workers[0], 0, "d");
  harness.Step(workers[1], 0, "d");
  harness.Compute(workers[0], 1);  // planned when only one was measured
  harness.Compute(workers[1], 1);
  EXPECT_THAT(harness.Held(workers[0], 2), SizeIs(9));
  EXPECT_THAT(harness.Held(workers[1], 2), SizeIs(3));
}

// Two workers with 12 units a window: how many the second has of each window, its units taking so long.
std::vector<size_t> SharesOfSecond(int64_t windows, const std::function<int64_t(int64_t unit_of_its)>& time_ns) {
  Harness harness;
  JobConfig config = SmallJob();
  config.units_per_window = 12;
  config.total_windows = config.schedule.total_windows = windows + 2;
  harness.Submit(config);
  const auto workers = harness.Start(2);
  std::vector<size_t> shares;
  int64_t computed = 0;
  for (int64_t window = 0; window < windows; ++window) {
    const std::vector<int64_t> units = harness.Held(workers[1], window);
    shares.push_back(units.size());
    for (int64_t unit : units) {
      UnitReport report = harness.UnitOf(window, unit);
      report.compute_ns = time_ns(computed++);
      harness.special[{window, unit}] = report;
    }
    harness.RunWindow({workers[1], workers[0]}, window);
  }
  return shares;
}

TEST(Window, FirstUnitOfAWorkerIsSlow_SoonForgotten) {
  const auto shares = SharesOfSecond(4, [](int64_t unit) { return unit == 0 ? 130'000'000 : 1'000'000; });
  EXPECT_THAT(shares, ElementsAre(6, 6, 6, 6));
}

// It gets nothing, so it is not measured any more: that must not be the end of it.
TEST(Window, SlowForAWhile_GetsUnitsAgain) {
  const auto shares = SharesOfSecond(200, [](int64_t unit) { return unit < 6 ? 100'000'000 : 1'000'000; });
  EXPECT_EQ(shares[2], 0u);
  EXPECT_EQ(shares.back(), 6u);
}

TEST(Window, SlowForEver_IsTriedNowAndThen) {
  const auto shares = SharesOfSecond(400, [](int64_t) { return 30'000'000; });
  const auto tries = 400 - std::count(shares.begin() + 2, shares.end(), 0u);
  EXPECT_GE(tries, 4);
  EXPECT_LE(tries, 16);
  EXPECT_LE(*std::max_element(shares.begin() + 2, shares.end()), 1u);
}

// ---- verdicts ----

TEST(Verdict, NonFiniteUnit_SkipsKeepsExponentsAndCorrectsNextScalars) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  const std::vector<int> exponents = harness.Last<Plan>(workers[0]).exponents;
  UnitReport bad = harness.UnitOf(0, 1);
  bad.non_finite = true;
  bad.max_exponents = {500, 500};  // a skip is decided before a replay
  harness.special[{0, 1}] = bad;
  harness.ReportUnits(workers[0], 0);
  EXPECT_EQ(harness.Last<Plan>(workers[0]).scalars.bias_correction1_bits,
            ScalarsOf(SmallJob().schedule, 1, 1).bias_correction1_bits);
  harness.SendComputed(workers[0], 0);
  const Seal seal = harness.Sent<Seal>().at(workers[0]);
  EXPECT_EQ(seal.verdict, Verdict::kSkip);
  EXPECT_EQ(seal.next_exponents, exponents);
  const Plan corrected = harness.Sent<Plan>().at(workers[0]);
  EXPECT_EQ(corrected.key.window, Window(1));
  EXPECT_THAT(corrected.units, IsEmpty());
  EXPECT_EQ(corrected.scalars.bias_correction1_bits,
            ScalarsOf(SmallJob().schedule, 1, 0).bias_correction1_bits);
  harness.Step(workers[0], 0, "d");
  EXPECT_TRUE(harness.commits.at(0).skipped);
  EXPECT_EQ(harness.commits[0].steps, 0);
  EXPECT_EQ(harness.View().windows_skipped, 1);
}

TEST(Verdict, NoValidToken_Skips) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  for (int64_t unit = 0; unit < 4; ++unit) {
    UnitReport empty = harness.UnitOf(0, unit);
    empty.valid_tokens = 0;
    empty.loss_sum = 0;
    harness.special[{0, unit}] = empty;
  }
  harness.Compute(workers[0], 0);
  EXPECT_EQ(harness.Sent<Seal>().at(workers[0]).verdict, Verdict::kSkip);
  harness.Step(workers[0], 0, "d");
  EXPECT_EQ(harness.commits.at(0).loss, 0);
}

TEST(Verdict, Overflow_ReplaysOnceWithExponentsOfTheAttempt) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  UnitReport large = harness.UnitOf(0, 3);
  large.max_exponents = {11, -3};  // ten bits of headroom and one more
  harness.special[{0, 3}] = large;
  harness.Compute(workers[0], 0);
  harness.Compute(workers[1], 0);
  EXPECT_THAT(harness.Sent<Seal>(), IsEmpty());
  ASSERT_THAT(harness.Effects<PersistAttempt>(), SizeIs(1));
  EXPECT_EQ(harness.Effects<PersistAttempt>()[0].attempt, Attempt(1));
  EXPECT_THAT(harness.Sent<Replay>(), SizeIs(2));
  const Plan plan = harness.Sent<Plan>().at(workers[1]);
  EXPECT_EQ(plan.key.attempt, Attempt(1));
  EXPECT_EQ(plan.exponents, NextExponents(4, {11, -3}));
  EXPECT_THAT(plan.units, ElementsAre(UnitRange{2, 2}));
  harness.RunWindow(workers, 0);
  ASSERT_THAT(harness.commits, SizeIs(1));
  EXPECT_EQ(harness.commits[0].attempt, Attempt(1));
  EXPECT_EQ(harness.View().replays, 1);
}

TEST(Verdict, LargestThatFits_DoesNotReplay) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  UnitReport large = harness.UnitOf(0, 3);
  large.max_exponents = {10, -3};
  harness.special[{0, 3}] = large;
  harness.Compute(workers[0], 0);
  EXPECT_THAT(harness.Sent<Seal>(), SizeIs(1));
}

TEST(Verdict, FastMode_NeitherProbesNorReplays) {
  Harness harness;
  JobConfig config = SmallJob();
  config.exact = false;
  harness.Submit(config);
  const Incarnation worker = harness.Join();
  harness.Load(worker);
  EXPECT_THAT(harness.Sent<ProbeOrder>(), IsEmpty());
  UnitReport large = harness.UnitOf(0, 0);
  large.max_exponents = {120, 120};
  harness.special[{0, 0}] = large;
  harness.Compute(worker, 0);
  const Seal seal = harness.Sent<Seal>().at(worker);
  EXPECT_EQ(seal.verdict, Verdict::kReduce);
  EXPECT_THAT(seal.next_exponents, IsEmpty());
  EXPECT_THAT(seal.bucket_checksums, IsEmpty());
}

// ---- what does not fit ----

TEST(Reports, OfAnOlderAttempt_AreDropped) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  UnitsReported old{workers[0], harness.KeyOf(workers[0], 0), false, {harness.UnitOf(0, 0)}};
  old.key.attempt = Attempt(7);
  harness.Apply(old);
  EXPECT_EQ(harness.core.Dropped().at("attempt is old"), 1);
  old.key = harness.KeyOf(workers[0], 0);
  old.key.term = Term(2);
  harness.Apply(old);
  EXPECT_EQ(harness.core.Dropped().at("term is old"), 1);
  old.key = harness.KeyOf(workers[0], 0);
  old.key.timeline = Timeline(9);
  harness.Apply(old);
  EXPECT_EQ(harness.core.Dropped().at("timeline is old"), 1);
}

TEST(Reports, Twice_CountOnce) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  const UnitsReported report{workers[0], harness.KeyOf(workers[0], 0), false, {harness.UnitOf(0, 0)}};
  harness.Apply(report);
  harness.Apply(report);
  EXPECT_EQ(harness.core.Dropped().at("unit is reported twice"), 1);
}

TEST(Reports, OfAUnitThatAnotherHolds_IsDroppedAndItsHoldersCounts) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  const int64_t unit = harness.Held(workers[0], 0).at(0);
  harness.Apply(UnitsReported{workers[1], harness.KeyOf(workers[1], 0), false, {harness.UnitOf(0, unit)}});
  EXPECT_EQ(harness.core.Dropped().at("unit is not leased to the worker"), 1);
  harness.RunWindow(workers, 0);
  EXPECT_EQ(harness.core.Dropped().count("unit is reported twice"), 0u);
  ASSERT_EQ(harness.commits.size(), 1u);
}

TEST(Reports, OfAnotherShape_ExpelTheWorker) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  UnitReport odd = harness.UnitOf(0, 0);
  odd.max_exponents = {1};
  harness.Apply(UnitsReported{workers[0], harness.KeyOf(workers[0], 0), false, {odd}});
  ASSERT_THAT(harness.Effects<Expel>(), SizeIs(1));
  EXPECT_THAT(harness.Held(workers[1], 0), ElementsAre(0, 1, 2, 3));
}

TEST(Computed, ManifestBeyondTheLeases_ExpelsTheWorkerAndLeasesItsUnitsAgain) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  harness.ReportUnits(workers[0], 0);
  harness.Apply(WindowComputed{workers[0], harness.KeyOf(workers[0], 0), "p", {{false, {{0, 3}}}}});
  ASSERT_THAT(harness.Effects<Expel>(), SizeIs(1));
  EXPECT_TRUE(harness.Effects<Expel>()[0].rejoin);
  EXPECT_THAT(harness.Held(workers[1], 0), ElementsAre(0, 1, 2, 3));
  harness.RunWindow({workers[1]}, 0);
  EXPECT_THAT(harness.commits, SizeIs(1));
}

TEST(Seal, OneParameterHashDiffers_QuarantinesItAndComputesItsUnitsAnew) {
  Harness harness;
  JobConfig config = SmallJob();
  config.units_per_window = 6;
  harness.Submit(config);
  const auto workers = harness.Start(3);
  for (Incarnation worker : workers) harness.ReportUnits(worker, 0);
  harness.SendComputed(workers[0], 0, "right");
  harness.SendComputed(workers[1], 0, "wrong");
  harness.SendComputed(workers[2], 0, "right");
  ASSERT_THAT(harness.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(harness.Effects<Expel>()[0].worker, workers[1]);
  EXPECT_FALSE(harness.Effects<Expel>()[0].rejoin);
  EXPECT_THAT(harness.Sent<Seal>(), IsEmpty());
  harness.RunWindow({workers[0], workers[2]}, 0);
  ASSERT_THAT(harness.commits, SizeIs(1));
  EXPECT_EQ(harness.commits[0].workers[0].units + harness.commits[0].workers[1].units, 6);
}

TEST(Commit, StrictMajority_QuarantinesTheRestAndCommits) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(3);
  for (Incarnation worker : workers) harness.Compute(worker, 0);
  harness.Step(workers[0], 0, "right");
  harness.Step(workers[1], 0, "right");
  EXPECT_THAT(harness.commits, IsEmpty());  // all are heard first
  harness.Step(workers[2], 0, "wrong");
  ASSERT_THAT(harness.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(harness.Effects<Expel>()[0].worker, workers[2]);
  EXPECT_THAT(harness.Effects<Expel>()[0].reason, AllOf(HasSubstr("quarantined"), HasSubstr("wrong")));
  ASSERT_THAT(harness.commits, SizeIs(1));
  EXPECT_EQ(harness.commits[0].digest, "right");
  EXPECT_THAT(harness.Sent<Commit>(), SizeIs(2));
}

TEST(Commit, SecondWindow_IsSealedOnlyAfterIt) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  for (Incarnation worker : workers) harness.Compute(worker, 0);
  harness.Step(workers[0], 0, "d");
  harness.Compute(workers[0], 1);  // runs ahead
  EXPECT_THAT(harness.Sent<Seal>(), IsEmpty());
  harness.Step(workers[1], 0, "d");
  harness.Compute(workers[1], 1);
  EXPECT_EQ(harness.Sent<Seal>().at(workers[0]).key.window, Window(1));
  EXPECT_EQ(harness.Last<Seal>(workers[0]).communicator, harness.Last<Seal>(workers[1]).communicator);
}

}  // namespace
}  // namespace accrue::core
