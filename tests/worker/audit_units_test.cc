// Units that a worker computes for their reports alone.
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "tests/worker/memory_collectives.h"
#include "tests/worker/runner_testing.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using worker_testing::kUnits;
using worker_testing::MakeJob;
using worker_testing::MemoryCollectives;
using worker_testing::Member;
using worker_testing::SealOf;
using worker_testing::TellSeal;

class AuditUnitsTest : public testing::Test {
 protected:
  std::unique_ptr<Member> Add(int64_t incarnation, AccumulationMode mode = AccumulationMode::kExact) {
    return std::make_unique<Member>(incarnation, collectives_, MakeJob(true, mode));
  }

  static std::vector<int> Probe(Member& member) {
    v1::CoordinatorMessage message;
    *message.mutable_probe()->mutable_key() = member.Key(0);
    member.Tell(message);
    const v1::WorkerMessage answer = member.link.Take();
    const v1::UnitReport& report = answer.unit_reports().reports(0);
    return NextExponents(kUnits, {report.max_exponents().begin(), report.max_exponents().end()});
  }

  static v1::CoordinatorMessage AuditPlan(const Member& member, int64_t window,
                                          const std::vector<std::pair<int64_t, int64_t>>& ranges,
                                          int64_t attempt = 0) {
    v1::CoordinatorMessage message;
    v1::Plan& plan = *message.mutable_plan();
    *plan.mutable_key() = member.Key(window, attempt);
    plan.mutable_scalars()->set_learning_rate_bits(std::bit_cast<uint32_t>(0.01f));
    plan.mutable_scalars()->set_bias_correction1_bits(std::bit_cast<uint32_t>(0.1f));
    plan.mutable_scalars()->set_bias_correction2_bits(std::bit_cast<uint32_t>(0.05f));
    for (const auto& [first, count] : ranges) {
      v1::UnitRange& range = *plan.add_audit_units();
      range.set_first(first);
      range.set_count(count);
    }
    return message;
  }

  static std::vector<v1::UnitReport> TakeAudits(Member& member, int units, int64_t attempt = 0) {
    std::vector<v1::UnitReport> reports;
    while (static_cast<int>(reports.size()) < units) {
      const v1::WorkerMessage message = member.link.Take();
      EXPECT_TRUE(message.unit_reports().audit()) << message.DebugString();
      EXPECT_EQ(message.unit_reports().key().attempt(), attempt);
      for (const v1::UnitReport& report : message.unit_reports().reports()) reports.push_back(report);
      if (!message.has_unit_reports()) break;
    }
    return reports;
  }

  static std::string Text(v1::UnitReport report) {
    report.clear_compute_ns();
    return report.ShortDebugString();
  }

  MemoryCollectives collectives_;
};

TEST_F(AuditUnitsTest, UnitOfAnother_ReportedAsItsHolderReportsIt) {
  for (const AccumulationMode mode : {AccumulationMode::kExact, AccumulationMode::kFast}) {
    auto holder = Add(1, mode), auditor = Add(2, mode);
    const std::vector<int> exponents = mode == AccumulationMode::kExact ? Probe(*holder) : std::vector<int>();
    std::vector<v1::UnitReport> reports, own;
    holder->Plan(0, {{0, 4}}, exponents);
    holder->TakeComputed(&reports);
    auditor->Plan(0, {{4, 2}}, exponents);
    auditor->Tell(AuditPlan(*auditor, 0, {{1, 1}, {3, 1}}));
    auditor->TakeComputed(&own);
    const std::vector<v1::UnitReport> audits = TakeAudits(*auditor, 2);
    ASSERT_EQ(audits.size(), 2u);
    EXPECT_EQ(Text(audits[0]), Text(reports[1]));
    EXPECT_EQ(Text(audits[1]), Text(reports[3]));
    EXPECT_EQ(audits[0].bucket_checksums_size(), mode == AccumulationMode::kExact ? 1 : 0);
  }
}

