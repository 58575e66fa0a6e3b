// Units that two workers compute: who is asked, when the seal waits, and who is sent away.
#include <algorithm>
#include <cmath>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/core/audits.h"
#include "tests/core/audit_fixture.h"

namespace accrue::core {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// ---- which units: docs/numerics.md, section 11 ----

TEST(IsAudited, SeedWindowUnit_AsDocumented) {
  std::vector<std::pair<int64_t, int64_t>> chosen;
  for (int64_t window = 0; window < 4; ++window) {
    for (int64_t unit = 0; unit < 16; ++unit) {
      if (IsAudited(1234, 0.25, window, unit)) chosen.emplace_back(window, unit);
    }
  }
  // From the formula in another language.
  EXPECT_THAT(chosen, ElementsAre(std::pair(0, 9), std::pair(1, 2), std::pair(1, 4), std::pair(1, 7),
                                  std::pair(1, 9), std::pair(1, 12), std::pair(2, 4), std::pair(2, 9),
                                  std::pair(2, 10), std::pair(2, 11), std::pair(2, 13), std::pair(2, 15),
                                  std::pair(3, 0), std::pair(3, 12), std::pair(3, 14)));
  EXPECT_TRUE(IsAudited(1234, 0.6758, 0, 0));  // 0.675794...
  EXPECT_FALSE(IsAudited(1234, 0.6757, 0, 0));
}

TEST(IsAudited, FractionsBounds_NoneAndAll) {
  for (int64_t unit = 0; unit < 1000; ++unit) {
    EXPECT_FALSE(IsAudited(5, 0, 3, unit));
    EXPECT_TRUE(IsAudited(5, 1, 3, unit));
  }
}

// ---- who is asked ----

TEST(Audit, Planned_EachUnitToAnotherWorkerEvenly) {
  JobConfig config = AuditedJob();
  config.units_per_window = 12;
  Fleet fleet(3, config);
  std::vector<int64_t> all;
  for (Incarnation worker : fleet.workers) {
    const std::vector<int64_t> own = fleet.Held(worker, 0);
    const std::vector<int64_t> audited = fleet.Audited(worker, 0);
    EXPECT_THAT(own, SizeIs(4));
    EXPECT_THAT(audited, SizeIs(4));
    for (int64_t unit : audited) EXPECT_THAT(own, Not(Contains(unit)));
    all.insert(all.end(), audited.begin(), audited.end());
  }
  EXPECT_THAT(all, testing::UnorderedElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11));
}

TEST(Audit, PartOfTheUnits_ThoseOfTheHashAlone) {
  JobConfig config = SmallJob();
  config.units_per_window = 16;
  config.audit_fraction = 0.25;
  config.seed = 1234;
  Fleet fleet(2, config);
  EXPECT_THAT(fleet.Held(fleet.workers[1], 0), Contains(9));
  EXPECT_THAT(fleet.Audited(fleet.workers[0], 0), ElementsAre(9));
  EXPECT_THAT(fleet.Audited(fleet.workers[1], 0), IsEmpty());
}

TEST(Audit, NoneAsked_SealsAsBefore) {
  Fleet fleet(2, SmallJob());
  fleet.ComputeAll(0);
  EXPECT_THAT(fleet.Last<Seal>(fleet.workers[0]).members, SizeIs(2));
  EXPECT_THAT(fleet.AuditEntries(), IsEmpty());
}

TEST(Audit, WindowAhead_AskedWithItsPlan) {
  Fleet fleet(2);
  fleet.ReportUnits(fleet.workers[0], 0);
  EXPECT_THAT(fleet.Audited(fleet.workers[0], 1), ElementsAre(2, 3));
}

TEST(Audit, FasterWorker_AuditsMore) {
  JobConfig config = AuditedJob();
  config.units_per_window = 24;
  config.max_workers = 3;
  Fleet fleet(3, config);
  for (int64_t window = 0; window < 3; ++window) {
    for (int64_t unit : fleet.Held(fleet.workers[0], window)) {
      UnitReport slow = fleet.UnitOf(window, unit);
      slow.compute_ns = 4'000'000;
      fleet.special[{window, unit}] = slow;
    }
    if (window == 2) break;
    fleet.ComputeAll(window);
    for (Incarnation worker : fleet.workers) fleet.Step(worker, window, Harness::DigestOf(window));
  }
  EXPECT_LT(fleet.Audited(fleet.workers[0], 2).size() * 2, fleet.Audited(fleet.workers[1], 2).size());
}

