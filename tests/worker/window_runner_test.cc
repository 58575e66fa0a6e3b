#include "worker/core/window_runner.h"

#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "tests/worker/runner_testing.h"
#include "worker/collective/gloo_collective.h"
#include "worker/collective/testing/memory_rendezvous.h"

namespace accrue {
namespace {

using worker_testing::kUnits;
using worker_testing::MakeJob;
using worker_testing::Member;
using worker_testing::QuadraticEngine;
using worker_testing::SealOf;
using worker_testing::TellSeal;

class WindowRunnerTest : public testing::Test {
 protected:
  WindowRunnerTest() : collectives_(*CreateGlooFactory({}, &store_)) {}

  std::unique_ptr<Member> Add(int64_t incarnation, bool holds_state = true,
                              AccumulationMode mode = AccumulationMode::kExact) {
    return std::make_unique<Member>(incarnation, *collectives_, MakeJob(holds_state, mode));
  }

  // The exponents of the first window, as the probe gives them.
  static std::vector<int> Probe(Member& member) {
    v1::CoordinatorMessage message;
    *message.mutable_probe()->mutable_key() = member.Key(0);
    member.Tell(message);
    const v1::WorkerMessage answer = member.link.Take();
    EXPECT_TRUE(answer.unit_reports().probe());
    const v1::UnitReport& report = answer.unit_reports().reports(0);
    EXPECT_EQ(report.valid_tokens(), QuadraticEngine::TokensOf(0));
    return NextExponents(kUnits, {report.max_exponents().begin(), report.max_exponents().end()});
  }

  // One whole window with the shares given, one range a member; returns the digest, which must be everybody's.
  std::string RunWindow(const std::vector<Member*>& members, int64_t window,
                        const std::vector<std::pair<int64_t, int64_t>>& shares, const std::string& communicator,
                        const std::vector<int>& exponents = {}) {
    std::vector<int64_t> incarnations;
    std::vector<v1::UnitReport> reports;
    for (size_t i = 0; i < members.size(); ++i) {
      members[i]->Plan(window, {shares[i]}, exponents);
      incarnations.push_back(members[i]->loaded.key().incarnation());
    }
    for (Member* member : members) member->TakeComputed(&reports);
    EXPECT_EQ(reports.size(), static_cast<size_t>(kUnits));
    for (Member* member : members) TellSeal(*member, SealOf(reports, incarnations, communicator), window);
    std::string digest;
    for (Member* member : members) {
      const std::string own = member->TakeStepped().digest();
      if (digest.empty()) digest = own;
      EXPECT_EQ(own, digest);
    }
    for (Member* member : members) member->Commit(window, digest);
    return digest;
  }

