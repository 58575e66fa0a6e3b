// A runner whose coordinator goes away, and another comes: what it goes on with, and what it tells.
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "tests/worker/runner_testing.h"
#include "worker/collective/gloo_collective.h"
#include "worker/collective/testing/memory_rendezvous.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using worker_testing::kUnits;
using worker_testing::MakeJob;
using worker_testing::Member;
using worker_testing::SealOf;
using worker_testing::TellSeal;

std::vector<int64_t> UnitsOf(const google::protobuf::RepeatedPtrField<v1::UnitReport>& reports) {
  std::vector<int64_t> units;
  for (const v1::UnitReport& report : reports) units.push_back(report.unit());
  return units;
}

class RunnerReconnectTest : public testing::Test {
 protected:
  RunnerReconnectTest() : collectives_(*CreateGlooFactory({}, &store_)) {}

  std::unique_ptr<Member> Add(int64_t incarnation) {
    auto member = std::make_unique<Member>(incarnation, *collectives_, MakeJob(true));
    if (exponents_.empty()) exponents_ = Probe(*member);
    return member;
  }
  static std::vector<int> Probe(Member& member) {
    v1::CoordinatorMessage message;
    *message.mutable_probe()->mutable_key() = member.Key(0);
    member.Tell(message);
    const v1::UnitReport report = member.link.Take().unit_reports().reports(0);
    return NextExponents(kUnits, {report.max_exponents().begin(), report.max_exponents().end()});
  }

  static void Lose(Member& member) { member.inbox.Push(LinkLost{"kill -9"}); }
  // Another coordinator, of the next term and a new epoch, resumes the member.
  static void Resume(Member& member) {
    ++member.term;
    ++member.epoch;
    Joined joined;
    joined.term = member.term;
    joined.incarnation = member.loaded.key().incarnation();
    joined.resumed = true;
    member.inbox.Push(joined);
  }
  // What the coordinator of the new term is told; reports that were sent before are passed over.
  static v1::Holding TakeHolding(Member& member) {
    while (true) {
      const v1::WorkerMessage message = member.link.Take();
      if (message.has_unit_reports() || message.has_evaluation_reports()) continue;
      EXPECT_TRUE(message.has_holding()) << message.DebugString();
      EXPECT_EQ(message.holding().key().term(), member.term);
      EXPECT_EQ(message.holding().key().incarnation(), member.loaded.key().incarnation());
      return message.holding();
    }
  }
  // Seals and commits the window of one member alone; the digest.
  static std::string Finish(Member& member, const std::vector<v1::UnitReport>& reports, int64_t window,
                            int64_t attempt = 0) {
    TellSeal(member, SealOf(reports, {member.loaded.key().incarnation()}, absl::StrCat("alone-", window, "-", attempt)),
             window, attempt);
    const std::string digest = member.TakeStepped().digest();
    member.Commit(window, digest);
    return digest;
  }
  // Digests of windows 0 and 1 where nothing happens.
  std::vector<std::string> Undisturbed() {
    auto member = Add(99);
    std::vector<std::string> digests;
    for (int64_t window : {0, 1}) {
      std::vector<v1::UnitReport> reports;
      member->Plan(window, {{0, 6}}, window == 0 ? exponents_ : std::vector<int>());
      member->TakeComputed(&reports);
      digests.push_back(Finish(*member, reports, window));
    }
    return digests;
  }

  MemoryRendezvous store_;
  std::unique_ptr<CollectiveFactory> collectives_;
  std::vector<int> exponents_;  // of the first window
};