// ---- the seal waits ----

TEST(Audit, NotReported_SealWaitsThenTellsTheLedger) {
  Fleet fleet(2);
  for (Incarnation worker : fleet.workers) fleet.ReportUnits(worker, 0);
  for (Incarnation worker : fleet.workers) fleet.SendComputed(worker, 0);
  EXPECT_THAT(fleet.Sent<Seal>(), IsEmpty());
  fleet.ReportAudits(fleet.workers[0], 0);
  EXPECT_THAT(fleet.Sent<Seal>(), IsEmpty());
  fleet.ReportAudits(fleet.workers[1], 0);
  EXPECT_THAT(fleet.Sent<Seal>(), SizeIs(2));
  for (Incarnation worker : fleet.workers) fleet.Step(worker, 0, "digest");
  EXPECT_THAT(fleet.commits, SizeIs(1));
  EXPECT_THAT(fleet.AuditEntries(), Contains(Field(&LedgerEntry::reason, HasSubstr("window 0: 4 units"))));
}

TEST(Audit, ReportedBeforeTheUnitsHolder_ComparedWhenThatComes) {
  Fleet fleet(3);
  const Incarnation holder = fleet.workers[0];
  for (size_t i = 1; i < 3; ++i) {
    fleet.ReportUnits(fleet.workers[i], 0);
    fleet.ReportAudits(fleet.workers[i], 0);
  }
  fleet.lies[{holder.value(), 0, 0}] = {fleet.Lie(0, 0)};
  fleet.ReportUnits(holder, 0);
  EXPECT_THAT(fleet.AuditEntries(), Contains(Field(&LedgerEntry::reason, HasSubstr("decides"))));
}

TEST(Audit, NotAskedFor_Dropped) {
  Fleet fleet(2, SmallJob());
  UnitsReported reported{
      fleet.workers[0], fleet.KeyOf(fleet.workers[0], 0), false, {fleet.UnitOf(0, 3)}, true};
  fleet.Apply(reported);
  EXPECT_EQ(fleet.core.Dropped().at("audit is not asked for"), 1);
  EXPECT_THAT(fleet.Held(fleet.workers[1], 0), ElementsAre(2, 3));
}

TEST(Audit, SaysNothingOfAccumulators_UnitIsStillItsHoldersToReport) {
  Fleet fleet(2);
  fleet.ReportUnits(fleet.workers[0], 0);
  fleet.ReportAudits(fleet.workers[0], 0);  // units 2 and 3, for their reports alone
  fleet.SendComputed(fleet.workers[0], 0);
  fleet.SendComputed(fleet.workers[1], 0);  // its accumulator is empty
  EXPECT_THAT(fleet.Sent<Seal>(), IsEmpty());
}

// ---- two do not agree ----

TEST(Audit, AuditorIsOdd_ThirdDecidesAndItIsQuarantined) {
  Fleet fleet(3);
  const Incarnation holder = fleet.workers[0], auditor = fleet.AuditorOf(0);
  fleet.lies[{auditor.value(), 0, 0}] = {fleet.Lie(0, 0)};
  fleet.ComputeOwn(0);
  fleet.ReportAudits(auditor, 0);
  const Incarnation third = fleet.AuditorOf(0);
  EXPECT_NE(third, holder);
  EXPECT_NE(third, auditor);
  fleet.ReportAudits(third, 0);
  const auto expelled = fleet.Effects<Expel>();
  ASSERT_THAT(expelled, SizeIs(1));
  EXPECT_EQ(expelled[0].worker, auditor);
  EXPECT_FALSE(expelled[0].rejoin);
  EXPECT_THAT(expelled[0].reason, HasSubstr("quarantined: unit 0 of window 0 came out differently"));
  EXPECT_THAT(fleet.AuditEntries(),
              Contains(AllOf(Field(&LedgerEntry::incarnation, auditor),
                             Field(&LedgerEntry::reason, HasSubstr("is quarantined")),
                             Field(&LedgerEntry::detail, HasSubstr("\"results\":[{\"incarnation\":")))));
}

