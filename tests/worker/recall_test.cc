// Units that are taken back before they are begun: docs/recovery.md, "Units that move".
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "tests/worker/memory_collectives.h"
#include "tests/worker/runner_testing.h"
#include "worker/core/window_runner.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using worker_testing::kUnits;
using worker_testing::MakeJob;
using worker_testing::Member;
using worker_testing::MemoryCollectives;
using worker_testing::SealOf;
using worker_testing::TellSeal;

using Ranges = std::vector<std::pair<int64_t, int64_t>>;

template <typename Units>
Ranges RangesOf(const Units& units) {
  Ranges ranges;
  for (const v1::UnitRange& range : units) ranges.push_back({range.first(), range.count()});
  return ranges;
}

class RecallTest : public testing::Test {
 protected:
  RecallTest() : member_(1, collectives_, MakeJob(true, AccumulationMode::kFast)) {}
  ~RecallTest() override { member_.Release(); }

  // Window 0 with these units, the engine held back in the first one until Go.
  void PlanAndHold(const Ranges& ranges, int64_t first) {
    member_.engine().before_unit = [this, first](int64_t unit) {
      if (unit != first || begun_.HasBeenNotified()) return;
      begun_.Notify();
      go_.WaitForNotification();
    };
    member_.Plan(0, ranges);
    begun_.WaitForNotification();
  }
  void Recall(const v1::Key& key, int64_t units) {
    v1::CoordinatorMessage message;
    *message.mutable_recall()->mutable_key() = key;
    message.mutable_recall()->set_units(units);
    member_.Tell(message);
  }
  // The answer; reports that come before it are kept.
  v1::Returned TakeReturned() {
    while (true) {
      v1::WorkerMessage message = member_.link.Take();
      if (message.has_returned()) return message.returned();
      EXPECT_TRUE(message.has_unit_reports()) << message.DebugString();
      if (!message.has_unit_reports()) return {};
      for (const v1::UnitReport& report : message.unit_reports().reports()) reports_.push_back(report);
    }
  }
  v1::WindowComputed TakeComputed() { return member_.TakeComputed(&reports_); }

  MemoryCollectives collectives_;
  Member member_;
  absl::Notification begun_, go_;
  std::vector<v1::UnitReport> reports_;
};

TEST_F(RecallTest, Recall_UnitsNotBegun_LastFirstAndOnlySoMany) {
  PlanAndHold({{0, 3}, {10, 3}}, 0);
  const v1::Key key = member_.Key(0);
  Recall(key, 4);
  go_.Notify();
  const v1::Returned returned = TakeReturned();
  EXPECT_EQ(returned.key().SerializeAsString(), key.SerializeAsString());
  EXPECT_THAT(RangesOf(returned.units()), ElementsAre(Pair(2, 1), Pair(10, 3)));
  EXPECT_THAT(RangesOf(TakeComputed().buckets(0).units()), ElementsAre(Pair(0, 2)));
}

TEST_F(RecallTest, Recall_MoreThanThereAre_UnitUnderWayStays) {
  PlanAndHold({{0, 6}}, 0);
  Recall(member_.Key(0), 100);
  go_.Notify();
  EXPECT_THAT(RangesOf(TakeReturned().units()), ElementsAre(Pair(1, 5)));
  EXPECT_THAT(RangesOf(TakeComputed().buckets(0).units()), ElementsAre(Pair(0, 1)));
}

TEST_F(RecallTest, Plan_AfterARecall_AddsToWhatIsLeft) {
  PlanAndHold({{0, 4}}, 0);
  Recall(member_.Key(0), 2);
  member_.Plan(0, {{3, 1}, {5, 1}});  // one of those that were returned, and another
  go_.Notify();
  EXPECT_THAT(RangesOf(TakeReturned().units()), ElementsAre(Pair(2, 2)));
  EXPECT_THAT(RangesOf(TakeComputed().buckets(0).units()), ElementsAre(Pair(0, 2), Pair(3, 1), Pair(5, 1)));
  EXPECT_EQ(reports_.size(), 4u);
}

TEST_F(RecallTest, Recall_EverythingIsDone_NoneReturned) {
  member_.Plan(0, {{0, 6}});
  TakeComputed();
  Recall(member_.Key(0), 3);
  EXPECT_THAT(RangesOf(TakeReturned().units()), IsEmpty());
  TellSeal(member_, SealOf(reports_, {1}, "c", false), 0);  // and it is still computed
  EXPECT_EQ(member_.TakeStepped().key().window(), 0);
}

TEST_F(RecallTest, Recall_OfTheNextWindow_TakesItsUnits) {
  PlanAndHold({{0, 6}}, 0);
  member_.Plan(1, {{0, 6}});
  Recall(member_.Key(1), 2);
  go_.Notify();
  EXPECT_THAT(RangesOf(TakeReturned().units()), ElementsAre(Pair(4, 2)));
  EXPECT_THAT(RangesOf(TakeComputed().buckets(0).units()), ElementsAre(Pair(0, 6)));
}

TEST_F(RecallTest, Recall_OfWhatIsNotHere_AnsweredWithNone) {
  member_.Plan(0, {{0, 6}});
  TakeComputed();
  TellSeal(member_, SealOf(reports_, {1}, "c", false), 0);
  member_.Commit(0, member_.TakeStepped().digest());
  member_.Plan(1, {});
  EXPECT_THAT(RangesOf(TakeComputed().buckets(0).units()), IsEmpty());

  std::vector<v1::Key> keys = {member_.Key(0), member_.Key(2), member_.Key(1, 1)};
  keys.push_back(member_.Key(1));
  keys.back().set_job_id("other-1");
  for (const v1::Key& key : keys) {
    Recall(key, 3);
    const v1::Returned returned = TakeReturned();
    EXPECT_EQ(returned.key().SerializeAsString(), key.SerializeAsString());
    EXPECT_THAT(RangesOf(returned.units()), IsEmpty());
  }
}

TEST_F(RecallTest, Recall_OfAVoidAttempt_AnsweredWithNone) {
  PlanAndHold({{0, 6}}, 0);
  member_.Plan(0, {{0, 6}}, {}, /*attempt=*/1);
  Recall(member_.Key(0, 0), 3);
  Recall(member_.Key(0, 1), 1);
  go_.Notify();
  EXPECT_THAT(RangesOf(TakeReturned().units()), IsEmpty());
  EXPECT_THAT(RangesOf(TakeReturned().units()), ElementsAre(Pair(5, 1)));
}

}  // namespace
}  // namespace accrue