TEST_F(RunnerReconnectTest, AmidUnits_ThoseBegunAreToldAndTheRestDropped) {
  auto member = Add(1);
  absl::Notification begun, go_on;
  member->engine().before_unit = [&](int64_t unit) {
    if (unit != 2 || begun.HasBeenNotified()) return;
    begun.Notify();
    go_on.WaitForNotification();
  };
  member->Plan(0, {{0, 6}}, exponents_);
  member->Plan(1, {{0, 6}});
  begun.WaitForNotification();
  Lose(*member);
  Resume(*member);
  go_on.Notify();
  const v1::Holding holding = TakeHolding(*member);
  EXPECT_THAT(UnitsOf(holding.reports()), ElementsAre(0, 1, 2));
  EXPECT_EQ(holding.key().window(), 0);
  EXPECT_EQ(holding.digest(), member->loaded.digest());
  EXPECT_FALSE(holding.parameter_hash().empty());
  EXPECT_FALSE(holding.has_stepped());
  EXPECT_EQ(holding.final_buckets(), 0);

  // Units 3 to 5 are given again, by a plan of the new term; nothing was done in between.
  std::vector<v1::UnitReport> reports(holding.reports().begin(), holding.reports().end());
  member->Plan(0, {{3, 3}});
  const v1::WindowComputed computed = member->TakeComputed(&reports);
  EXPECT_EQ(computed.key().term(), 2);
  ASSERT_EQ(computed.buckets(0).units_size(), 1);
  EXPECT_EQ(computed.buckets(0).units(0).count(), 6);
  EXPECT_EQ(reports.size(), 6u);
  const std::string digest = Finish(*member, reports, 0);
  reports.clear();
  member->Plan(1, {{0, 6}});  // the one of the old term is forgotten
  member->TakeComputed(&reports);
  EXPECT_EQ(reports.size(), 6u);
  EXPECT_THAT(Undisturbed(), ElementsAre(digest, Finish(*member, reports, 1)));
}

TEST_F(RunnerReconnectTest, CoordinatorAway_LeasedUnitsAreFinishedAndKept) {
  auto member = Add(1);
  std::vector<v1::UnitReport> reports;
  absl::Notification go_on;
  member->engine().before_unit = [&](int64_t unit) {
    if (unit == 0) go_on.WaitForNotification();
  };
  member->Plan(0, {{0, 6}}, exponents_);
  Lose(*member);
  go_on.Notify();
  member->TakeComputed(&reports);  // goes nowhere, and shows that all units are done
  Resume(*member);
  const v1::Holding holding = TakeHolding(*member);
  EXPECT_THAT(UnitsOf(holding.reports()), ElementsAre(0, 1, 2, 3, 4, 5));
  // A plan without units asks for the manifest.
  std::vector<v1::UnitReport> none;
  member->Plan(0, {});
  EXPECT_EQ(member->TakeComputed(&none).buckets(0).units(0).count(), 6);
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(Finish(*member, {holding.reports().begin(), holding.reports().end()}, 0), Undisturbed()[0]);
}

TEST_F(RunnerReconnectTest, MessagesOfTheOldTerm_Refused) {
  auto member = Add(1);
  member->Plan(0, {{0, 3}}, exponents_);
  std::vector<v1::UnitReport> reports;
  member->TakeComputed(&reports);
  Lose(*member);
  Resume(*member);
  const v1::Holding holding = TakeHolding(*member);
  EXPECT_EQ(holding.reports_size(), 3);
  member->term = 1;
  member->Plan(0, {{3, 3}});
  TellSeal(*member, SealOf(reports, {1}, "c"), 0);
  member->term = 2;
  member->Plan(0, {{3, 1}});
  reports.clear();
  EXPECT_EQ(member->TakeComputed(&reports).buckets(0).units(0).count(), 4);
  EXPECT_THAT(reports, testing::SizeIs(1));
}