TEST(Audit, HolderIsOdd_ItsUnitsAreLeasedAgainAndCheckedAgain) {
  JobConfig config = AuditedJob();
  config.units_per_window = 6;
  Fleet fleet(3, config);
  fleet.lies[{fleet.Id(0), 0, 0}] = {fleet.Lie(0, 0)};
  fleet.ComputeAll(0);
  for (Incarnation worker : fleet.workers) fleet.ReportAudits(worker, 0);  // the third one's word on unit 0
  EXPECT_THAT(fleet.core.Workers(), SizeIs(2));
  EXPECT_THAT(fleet.Held(fleet.workers[1], 0), SizeIs(3));
  EXPECT_THAT(fleet.Held(fleet.workers[2], 0), SizeIs(3));
  // Unit 0 is proved by two words already; the new holder's has to be that.
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 1; i < 3; ++i) {
      fleet.ReportUnits(fleet.workers[i], 0);
      fleet.ReportAudits(fleet.workers[i], 0);
    }
  }
  for (size_t i = 1; i < 3; ++i) fleet.SendComputed(fleet.workers[i], 0);
  EXPECT_THAT(fleet.Last<Seal>(fleet.workers[1]).members, ElementsAre(fleet.workers[1], fleet.workers[2]));
  EXPECT_THAT(fleet.Last<Seal>(fleet.workers[1]).bucket_checksums, ElementsAre((uint64_t{1} << 62) * 6));
}

TEST(Audit, EachFieldOfAReport_IsCompared) {
  const auto agrees = [](const std::function<void(UnitReport&)>& change) {
    Fleet fleet(2);
    UnitReport lie = fleet.UnitOf(0, 2);
    change(lie);
    fleet.lies[{fleet.Id(0), 0, 2}] = {lie};
    fleet.ComputeAll(0);
    return !fleet.Sent<Seal>().empty();
  };
  EXPECT_TRUE(agrees([](UnitReport& report) { report.compute_ns = 77; }));
  EXPECT_FALSE(agrees([](UnitReport& report) { report.loss_sum = std::nextafter(report.loss_sum, 1e9); }));
  EXPECT_FALSE(agrees([](UnitReport& report) { report.valid_tokens -= 1; }));
  EXPECT_FALSE(agrees([](UnitReport& report) { report.non_finite = true; }));
  EXPECT_FALSE(agrees([](UnitReport& report) { report.max_exponents[1] -= 1; }));
  EXPECT_FALSE(agrees([](UnitReport& report) { report.bucket_checksums[0] ^= 1; }));
  EXPECT_FALSE(agrees([](UnitReport& report) { report.vanished_elements += 1; }));
}

TEST(Audit, FourWorkersThreeResults_FourthDecidesAndBothOthersGo) {
  Fleet fleet(4);
  const Incarnation auditor = fleet.AuditorOf(0);
  fleet.lies[{auditor.value(), 0, 0}] = {fleet.Lie(0, 0, 1)};
  fleet.ComputeOwn(0);
  fleet.ReportAudits(auditor, 0);
  const Incarnation third = fleet.AuditorOf(0);
  fleet.lies[{third.value(), 0, 0}] = {fleet.Lie(0, 0, 2)};
  fleet.ReportAudits(third, 0);
  EXPECT_THAT(fleet.Effects<Expel>(), IsEmpty());
  fleet.ReportAudits(fleet.AuditorOf(0), 0);
  std::vector<Incarnation> left;
  for (const WorkerView& worker : fleet.core.Workers()) left.push_back(worker.incarnation);
  EXPECT_THAT(left,
              AllOf(SizeIs(2), Contains(fleet.workers[0]), Not(Contains(auditor)), Not(Contains(third))));
}

// ---- without a third worker ----