  MemoryRendezvous store_;
  std::unique_ptr<CollectiveFactory> collectives_;
};

TEST_F(WindowRunnerTest, Run_JobLoaded_TellsLayoutAndDigest) {
  auto member = Add(1);
  EXPECT_EQ(member->loaded.tensors_size(), 3);
  EXPECT_EQ(member->loaded.tensor_elements(1), 20'000);
  EXPECT_EQ(member->loaded.buckets(), 1);
  EXPECT_EQ(member->loaded.digest().size(), 32u);
  EXPECT_EQ(member->loaded.exponents_size(), 0);
}

TEST_F(WindowRunnerTest, Windows_OneTwoAndThreeMembers_EqualDigests) {
  std::vector<std::string> alone;
  {
    auto member = Add(1);
    const std::vector<int> exponents = Probe(*member);
    for (int64_t window = 0; window < 4; ++window) {
      alone.push_back(RunWindow({member.get()}, window, {{0, 6}}, "solo", window == 0 ? exponents : std::vector<int>()));
    }
    EXPECT_NE(alone[0], alone[1]);
  }
  {
    auto first = Add(11), second = Add(12);
    const std::vector<int> exponents = Probe(*second);
    for (int64_t window = 0; window < 4; ++window) {
      EXPECT_EQ(RunWindow({first.get(), second.get()}, window, {{0, 4}, {4, 2}}, "pair",
                          window == 0 ? exponents : std::vector<int>()),
                alone[window]);
    }
  }
  {
    auto first = Add(21), second = Add(22), third = Add(23);
    const std::vector<int> exponents = Probe(*first);
    for (int64_t window = 0; window < 4; ++window) {
      EXPECT_EQ(RunWindow({first.get(), second.get(), third.get()}, window, {{5, 1}, {0, 3}, {3, 2}},
                          window < 2 ? "three" : "three-again", window == 0 ? exponents : std::vector<int>()),
                alone[window]);
    }
  }
}

TEST_F(WindowRunnerTest, Windows_SeveralBuckets_EqualDigests) {
  const std::vector<TensorShape> shapes = {{"a", {3000}}, {"b.weight", {2100, 2000}}, {"c.weight", {50, 1000}}};
  std::string alone;
  {
    Member member(1, *collectives_, MakeJob(true, AccumulationMode::kExact, OptimizerKind::kSgd, shapes));
    EXPECT_EQ(member.loaded.buckets(), 2);
    alone = RunWindow({&member}, 0, {{0, 6}}, "solo", Probe(member));
  }
  Member first(2, *collectives_, MakeJob(true, AccumulationMode::kExact, OptimizerKind::kSgd, shapes));
  Member second(3, *collectives_, MakeJob(true, AccumulationMode::kExact, OptimizerKind::kSgd, shapes));
  EXPECT_EQ(RunWindow({&first, &second}, 0, {{1, 5}, {0, 1}}, "pair", Probe(first)), alone);
}

TEST_F(WindowRunnerTest, Fast_TwoMembers_EqualDigests) {
  auto first = Add(1, true, AccumulationMode::kFast), second = Add(2, true, AccumulationMode::kFast);
  std::vector<v1::UnitReport> reports;
  first->Plan(0, {{0, 3}});
  second->Plan(0, {{3, 3}});
  first->TakeComputed(&reports);
  second->TakeComputed(&reports);
  for (Member* member : {first.get(), second.get()}) TellSeal(*member, SealOf(reports, {1, 2}, "fast", false), 0);
  EXPECT_EQ(first->TakeStepped().digest(), second->TakeStepped().digest());
}

TEST_F(WindowRunnerTest, Plan_UnitsAdded_ComputedAgainWithAllUnits) {
  auto member = Add(1);
  member->Plan(0, {{0, 2}}, Probe(*member));
  std::vector<v1::UnitReport> reports;
  const v1::WindowComputed first = member->TakeComputed(&reports);
  ASSERT_EQ(first.buckets_size(), 1);
  ASSERT_EQ(first.buckets(0).units_size(), 1);
  EXPECT_EQ(first.buckets(0).units(0).count(), 2);
  EXPECT_GT(first.local_gradient_norm(), 0);

  member->Plan(0, {{4, 2}, {2, 2}});
  const v1::WindowComputed second = member->TakeComputed(&reports);
  EXPECT_EQ(second.parameter_hash(), first.parameter_hash());
  ASSERT_EQ(second.buckets(0).units_size(), 1);  // ranges are joined
  EXPECT_EQ(second.buckets(0).units(0).count(), kUnits);
  EXPECT_EQ(reports.size(), 6u);
  TellSeal(*member, SealOf(reports, {1}, "c"), 0);
  member->TakeStepped();
}

TEST_F(WindowRunnerTest, Plan_NoUnits_ComputedAtOnceAndReduceJoined) {
  auto first = Add(1), second = Add(2);
  const std::vector<int> exponents = Probe(*first);
  first->Plan(0, {{0, 6}}, exponents);
  second->Plan(0, {}, exponents);
  std::vector<v1::UnitReport> reports;
  EXPECT_EQ(second->TakeComputed(&reports).buckets(0).units_size(), 0);
  EXPECT_TRUE(reports.empty());
  first->TakeComputed(&reports);
  for (Member* member : {first.get(), second.get()}) TellSeal(*member, SealOf(reports, {1, 2}, "c"), 0);
  EXPECT_EQ(first->TakeStepped().digest(), second->TakeStepped().digest());
}

TEST_F(WindowRunnerTest, Plan_OfNextWindow_BegunRightAfterStep) {
  auto member = Add(1);
  member->Plan(0, {{0, 6}}, Probe(*member));
  member->Plan(1, {{0, 6}});
  std::vector<v1::UnitReport> reports, next_reports;
  member->TakeComputed(&reports);
  TellSeal(*member, SealOf(reports, {1}, "c"), 0);
  const std::string digest = member->TakeStepped().digest();
  member->TakeComputed(&next_reports);  // without Commit
  EXPECT_EQ(next_reports.size(), 6u);
  TellSeal(*member, SealOf(next_reports, {1}, "c"), 1);
  member->Commit(0, digest);  // only now may window 1 be stepped
  EXPECT_EQ(member->TakeStepped().key().window(), 1);
}

TEST_F(WindowRunnerTest, Seal_BeforeCommit_WaitsForIt) {
  auto member = Add(1);
  member->Plan(0, {{0, 6}}, Probe(*member));
  member->Plan(1, {{0, 6}});
  std::vector<v1::UnitReport> reports, next_reports;
  member->TakeComputed(&reports);
  TellSeal(*member, SealOf(reports, {1}, "c"), 0);
  const std::string digest = member->TakeStepped().digest();
  member->TakeComputed(&next_reports);
  TellSeal(*member, SealOf(next_reports, {1}, "c"), 1);
  v1::CoordinatorMessage order;  // taken in its turn: shows the state as it is while the seal waits
  *order.mutable_checkpoint_now()->mutable_key() = member->Key(1);
  member->Tell(order);
  member->Commit(0, digest);
  EXPECT_EQ(member->TakeStepped().key().window(), 1);
  EXPECT_EQ(member->checkpoints.windows(), std::vector<int64_t>{1});
}

TEST_F(WindowRunnerTest, Abort_SealWaitsForCommit_ReduceFailed) {
  auto member = Add(1);
  member->Plan(0, {{0, 6}}, Probe(*member));
  member->Plan(1, {{0, 6}});
  std::vector<v1::UnitReport> reports, next_reports;
  member->TakeComputed(&reports);
  TellSeal(*member, SealOf(reports, {1}, "c"), 0);
  member->TakeStepped();
  member->TakeComputed(&next_reports);
  TellSeal(*member, SealOf(next_reports, {1}, "c"), 1);
  v1::CoordinatorMessage abort;
  *abort.mutable_abort()->mutable_key() = member->Key(1);
  member->Tell(abort);
  EXPECT_EQ(member->TakeReduceFailed().key().window(), 1);
}

TEST_F(WindowRunnerTest, Commit_OtherDigest_WorkerDeclaresItselfUnfit) {
  auto member = Add(1);
  member->Plan(0, {{0, 6}}, Probe(*member));
  std::vector<v1::UnitReport> reports;
  member->TakeComputed(&reports);
  TellSeal(*member, SealOf(reports, {1}, "c"), 0);
  member->TakeStepped();
  member->Commit(0, std::string(32, '0'));
  const v1::WorkerMessage message = member->link.Take();
  ASSERT_TRUE(message.has_job_failed());
  EXPECT_EQ(message.job_failed().status(), "DATA_LOSS");
  EXPECT_FALSE(message.job_failed().fatal_for_job());
  member->Join();
  EXPECT_EQ(member->end.kind, RunEnd::Kind::kFailed);
}

TEST_F(WindowRunnerTest, Replay_NewExponents_SameDigestAsIfTheyHadBeenRight) {
  const auto run = [&](int64_t incarnation, bool overflows) {
    auto member = Add(incarnation);
    member->engine().odd_window = 0;
    member->engine().odd_factor = 0x1p20f;
    std::vector<int> exponents = Probe(*member);
    if (overflows) {
      for (int& k : exponents) k += 20;
      member->Plan(0, {{0, 6}}, exponents);
      std::vector<v1::UnitReport> reports;
      member->TakeComputed(&reports);
      EXPECT_TRUE(NeedsReplay(kUnits, {reports[0].max_exponents().begin(), reports[0].max_exponents().end()}, exponents));
      v1::CoordinatorMessage replay;
      *replay.mutable_replay()->mutable_key() = member->Key(0, 1);
      member->Tell(replay);
      for (int& k : exponents) k -= 20;
    }
    const int64_t attempt = overflows ? 1 : 0;
    member->Plan(0, {{0, 6}}, exponents, attempt);
    std::vector<v1::UnitReport> reports;
    EXPECT_EQ(member->TakeComputed(&reports).key().attempt(), attempt);
    EXPECT_EQ(reports.size(), 6u);
    TellSeal(*member, SealOf(reports, {incarnation}, "c"), 0, attempt);
    return member->TakeStepped().digest();
  };
  EXPECT_EQ(run(1, true), run(2, false));
}

TEST_F(WindowRunnerTest, Plan_HigherAttemptWithoutReplay_StartsOver) {
  auto member = Add(1);
  const std::vector<int> exponents = Probe(*member);
  member->Plan(0, {{0, 6}}, exponents);
  std::vector<v1::UnitReport> reports;
  member->TakeComputed(&reports);
  member->Plan(0, {{0, 3}}, exponents, 1);
  reports.clear();
  const v1::WindowComputed computed = member->TakeComputed(&reports);
  EXPECT_EQ(reports.size(), 3u);
  EXPECT_EQ(computed.buckets(0).units(0).count(), 3);
}

TEST_F(WindowRunnerTest, Plan_HigherAttemptAmidUnits_ForgetsThoseNotBegun) {
  auto member = Add(1);
  const std::vector<int> exponents = Probe(*member);
  absl::Notification begun, go_on;
  member->engine().before_unit = [&](int64_t unit) {
    if (unit != 5) return;
    begun.Notify();
    go_on.WaitForNotification();
  };
  member->Plan(0, {{5, 1}, {0, 5}}, exponents);
  begun.WaitForNotification();
  member->Plan(0, {{0, 3}}, exponents, 1);
  go_on.Notify();
  std::vector<v1::UnitReport> reports;
  const v1::WindowComputed computed = member->TakeComputed(&reports);
  EXPECT_EQ(computed.key().attempt(), 1);
  ASSERT_EQ(computed.buckets(0).units_size(), 1);
  EXPECT_EQ(computed.buckets(0).units(0).count(), 3);
}

TEST_F(WindowRunnerTest, Seal_Skip_KeepsParametersAndGoesOn) {
  auto member = Add(1);
  const std::vector<int> exponents = Probe(*member);
  member->engine().odd_window = 0;
  member->engine().odd_unit = 3;
  member->engine().odd_factor = std::numeric_limits<float>::quiet_NaN();
  const float before = member->job->state->parameters()[0];
  member->Plan(0, {{0, 6}}, exponents);
  std::vector<v1::UnitReport> reports;
  member->TakeComputed(&reports);
  EXPECT_TRUE(reports[3].non_finite());
  v1::Seal seal = SealOf(reports, {1}, "c");
  ASSERT_EQ(seal.verdict(), v1::VERDICT_SKIP);
  seal.mutable_next_exponents()->Assign(exponents.begin(), exponents.end());
  TellSeal(*member, seal, 0);
  const std::string digest = member->TakeStepped().digest();
  member->Commit(0, digest);
  EXPECT_NE(RunWindow({member.get()}, 1, {{0, 6}}, "c"), digest);
  member->Release();
  EXPECT_EQ(member->job->state->window(), 2);
  EXPECT_EQ(member->job->state->steps(), 1);
  EXPECT_NE(member->job->state->parameters()[0], before);
}

TEST_F(WindowRunnerTest, Abort_DuringReduce_ReduceFailedAndNextAttemptWorks) {
  auto first = Add(1), second = Add(2);
  const std::vector<int> exponents = Probe(*first);
  std::vector<v1::UnitReport> reports;
  first->Plan(0, {{0, 3}}, exponents);
  second->Plan(0, {{3, 3}}, exponents);
  first->TakeComputed(&reports);
  second->TakeComputed(&reports);
  TellSeal(*first, SealOf(reports, {1, 2}, "broken"), 0);  // the second member never hears of it
  v1::CoordinatorMessage abort;
  *abort.mutable_abort()->mutable_key() = first->Key(0);
  abort.mutable_abort()->set_reason("a member died");
  first->Tell(abort);
  store_.GiveUp("broken");  // whether it waits for the other one or has not begun
  EXPECT_EQ(first->TakeReduceFailed().key().attempt(), 0);

  reports.clear();
  first->Plan(0, {{0, 6}}, exponents, 1);
  first->TakeComputed(&reports);
  EXPECT_EQ(reports.size(), 6u);
  TellSeal(*first, SealOf(reports, {1}, "alone"), 0, 1);
  EXPECT_EQ(first->TakeStepped().key().attempt(), 1);
}

TEST_F(WindowRunnerTest, Abort_BlockedInAllReduce_ReturnsReduceFailed) {
  auto member = Add(1);
  const std::vector<int> exponents = Probe(*member);
  std::vector<v1::UnitReport> reports;
  member->Plan(0, {{0, 6}}, exponents);
  member->TakeComputed(&reports);
  TellSeal(*member, SealOf(reports, {1, 2}, "half"), 0);
  auto other = CreateGlooFactory({}, &store_);  // meets, then stays silent
  auto communicator = (*other)->Form("half", 1, 2, 20'000);
  ASSERT_TRUE(communicator.ok()) << communicator.status();
  v1::CoordinatorMessage abort;
  *abort.mutable_abort()->mutable_key() = member->Key(0);
  member->Tell(abort);
  EXPECT_EQ(member->TakeReduceFailed().final_buckets(), 0);
}

TEST_F(WindowRunnerTest, Reduce_PeerGone_ReduceFailed) {
  auto member = Add(1);
  const std::vector<int> exponents = Probe(*member);
  std::vector<v1::UnitReport> reports;
  member->Plan(0, {{0, 6}}, exponents);
  member->TakeComputed(&reports);
  TellSeal(*member, SealOf(reports, {1, 2}, "half"), 0);
  auto other = CreateGlooFactory({}, &store_);
  ASSERT_TRUE((*other)->Form("half", 1, 2, 20'000).ok());  // and is destroyed at once
  EXPECT_FALSE(member->TakeReduceFailed().reason().empty());
}

TEST_F(WindowRunnerTest, Seal_WrongChecksum_ReportedAndNothingStepped) {
  for (int64_t members : {1, 2}) {
    auto first = Add(1), second = Add(2);
    const std::vector<int> exponents = Probe(*first);
    std::vector<v1::UnitReport> reports;
    first->Plan(0, {{0, 6}}, exponents);
    second->Plan(0, {}, exponents);
    first->TakeComputed(&reports);
    second->TakeComputed(&reports);
    const std::vector<int64_t> all = {1, 2};
    v1::Seal seal = SealOf(reports, {all.begin(), all.begin() + members}, members == 1 ? "one" : "two");
    seal.set_bucket_checksums(0, seal.bucket_checksums(0) + 1);
    TellSeal(*first, seal, 0);
    if (members == 2) TellSeal(*second, seal, 0);
    EXPECT_THAT(first->TakeReduceFailed().reason(), testing::HasSubstr("bucket 0 of window 0"));
    first->Release();
    EXPECT_EQ(first->job->state->window(), 0);
  }
}

TEST_F(WindowRunnerTest, Seal_UnitsMissing_Refused) {
  auto member = Add(1);
  v1::Seal seal;
  seal.set_verdict(v1::VERDICT_REDUCE);
  TellSeal(*member, seal, 0);
  EXPECT_THAT(member->TakeReduceFailed().reason(), testing::HasSubstr("not all in its accumulator"));
}

TEST_F(WindowRunnerTest, StateSync_Joiner_HoldsTheStateAndStaysEqual) {
  auto source = Add(1);
  RunWindow({source.get()}, 0, {{0, 6}}, "solo", Probe(*source));
  const std::string digest = RunWindow({source.get()}, 1, {{0, 6}}, "solo");

  auto joiner = Add(5, /*holds_state=*/false);
  EXPECT_EQ(joiner->loaded.digest(), "");
  for (Member* member : {source.get(), joiner.get()}) {
    member->epoch = 2;
    v1::CoordinatorMessage message;
    v1::StateSync& sync = *message.mutable_state_sync();
    *sync.mutable_key() = member->Key(2);
    sync.add_members(1);
    sync.add_members(5);
    sync.set_source(1);
    sync.set_communicator("sync-2");
    member->Tell(message);
  }
  for (Member* member : {source.get(), joiner.get()}) {
    const v1::WorkerMessage message = member->link.Take();
    ASSERT_TRUE(message.has_state_synced()) << message.DebugString();
    EXPECT_EQ(message.state_synced().digest(), digest);
  }
  RunWindow({source.get(), joiner.get()}, 2, {{0, 2}, {2, 4}}, "both");
  RunWindow({source.get(), joiner.get()}, 3, {{3, 3}, {0, 3}}, "both");
}

TEST_F(WindowRunnerTest, StateSync_SourceInMidWindow_KeepsItsUnits) {
  auto source = Add(1), joiner = Add(2, /*holds_state=*/false);
  const std::vector<int> exponents = Probe(*source);
  RunWindow({source.get()}, 0, {{0, 6}}, "solo", exponents);
  source->Plan(1, {{0, 3}});
  std::vector<v1::UnitReport> reports;
  source->TakeComputed(&reports);
  for (Member* member : {source.get(), joiner.get()}) {
    v1::CoordinatorMessage message;
    v1::StateSync& sync = *message.mutable_state_sync();
    *sync.mutable_key() = member->Key(1);
    sync.add_members(1);
    sync.add_members(2);
    sync.set_source(1);
    sync.set_communicator("sync");
    member->Tell(message);
  }
  for (Member* member : {source.get(), joiner.get()}) ASSERT_TRUE(member->link.Take().has_state_synced());
  source->Plan(1, {{3, 3}});
  EXPECT_EQ(source->TakeComputed(&reports).buckets(0).units(0).count(), 6);
}

TEST_F(WindowRunnerTest, StateSync_NobodyElseComes_ReplacedByNewer) {
  auto member = Add(1);
  v1::CoordinatorMessage message;
  v1::StateSync& sync = *message.mutable_state_sync();
  *sync.mutable_key() = member->Key(0);
  sync.add_members(1);
  sync.add_members(2);
  sync.set_source(1);
  sync.set_communicator("sync-1");
  member->Tell(message);
  auto other = CreateGlooFactory({}, &store_);
  auto communicator = (*other)->Form("sync-1", 1, 2, 20'000);  // meets, then receives nothing
  ASSERT_TRUE(communicator.ok()) << communicator.status();
  sync.set_communicator("sync-2");
  sync.mutable_members()->RemoveLast();
  member->Tell(message);
  // A small state fits into the sockets' buffers: the first sync ends well or is called off, the second one is alone.
  v1::WorkerMessage answer = member->link.Take();
  EXPECT_TRUE(answer.has_reduce_failed() || answer.has_state_synced());
  EXPECT_TRUE(member->link.Take().has_state_synced());
}

TEST_F(WindowRunnerTest, StateSync_Aborted_ReduceFailedAndNextSyncWorks) {
  const std::vector<TensorShape> large = {{"a.weight", {3000, 1000}}};  // beyond what sockets take without a reader
  Member member(1, *collectives_, MakeJob(true, AccumulationMode::kExact, OptimizerKind::kSgd, large));
  v1::CoordinatorMessage message;
  v1::StateSync& sync = *message.mutable_state_sync();
  *sync.mutable_key() = member.Key(0);
  sync.add_members(1);
  sync.add_members(2);
  sync.set_source(1);
  sync.set_communicator("sync-1");
  member.Tell(message);
  auto other = CreateGlooFactory({}, &store_);
  auto communicator = (*other)->Form("sync-1", 1, 2, 20'000);  // meets, then receives nothing
  ASSERT_TRUE(communicator.ok()) << communicator.status();
  v1::CoordinatorMessage abort;
  *abort.mutable_abort()->mutable_key() = member.Key(0);
  member.Tell(abort);
  EXPECT_EQ(member.TakeReduceFailed().key().epoch(), 1);

  member.epoch = 3;
  *sync.mutable_key() = member.Key(0);
  sync.set_communicator("sync-3");
  sync.mutable_members()->RemoveLast();
  member.Tell(message);
  EXPECT_TRUE(member.link.Take().has_state_synced());
}

TEST_F(WindowRunnerTest, Evaluation_UnitsOfPlan_DoneBeforeComputed) {
  auto member = Add(1);
  const std::vector<int> exponents = Probe(*member);
  const double first_parameter = static_cast<double>(member->job->state->parameters()[0]);
  member->Plan(0, {{0, 6}}, exponents, 0, /*evaluation_units=*/3);
  std::vector<v1::UnitReport> reports;
  std::vector<v1::EvaluationReport> evaluations;
  EXPECT_EQ(member->TakeComputed(&reports, &evaluations).key().window(), 0);
  ASSERT_EQ(evaluations.size(), 3u);
  EXPECT_EQ(evaluations[2].loss_sum(), first_parameter + 2);
  EXPECT_EQ(evaluations[2].valid_tokens(), 3);
}

TEST_F(WindowRunnerTest, Evaluation_OnlyPlan_NoWindowComputed) {
  auto member = Add(1);
  v1::CoordinatorMessage message;
  *message.mutable_plan()->mutable_key() = member->Key(0);
  message.mutable_plan()->set_evaluation_only(true);
  message.mutable_plan()->add_evaluation_units()->set_count(1);
  member->Tell(message);
  const v1::WorkerMessage answer = member->link.Take();
  ASSERT_TRUE(answer.has_evaluation_reports());
  EXPECT_EQ(answer.evaluation_reports().key().window(), 0);
  member->Release();
  EXPECT_EQ(member->link.waiting(), 0u);
}

TEST_F(WindowRunnerTest, Checkpoint_OrderedBySealOrAlone_SnapshotAfterTheStep) {
  auto member = Add(1);
  member->Plan(0, {{0, 6}}, Probe(*member));
  std::vector<v1::UnitReport> reports;
  member->TakeComputed(&reports);
  v1::Seal seal = SealOf(reports, {1}, "c");
  seal.mutable_checkpoint()->set_shards(1);
  TellSeal(*member, seal, 0);
  member->Commit(0, member->TakeStepped().digest());
  v1::CoordinatorMessage message;
  *message.mutable_checkpoint_now()->mutable_key() = member->Key(1);
  member->Tell(message);
  member->Release();
  EXPECT_EQ(member->checkpoints.windows(), (std::vector<int64_t>{1, 1}));
}

TEST_F(WindowRunnerTest, Message_StaleOrForeign_Refused) {
  auto member = Add(1);
  const std::vector<int> exponents = Probe(*member);
  RunWindow({member.get()}, 0, {{0, 6}}, "solo", exponents);
  v1::CoordinatorMessage plan;
  plan.mutable_plan()->add_units()->set_count(1);
  v1::Key& key = *plan.mutable_plan()->mutable_key();
  for (int field = 0; field < 5; ++field) {
    key = member->Key(1);
    if (field == 0) key.set_window(0);
    if (field == 1) key.set_timeline(1);
    if (field == 2) key.set_incarnation(9);
    if (field == 3) key.set_term(0);
    if (field == 4) key.set_job_id("other-1");
    member->Tell(plan);
  }
  member->Plan(1, {{2, 4}});
  std::vector<v1::UnitReport> reports;
  const v1::WindowComputed computed = member->TakeComputed(&reports);
  EXPECT_EQ(reports.size(), 4u);
  ASSERT_EQ(computed.buckets(0).units_size(), 1);
  EXPECT_EQ(computed.buckets(0).units(0).first(), 2);
}

TEST_F(WindowRunnerTest, ComputeUnit_Fails_JobFailedWithReason) {
  auto member = Add(1);
  const std::vector<int> exponents = Probe(*member);
  member->engine().fails = absl::InvalidArgumentError("token 12 is beyond the vocabulary of 10");
  member->Plan(0, {{0, 6}}, exponents);
  const v1::WorkerMessage message = member->link.Take();
  ASSERT_TRUE(message.has_job_failed());
  EXPECT_TRUE(message.job_failed().fatal_for_job());
  EXPECT_THAT(message.job_failed().reason(), testing::HasSubstr("token 12"));
  member->Join();
}

}  // namespace
}  // namespace accrue