TEST_F(RunnerReconnectTest, DuringTheReduce_GoesOnAndTellsTheStep) {
  const std::vector<std::string> undisturbed = Undisturbed();
  auto first = Add(1), second = Add(2);
  std::vector<v1::UnitReport> reports, next;
  first->Plan(0, {{0, 3}}, exponents_);
  second->Plan(0, {{3, 3}}, exponents_);
  first->Plan(1, {{0, 3}});
  const v1::WindowComputed computed = first->TakeComputed(&reports);
  second->TakeComputed(&reports);
  v1::Seal seal = SealOf(reports, {1, 2}, "both");
  seal.set_loss_sum(12.5);
  TellSeal(*first, seal, 0);
  Lose(*first);
  TellSeal(*second, seal, 0);  // the reduce can only begin now
  Lose(*second);
  EXPECT_EQ(first->TakeStepped().digest(), undisturbed[0]);
  EXPECT_EQ(second->TakeStepped().digest(), undisturbed[0]);
  first->TakeComputed(&next);  // of window 1, planned before the coordinator went away
  Resume(*first);
  Resume(*second);

  const v1::Holding one = TakeHolding(*first), two = TakeHolding(*second);
  for (const v1::Holding& holding : {one, two}) {
    EXPECT_EQ(holding.key().window(), 1);
    EXPECT_EQ(holding.digest(), undisturbed[0]);
    EXPECT_EQ(holding.final_buckets(), 0);
    EXPECT_EQ(holding.stepped().digest(), undisturbed[0]);
    EXPECT_EQ(holding.stepped().key().window(), 0);
    EXPECT_EQ(holding.stepped().key().term(), 1);
    EXPECT_EQ(holding.stepped_seal().loss_sum(), 12.5);
    EXPECT_EQ(holding.stepped_seal().valid_tokens(), seal.valid_tokens());
  }
  EXPECT_EQ(one.computed().DebugString(), computed.DebugString());
  EXPECT_THAT(UnitsOf(one.reports()), ElementsAre(0, 1, 2));
  EXPECT_THAT(UnitsOf(two.reports()), ElementsAre());

  // The new coordinator commits that step, and goes on with what is there of the next window.
  first->Commit(0, undisturbed[0]);
  second->Commit(0, undisturbed[0]);
  std::vector<v1::UnitReport> rest;
  first->Plan(1, {});
  first->TakeComputed(&rest);
  EXPECT_TRUE(rest.empty());
  second->Plan(1, {{3, 3}});
  second->TakeComputed(&next);
  EXPECT_EQ(next.size(), 6u);
  for (Member* member : {first.get(), second.get()}) TellSeal(*member, SealOf(next, {1, 2}, "again"), 1);
  EXPECT_EQ(first->TakeStepped().digest(), undisturbed[1]);
  EXPECT_EQ(second->TakeStepped().digest(), undisturbed[1]);
}

TEST_F(RunnerReconnectTest, CommittedStep_IsNotToldAgain) {
  auto member = Add(1);
  std::vector<v1::UnitReport> reports;
  member->Plan(0, {{0, 6}}, exponents_);
  member->TakeComputed(&reports);
  const std::string digest = Finish(*member, reports, 0);
  Lose(*member);
  Resume(*member);
  const v1::Holding holding = TakeHolding(*member);
  EXPECT_EQ(holding.key().window(), 1);
  EXPECT_EQ(holding.digest(), digest);
  EXPECT_FALSE(holding.has_stepped());
  EXPECT_EQ(holding.reports_size(), 0);
}

TEST_F(RunnerReconnectTest, HeldSealOfTheOldTerm_IsNotActedOn) {
  auto member = Add(1);
  std::vector<v1::UnitReport> reports, next;
  member->Plan(0, {{0, 6}}, exponents_);
  member->Plan(1, {{0, 6}});
  member->TakeComputed(&reports);
  TellSeal(*member, SealOf(reports, {1}, "c"), 0);
  const std::string digest = member->TakeStepped().digest();
  member->TakeComputed(&next);
  TellSeal(*member, SealOf(next, {1}, "c"), 1);  // waits for the commit of window 0
  Lose(*member);
  Resume(*member);
  EXPECT_EQ(TakeHolding(*member).stepped_seal().key().window(), 0);
  member->Commit(0, digest);
  v1::CoordinatorMessage order;  // taken in its turn: shows the state after the commit
  *order.mutable_checkpoint_now()->mutable_key() = member->Key(1);
  member->Tell(order);
  member->Plan(1, {});
  member->TakeComputed(&next);
  EXPECT_THAT(member->checkpoints.windows(), ElementsAre(1));
}