TEST(Audit, TwoWorkers_WhoContradictsItselfIsQuarantined) {
  for (const size_t liar : {0, 1}) {
    Fleet fleet(2);
    fleet.lies[{fleet.Id(liar), 0, 0}] = {fleet.Lie(0, 0), fleet.UnitOf(0, 0)};
    fleet.ComputeAll(0);
    EXPECT_THAT(fleet.AuditEntries(),
                Contains(Field(&LedgerEntry::reason, HasSubstr("compute it once more"))));
    EXPECT_THAT(fleet.Audited(fleet.workers[0], 0), ElementsAre(0));
    EXPECT_THAT(fleet.Audited(fleet.workers[1], 0), ElementsAre(0));
    fleet.ReportAudits(fleet.workers[1 - liar], 0);
    EXPECT_THAT(fleet.Effects<Expel>(), IsEmpty());
    fleet.ReportAudits(fleet.workers[liar], 0);
    ASSERT_THAT(fleet.Effects<Expel>(), SizeIs(1));
    EXPECT_EQ(fleet.Effects<Expel>()[0].worker, fleet.workers[liar]);
    EXPECT_THAT(fleet.Effects<Expel>()[0].reason,
                HasSubstr("computed unit 0 of window 0 twice, with checksums"));
    // The other goes on alone.
    fleet.Compute(fleet.workers[1 - liar], 0);
    EXPECT_THAT(fleet.Last<Seal>(fleet.workers[1 - liar]).bucket_checksums, ElementsAre(uint64_t{0}));
  }
}

TEST(Audit, TwoWorkersEachSteadfast_AllGoBack_TheThirdTimeTheJobFailsWithBothValues) {
  Fleet fleet(2);
  for (int time = 1; time <= 3; ++time) {
    fleet.lies[{fleet.Id(1), 0, 0}] = {fleet.Lie(0, 0)};
    fleet.ComputeAll(0);
    for (Incarnation worker : fleet.workers) fleet.ReportAudits(worker, 0);
    if (time == 3) break;
    ASSERT_EQ(fleet.View().state, JobState::kStarting);
    ASSERT_EQ(fleet.View().timeline, Timeline(time));
    fleet.LoadAgain();
  }
  EXPECT_EQ(fleet.View().state, JobState::kFailed);
  EXPECT_THAT(fleet.View().reason, AllOf(HasSubstr("unit 0 of window 0"),
                                         HasSubstr("4000000000000000 and 4000000000000001 of bucket 0"),
                                         HasSubstr("no third worker")));
}

TEST(Audit, TwoWorkersEachSteadfastBeforeTheirManifests_TheLastManifestSendsAllBack) {
  Fleet fleet(2);
  fleet.lies[{fleet.Id(1), 0, 0}] = {fleet.Lie(0, 0)};
  for (Incarnation worker : fleet.workers) fleet.ReportUnits(worker, 0);
  for (int round = 0; round < 2; ++round) {
    for (Incarnation worker : fleet.workers) fleet.ReportAudits(worker, 0);
  }
  // A wrong parameter would explain it, so the hashes are awaited: nothing else is said of the unit any more.
  fleet.SendComputed(fleet.workers[0], 0);
  ASSERT_EQ(fleet.View().state, JobState::kRunning);
  fleet.SendComputed(fleet.workers[1], 0);
  EXPECT_EQ(fleet.View().state, JobState::kStarting);
  EXPECT_EQ(fleet.View().timeline, Timeline(1));
  EXPECT_THAT(fleet.AuditEntries(), Contains(Field(&LedgerEntry::reason, HasSubstr("no third worker"))));
}

TEST(Audit, TwoWorkersAParameterChangesAfterItsHashWasTold_AllGoBackAndGoOn) {
  Fleet fleet(2);
  fleet.ComputeOwn(0);
  fleet.lies[{fleet.Id(1), 0, 0}] = {fleet.Lie(0, 0)};
  for (int round = 0; round < 2; ++round) {
    for (Incarnation worker : fleet.workers) fleet.ReportAudits(worker, 0);
  }
  ASSERT_EQ(fleet.View().state, JobState::kStarting);
  EXPECT_THAT(fleet.ledger, Contains(Field(&LedgerEntry::reason, HasSubstr("nobody holds the state"))));
  fleet.lies.clear();
  fleet.LoadAgain();
  fleet.ComputeAll(0);
  EXPECT_THAT(fleet.Sent<Seal>(), SizeIs(2));
}

