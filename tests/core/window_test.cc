// The undisturbed path: start, plan, seal, commit, end.
#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/harness.h"

namespace accrue::core {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(Start, TooFewWorkers_WaitsAndSaysSo) {
  Harness harness;
  JobConfig config = SmallJob();
  config.min_workers = 2;
  harness.Submit(config);
  harness.Join();
  EXPECT_EQ(harness.View().state, JobState::kWaiting);
  EXPECT_THAT(harness.View().reason, HasSubstr("1 of at least 2"));
}

TEST(Start, AllLoaded_ProbesOnceThenPlansWithTheProbesExponents) {
  Harness harness;
  harness.Submit(SmallJob());
  const Incarnation worker = harness.Join();
  EXPECT_EQ(harness.Last<AssignJob>(worker).start, AssignJob::Start::kFromScratch);
  harness.Load(worker);
  EXPECT_THAT(harness.Sent<ProbeOrder>(), SizeIs(1));
  EXPECT_THAT(harness.Sent<Plan>(), IsEmpty());
  UnitsReported probe;
  probe.from = worker;
  probe.key = harness.Last<ProbeOrder>(worker).key;
  probe.probe = true;
  probe.reports = {UnitReport{.max_exponents = {0, -3}}};
  harness.Apply(probe);
  ASSERT_THAT(harness.Effects<PersistExponents>(), SizeIs(1));
  const Plan plan = harness.Sent<Plan>().at(worker);
  EXPECT_EQ(plan.exponents, NextExponents(4, {0, -3}));
  EXPECT_THAT(plan.units, ElementsAre(UnitRange{0, 4}));
  EXPECT_EQ(plan.key.term, Term(3));
  EXPECT_EQ(plan.key.incarnation, worker);
}

TEST(Window, AllComputed_SealsForAllMembersInRankOrderWithSumsOfTheUnits) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  harness.Compute(workers[0], 0);
  const Seal seal = harness.Sent<Seal>().at(workers[0]);
  EXPECT_EQ(seal.verdict, Verdict::kReduce);
  EXPECT_THAT(seal.members, ElementsAre(workers[0]));
  EXPECT_EQ(seal.valid_tokens, 64);
  EXPECT_THAT(seal.bucket_checksums, ElementsAre(uint64_t{0}));  // 4 * 2^62 modulo 2^64
  EXPECT_EQ(seal.next_exponents, NextExponents(4, {0, -3}));
  EXPECT_FALSE(seal.checkpoint.has_value());
}

TEST(Window, Stepped_CommitsDurablyBeforeItIsSaid) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  harness.Compute(workers[0], 0);
  harness.AdvanceNs(5);
  harness.Step(workers[0], 0, "d0");
  const auto kinds = harness.effects();
  const auto position = [&](auto wanted) {
    return std::find_if(kinds.begin(), kinds.end(), wanted) - kinds.begin();
  };
  const auto said = position([](const Effect& effect) {
    return std::holds_alternative<Send>(effect) &&
           std::holds_alternative<Commit>(std::get<Send>(effect).message);
  });
  const auto persisted =
      position([](const Effect& effect) { return std::holds_alternative<PersistCommit>(effect); });
  EXPECT_LT(persisted, said);
  EXPECT_LT(said, static_cast<long>(kinds.size()));
  ASSERT_THAT(harness.commits, SizeIs(1));
  const WindowRecord& record = harness.commits[0];
  EXPECT_EQ(record.window, Window(0));
  EXPECT_EQ(record.digest, "d0");
  EXPECT_EQ(record.loss, (16. + 32. + 48. + 64.) / 64.);
  EXPECT_EQ(record.tokens, 64);
  EXPECT_EQ(record.sequences, 8);
  EXPECT_EQ(record.steps, 1);
  EXPECT_EQ(record.duration_ns, 5);
  ASSERT_THAT(record.workers, SizeIs(1));
  EXPECT_EQ(record.workers[0].units, 4);
}

}  // namespace
}  // namespace accrue::core