TEST_F(AuditUnitsTest, OwnUnitsAndEvaluationFirst_NothingWaitsForAudits) {
  auto member = Add(1);
  const std::vector<int> exponents = Probe(*member);
  absl::Notification begun, go_on;
  member->engine().before_unit = [&](int64_t unit) {
    if (unit != 0 || begun.HasBeenNotified()) return;
    begun.Notify();
    go_on.WaitForNotification();
  };
  member->Plan(0, {{0, 2}}, exponents, 0, /*evaluation_units=*/1);
  begun.WaitForNotification();  // the rest is there before it is done with the first unit
  member->Tell(AuditPlan(*member, 0, {{4, 1}}));
  member->Plan(0, {{2, 1}});
  go_on.Notify();
  std::vector<v1::UnitReport> reports;
  std::vector<v1::EvaluationReport> evaluations;
  const v1::WindowComputed computed = member->TakeComputed(&reports, &evaluations);
  EXPECT_EQ(reports.size(), 3u);
  EXPECT_EQ(evaluations.size(), 1u);
  EXPECT_EQ(computed.buckets(0).units(0).count(), 3);  // without the audited one
  EXPECT_EQ(TakeAudits(*member, 1)[0].unit(), 4);
}

TEST_F(AuditUnitsTest, BeforeBetweenAndAfterOwnUnits_SumsAreThoseOfTheOwn) {
  std::string digests[2];
  for (const bool audited : {false, true}) {
    auto first = Add(1), second = Add(2);
    const std::vector<int> exponents = Probe(*first);
    std::vector<v1::UnitReport> reports;
    first->Plan(0, {{0, 3}}, exponents);
    second->Plan(0, {}, exponents);
    second->TakeComputed(&reports);
    if (audited) {
      second->Tell(AuditPlan(*second, 0, {{0, 3}}));  // before it has any unit of its own
      TakeAudits(*second, 3);
    }
    second->Plan(0, {{3, 1}});
    second->TakeComputed(&reports);
    if (audited) {
      second->Tell(AuditPlan(*second, 0, {{3, 1}}));  // its own, once more
      TakeAudits(*second, 1);
    }
    second->Plan(0, {{4, 2}});
    second->TakeComputed(&reports);
    first->TakeComputed(&reports);
    if (audited) {
      first->Tell(AuditPlan(*first, 0, {{4, 2}}));
      TakeAudits(*first, 2);
    }
    const std::string name = audited ? "audited" : "plain";
    for (Member* member : {first.get(), second.get()}) TellSeal(*member, SealOf(reports, {1, 2}, name), 0);
    digests[audited] = first->TakeStepped().digest();
    EXPECT_EQ(second->TakeStepped().digest(), digests[audited]);
  }
  EXPECT_EQ(digests[0], digests[1]);
}

TEST_F(AuditUnitsTest, NewAttempt_AuditsOfTheOldOneAreForgotten) {
  auto member = Add(1);
  const std::vector<int> exponents = Probe(*member);
  std::vector<v1::UnitReport> reports;
  absl::Notification begun, go_on;
  member->engine().before_unit = [&](int64_t unit) {
    if (unit != 3 || begun.HasBeenNotified()) return;
    begun.Notify();
    go_on.WaitForNotification();
  };
  member->Plan(0, {{0, 1}}, exponents);
  member->TakeComputed(&reports);
  member->Tell(AuditPlan(*member, 0, {{3, 3}}));
  begun.WaitForNotification();
  v1::CoordinatorMessage replay;
  *replay.mutable_replay()->mutable_key() = member->Key(0, 1);
  member->Tell(replay);
  member->Plan(0, {{0, 1}}, exponents, 1);
  member->Tell(AuditPlan(*member, 0, {{5, 1}}, 1));
  go_on.Notify();
  EXPECT_EQ(TakeAudits(*member, 1)[0].unit(), 3);  // it had begun, in the old attempt
  reports.clear();
  member->TakeComputed(&reports);
  EXPECT_EQ(TakeAudits(*member, 1, 1)[0].unit(), 5);
  EXPECT_EQ(member->link.waiting(), 0u);
}

TEST_F(AuditUnitsTest, ImpossibleUnits_PlanIsRefused) {
  auto member = Add(1);
  member->Tell(AuditPlan(*member, 0, {{-1, 1}}));
  member->Plan(0, {{0, 1}}, Probe(*member));
  std::vector<v1::UnitReport> reports;
  EXPECT_EQ(member->TakeComputed(&reports).buckets_size(), 1);
  EXPECT_EQ(member->link.waiting(), 0u);
}

}  // namespace
}  // namespace accrue