TEST(Audit, TwoWorkersOneOfThemWithWrongParameters_ItsHashTells) {
  Fleet fleet(2);
  fleet.parameter_hash = "after-0";
  fleet.ComputeAll(0);
  for (Incarnation worker : fleet.workers) fleet.Step(worker, 0, "digest");
  ASSERT_THAT(fleet.commits, SizeIs(1));
  const Incarnation right = fleet.workers[0], wrong = fleet.workers[1];
  // Its results are wrong the same way each time.
  fleet.lies[{wrong.value(), 1, 0}] = {fleet.Lie(1, 0)};
  for (Incarnation worker : fleet.workers) fleet.ReportUnits(worker, 1);
  for (int round = 0; round < 2; ++round) {
    for (Incarnation worker : fleet.workers) fleet.ReportAudits(worker, 1);
  }
  EXPECT_EQ(fleet.View().state, JobState::kRunning);
  fleet.SendComputed(right, 1, "after-0");
  EXPECT_EQ(fleet.View().state, JobState::kRunning);
  fleet.SendComputed(wrong, 1, "flipped");
  ASSERT_THAT(fleet.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(fleet.Effects<Expel>()[0].worker, wrong);
  EXPECT_THAT(fleet.Effects<Expel>()[0].reason, HasSubstr("parameters of hash flipped"));
  EXPECT_EQ(fleet.View().state, JobState::kRunning);
}

TEST(Audit, OtherIsGoneAfterAMismatch_WhoIsLeftComputesItTwiceAndGoesOn) {
  Fleet fleet(2);
  fleet.lies[{fleet.Id(0), 0, 0}] = {fleet.Lie(0, 0)};
  fleet.ReportUnits(fleet.workers[0], 0);
  fleet.ReportUnits(fleet.workers[1], 0);
  fleet.ReportAudits(fleet.workers[1], 0);
  fleet.Gone(fleet.workers[0]);
  fleet.ReportUnits(fleet.workers[1], 0);
  fleet.ReportAudits(fleet.workers[1], 0);  // once more, as it was asked
  fleet.SendComputed(fleet.workers[1], 0);
  EXPECT_THAT(fleet.Sent<Seal>(), SizeIs(1));
  EXPECT_THAT(fleet.AuditEntries(), Contains(Field(&LedgerEntry::reason, HasSubstr("who is left"))));
}

TEST(Audit, OneWorker_LedgerSaysOnceThatAuditsWait) {
  Fleet fleet(1);
  for (int64_t window = 0; window < 3; ++window) fleet.RunWindow(fleet.workers, window);
  EXPECT_THAT(fleet.commits, SizeIs(3));
  EXPECT_THAT(fleet.AuditEntries(),
              ElementsAre(Field(&LedgerEntry::reason, HasSubstr("wait for a second worker"))));
}

// ---- deaths and moves ----

TEST(Audit, AuditorDies_AnotherIsAsked) {
  Fleet fleet(3);
  const std::vector<int64_t> lost = fleet.Audited(fleet.workers[2], 0);
  ASSERT_FALSE(lost.empty());
  fleet.Gone(fleet.workers[2]);
  for (int64_t unit : lost) EXPECT_NE(fleet.AuditorOf(unit), fleet.workers[2]);
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < 2; ++i) {
      fleet.ReportUnits(fleet.workers[i], 0);
      fleet.ReportAudits(fleet.workers[i], 0);
      fleet.SendComputed(fleet.workers[i], 0);
    }
  }
  EXPECT_THAT(fleet.Last<Seal>(fleet.workers[0]).members, SizeIs(2));
}

TEST(Audit, OnlyAuditorDies_SealGoesOn) {
  Fleet fleet(2);
  fleet.Compute(fleet.workers[0], 0);
  fleet.Gone(fleet.workers[1]);
  fleet.Compute(fleet.workers[0], 0);
  EXPECT_THAT(fleet.Sent<Seal>(), SizeIs(1));
}