TEST_F(RunnerReconnectTest, ReduceBrokenWhileAway_UnitsAreKept) {
  const std::vector<std::string> undisturbed = Undisturbed();
  auto member = Add(1);
  std::vector<v1::UnitReport> reports;
  member->Plan(0, {{0, 6}}, exponents_);
  member->TakeComputed(&reports);
  TellSeal(*member, SealOf(reports, {1, 2}, "half"), 0);
  Lose(*member);
  {
    auto other = CreateGlooFactory({}, &store_);
    ASSERT_TRUE((*other)->Form("half", 1, 2, 20'000).ok());  // and is destroyed at once
  }
  member->TakeReduceFailed();
  Resume(*member);
  const v1::Holding holding = TakeHolding(*member);
  EXPECT_EQ(holding.reports_size(), 6);
  EXPECT_FALSE(holding.has_stepped());
  std::vector<v1::UnitReport> none;
  member->Plan(0, {});
  member->TakeComputed(&none);
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(Finish(*member, reports, 0), undisturbed[0]);
}

TEST_F(RunnerReconnectTest, NewAttempt_OldReportsAreNotTold) {
  auto member = Add(1);
  std::vector<v1::UnitReport> reports;
  member->Plan(0, {{0, 6}}, exponents_);
  member->TakeComputed(&reports);
  v1::CoordinatorMessage replay;
  *replay.mutable_replay()->mutable_key() = member->Key(0, 1);
  member->Tell(replay);
  Lose(*member);
  Resume(*member);
  v1::Holding holding = TakeHolding(*member);
  EXPECT_EQ(holding.reports_size(), 0);
  EXPECT_EQ(holding.key().attempt(), 1);
  member->Plan(0, {{4, 2}}, exponents_, 1);
  reports.clear();
  member->TakeComputed(&reports);
  Lose(*member);
  Resume(*member);
  holding = TakeHolding(*member);
  EXPECT_THAT(UnitsOf(holding.reports()), ElementsAre(4, 5));
  EXPECT_EQ(holding.key().attempt(), 1);
}

TEST_F(RunnerReconnectTest, Evaluations_OfTheStateHeldAreTold) {
  auto member = Add(1);
  std::vector<v1::UnitReport> reports;
  std::vector<v1::EvaluationReport> evaluations;
  member->Plan(0, {{0, 6}}, exponents_, 0, /*evaluation_units=*/2);
  member->TakeComputed(&reports, &evaluations);
  Lose(*member);
  Resume(*member);
  const v1::Holding holding = TakeHolding(*member);
  ASSERT_EQ(holding.evaluations_size(), 2);
  EXPECT_EQ(holding.evaluations(1).loss_sum(), evaluations[1].loss_sum());
  member->Plan(0, {});
  reports.clear();
  member->TakeComputed(&reports);
  TellSeal(*member, SealOf({holding.reports().begin(), holding.reports().end()}, {1}, "c"), 0);
  member->TakeStepped();
  Lose(*member);
  Resume(*member);
  EXPECT_EQ(TakeHolding(*member).evaluations_size(), 0);
}

TEST_F(RunnerReconnectTest, NotResumedOrOver_RunnerEnds) {
  auto unknown = Add(1);
  unknown->inbox.Push(Joined{.term = 2, .incarnation = 5});
  unknown->Join();
  EXPECT_EQ(unknown->end.kind, RunEnd::Kind::kSuperseded);
  EXPECT_EQ(std::get<Joined>(*unknown->end.event).incarnation, 5);
  auto refused = Add(2);
  refused->inbox.Push(LifeOver{.reason = "it was silent"});
  refused->Join();
  EXPECT_EQ(refused->end.kind, RunEnd::Kind::kSuperseded);
  EXPECT_EQ(std::get<LifeOver>(*refused->end.event).reason, "it was silent");
}

TEST_F(RunnerReconnectTest, Drained_LeavesNowWithoutCoordinatorElseTellsTheNewOne) {
  auto alone = Add(1);
  Lose(*alone);
  alone->inbox.Push(DrainRequested{"signal 15"});
  alone->Join();
  EXPECT_EQ(alone->end.kind, RunEnd::Kind::kLeft);
  auto late = Add(2);
  late->inbox.Push(DrainRequested{"signal 15"});
  EXPECT_EQ(late->link.Take().leaving().reason(), "signal 15");
  Lose(*late);
  late->Join();
  EXPECT_EQ(late->end.kind, RunEnd::Kind::kLeft);
  // The new coordinator was there before the loss was seen.
  auto resumed = Add(3);
  resumed->inbox.Push(DrainRequested{"signal 15"});
  resumed->link.Take();
  Resume(*resumed);
  TakeHolding(*resumed);
  EXPECT_EQ(resumed->link.Take().leaving().reason(), "signal 15");
}

}  // namespace
}  // namespace accrue
