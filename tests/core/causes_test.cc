// Reports that would skip or replay a window: who checks them first.
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/audit_fixture.h"

namespace accrue::core {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// ---- what would cause a skip or a replay is checked first ----

struct Cause {
  const char* name;
  std::function<void(UnitReport&)> change;
};

class Causes : public ::testing::TestWithParam<Cause> {};

TEST_P(Causes, OneWorkersWord_IsCheckedByAnother) {
  Fleet fleet(3, SmallJob());
  const int64_t unit = fleet.Held(fleet.workers[0], 0).front();
  UnitReport report = fleet.UnitOf(0, unit);
  GetParam().change(report);
  fleet.special[{0, unit}] = report;
  fleet.ComputeOwn(0);
  EXPECT_THAT(fleet.Sent<Seal>(), IsEmpty());
  EXPECT_THAT(fleet.Sent<Replay>(), IsEmpty());
  for (Incarnation worker : fleet.workers) fleet.ReportAudits(worker, 0);
  EXPECT_TRUE(!fleet.Sent<Replay>().empty() || fleet.Last<Seal>(fleet.workers[0]).verdict == Verdict::kSkip);
  EXPECT_THAT(fleet.AuditEntries(),
              Contains(Field(&LedgerEntry::reason, HasSubstr("is checked: its gradient"))));
}

TEST_P(Causes, AFlippedBit_SendsItsDeviceAwayAndNothingElse) {
  Fleet fleet(3, SmallJob());
  const Incarnation liar = fleet.workers[0];
  const int64_t unit = fleet.Held(liar, 0).front();
  UnitReport report = fleet.UnitOf(0, unit);
  GetParam().change(report);
  fleet.lies[{liar.value(), 0, unit}] = {report};
  fleet.ComputeAll(0);
  for (int round = 0; round < 2; ++round) {
    for (Incarnation worker : fleet.workers) fleet.ReportAudits(worker, 0);
  }
  EXPECT_THAT(fleet.core.Workers(), SizeIs(2));
  for (size_t i = 1; i < 3; ++i) fleet.Compute(fleet.workers[i], 0);
  EXPECT_EQ(fleet.Last<Seal>(fleet.workers[1]).verdict, Verdict::kReduce);
  EXPECT_EQ(fleet.View().replays, 0);
}

TEST_P(Causes, OneWorker_ItsWordIsTaken) {
  Fleet fleet(1, SmallJob());
  UnitReport report = fleet.UnitOf(0, 1);
  GetParam().change(report);
  fleet.special[{0, 1}] = report;
  fleet.ComputeAll(0);
  EXPECT_TRUE(!fleet.Sent<Replay>().empty() || fleet.Last<Seal>(fleet.workers[0]).verdict == Verdict::kSkip);
}

TEST_P(Causes, OneWorkerBelowTheLeast_IsCheckedByTheNextToCome) {
  JobConfig config = SmallJob();
  config.units_per_window = 1;
  config.min_workers = 2;
  Fleet fleet(2, config);
  UnitReport report = fleet.UnitOf(0, 0);
  GetParam().change(report);
  fleet.special[{0, 0}] = report;
  const Incarnation holder = fleet.workers[0];
  ASSERT_THAT(fleet.Held(holder, 0), ElementsAre(0));
  fleet.Gone(fleet.workers[1]);
  fleet.Compute(holder, 0);
  EXPECT_THAT(fleet.Sent<Replay>(), IsEmpty());
  EXPECT_THAT(fleet.Sent<Seal>(), IsEmpty());
  const Incarnation next = fleet.Join();
  fleet.Load(next);
  fleet.Synced(holder, "scratch");
  fleet.Synced(next, "scratch");
  EXPECT_THAT(fleet.Audited(next, 0), ElementsAre(0));
  fleet.SendComputed(next, 0);
  fleet.ReportAudits(next, 0);
  EXPECT_TRUE(!fleet.Sent<Replay>().empty() || fleet.Last<Seal>(holder).verdict == Verdict::kSkip);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, Causes,
    ::testing::Values(Cause{"NotFinite", [](UnitReport& report) { report.non_finite = true; }},
                      Cause{"Overflow", [](UnitReport& report) { report.max_exponents[1] = 30; }}),
    [](const auto& info) { return info.param.name; });

TEST(Audit, ManyUnitsNotFinite_OneIsChecked) {
  Fleet fleet(2, SmallJob());
  for (int64_t unit = 0; unit < 4; ++unit) {
    UnitReport report = fleet.UnitOf(0, unit);
    report.non_finite = true;
    fleet.special[{0, unit}] = report;
  }
  fleet.ComputeOwn(0);
  EXPECT_THAT(fleet.Audited(fleet.workers[0], 0), IsEmpty());
  EXPECT_THAT(fleet.Audited(fleet.workers[1], 0), ElementsAre(0));
}

TEST(Audit, ManyUnitsTooLarge_TheLargestOfEachTensorAreChecked) {
  Fleet fleet(2, SmallJob());
  for (int64_t unit = 0; unit < 4; ++unit) {
    UnitReport report = fleet.UnitOf(0, unit);
    report.max_exponents = {unit == 1 ? 41 : 40, unit == 3 ? 31 : 30};
    fleet.special[{0, unit}] = report;
  }
  fleet.ComputeOwn(0);
  EXPECT_THAT(fleet.Audited(fleet.workers[0], 0), ElementsAre(3));
  EXPECT_THAT(fleet.Audited(fleet.workers[1], 0), ElementsAre(1));
}

}  // namespace
}  // namespace accrue::core