TEST(Audit, HolderDiesAfterItsReport_NextHoldersReportIsCompared) {
  Fleet fleet(3);
  const Incarnation holder = fleet.workers[0];
  const std::vector<int64_t> units = fleet.Held(holder, 0);
  fleet.ComputeAll(0);
  EXPECT_THAT(fleet.Last<Seal>(holder).members, SizeIs(3));  // all settled: nobody was asked twice

  Fleet again(3);
  again.ReportUnits(again.workers[0], 0);
  for (size_t i = 1; i < 3; ++i) {
    again.ReportUnits(again.workers[i], 0);
    again.ReportAudits(again.workers[i], 0);
  }
  again.Gone(again.workers[0]);
  const size_t next = again.Held(again.workers[1], 0).front() == 0 ? 1 : 2;
  again.lies[{again.Id(next), 0, 0}] = {again.Lie(0, 0)};
  for (size_t i = 1; i < 3; ++i) {
    again.ReportUnits(again.workers[i], 0);
    again.ReportAudits(again.workers[i], 0);
  }
  // Whoever audited unit 0, the dead one's word and one more are against it; or its own word is.
  bool accused = false;
  for (const LedgerEntry& entry : again.AuditEntries()) {
    accused |=
        entry.incarnation == again.workers[next] && entry.reason.find("is quarantined") != std::string::npos;
  }
  EXPECT_TRUE(accused);
}

TEST(Audit, AuditorBecomesTheHolder_AThirdWorkerIsAsked) {
  Fleet fleet(3);
  const int64_t unit = fleet.Held(fleet.workers[0], 0).front();
  fleet.Gone(fleet.workers[0]);
  for (size_t i = 1; i < 3; ++i) {
    const std::vector<int64_t> own = fleet.Held(fleet.workers[i], 0);
    if (std::count(own.begin(), own.end(), unit) == 0) continue;
    EXPECT_THAT(fleet.Audited(fleet.workers[3 - i], 0), Contains(unit));
  }
}

TEST(Audit, QuarantinedWorkersWords_CountForNothing) {
  JobConfig config = AuditedJob();
  config.units_per_window = 12;
  Fleet fleet(3, config);
  // The last worker is right about one unit of another, and wrong about the next.
  const Incarnation liar = fleet.workers[2];
  const std::vector<int64_t> audited = fleet.Audited(liar, 0);
  ASSERT_THAT(audited, SizeIs(4));
  fleet.lies[{liar.value(), 0, audited[1]}] = {fleet.Lie(0, audited[1])};
  fleet.ComputeAll(0);
  fleet.ReportAudits(fleet.workers[0], 0);
  fleet.ReportAudits(fleet.workers[1], 0);
  ASSERT_THAT(fleet.core.Workers(), SizeIs(2));
  fleet.Compute(fleet.workers[0], 0);
  fleet.Compute(fleet.workers[1], 0);
  EXPECT_THAT(fleet.Sent<Seal>(), IsEmpty());
  EXPECT_NE(fleet.AuditorOf(audited[0]), Incarnation());  // to be confirmed by somebody else
}

TEST(Audit, Replayed_WordsOfTheVoidAttemptAreForgotten) {
  Fleet fleet(2);
  for (int64_t unit = 0; unit < 4; ++unit) {
    UnitReport large = fleet.UnitOf(0, unit);
    large.max_exponents = {40, 40};
    fleet.special[{0, unit}] = large;
  }
  fleet.ComputeAll(0);
  EXPECT_THAT(fleet.Sent<Replay>(), SizeIs(2));
  for (Incarnation worker : fleet.workers) EXPECT_THAT(fleet.Audited(worker, 0), SizeIs(2));
  for (Incarnation worker : fleet.workers) fleet.ReportUnits(worker, 0);
  for (Incarnation worker : fleet.workers) fleet.SendComputed(worker, 0);
  EXPECT_THAT(fleet.Sent<Seal>(), IsEmpty());
  for (Incarnation worker : fleet.workers) fleet.ReportAudits(worker, 0);
  EXPECT_THAT(fleet.Sent<Seal>(), SizeIs(2));
}

}  // namespace
}  // namespace accrue::core
