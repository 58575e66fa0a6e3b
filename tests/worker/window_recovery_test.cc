// A reduce that breaks, in every way, and what goes on from there: docs/recovery.md. The oracle is the digest of one
// worker that nobody disturbed.
#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/memory_collectives.h"
#include "tests/worker/runner_testing.h"
#include "worker/core/window_runner.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using worker_testing::kUnits;
using worker_testing::MakeJob;
using worker_testing::Member;
using worker_testing::MemoryCollectives;
using worker_testing::MemoryOperation;
using worker_testing::SealOf;
using worker_testing::TellSeal;

constexpr int kBuckets = 4;
const int64_t kBucketSize = 2 * kChunkElements;

// Everything that a report says, but how long it took.
std::string Content(v1::UnitReport report) {
  report.clear_compute_ns();
  return report.SerializeAsString();
}

class WindowRecoveryTest : public testing::Test {
 protected:
  std::unique_ptr<Job> NewJob() {
    const std::vector<TensorShape> shapes = {{"a", {40}}, {"b.weight", {250, 400}}, {"c", {4, 5}}};
    std::unique_ptr<Job> job = MakeJob(true, mode_, OptimizerKind::kAdamW, shapes, kBucketSize);
    ACCRUE_CHECK(job->engine->layout().buckets().size() == kBuckets);
    return job;
  }

  Member& Add(int64_t incarnation) {
    members_[incarnation] = std::make_unique<Member>(incarnation, collectives_, NewJob());
    if (mode_ == AccumulationMode::kExact && exponents_.empty()) exponents_ = Probe(*members_[incarnation]);
    return *members_[incarnation];
  }

  static std::vector<int> Probe(Member& member) {
    v1::CoordinatorMessage message;
    *message.mutable_probe()->mutable_key() = member.Key(0);
    member.Tell(message);
    const v1::UnitReport report = member.link.Take().unit_reports().reports(0);
    return NextExponents(kUnits, {report.max_exponents().begin(), report.max_exponents().end()});
  }

  // Leases units to a member, in the epoch at hand, and takes what it says of them. A report of a unit that was
  // reported before must be the same, bit by bit.
  v1::WindowComputed Compute(int64_t incarnation, const std::vector<int64_t>& units, int64_t window = 0) {
    Member& member = *members_.at(incarnation);
    member.epoch = epoch_;
    std::vector<std::pair<int64_t, int64_t>> ranges;
    for (int64_t unit : units) ranges.push_back({unit, 1});
    member.Plan(window, ranges, window == 0 ? exponents_ : std::vector<int>(), attempt_);
    std::vector<v1::UnitReport> reports;
    v1::WindowComputed computed = member.TakeComputed(&reports);
    EXPECT_EQ(reports.size(), units.size());
    for (const v1::UnitReport& report : reports) {
      const auto known = reports_.try_emplace(report.unit(), report).first;
      EXPECT_EQ(Content(report), Content(known->second)) << "unit " << report.unit();
      leases_[incarnation].insert(report.unit());
    }
    EXPECT_EQ(computed.key().epoch(), epoch_);
    return computed;
  }

  // The units leased to members that are gone, dealt out to the others.
  void ComputeLost() {
    std::set<int64_t> lost;
    for (int64_t unit = 0; unit < kUnits; ++unit) lost.insert(unit);
    for (const auto& [incarnation, member] : members_) {
      for (int64_t unit : leases_[incarnation]) lost.erase(unit);
    }
    std::map<int64_t, std::vector<int64_t>> shares;
    auto next = members_.begin();
    for (int64_t unit : lost) {
      shares[next->first].push_back(unit);
      if (++next == members_.end()) next = members_.begin();
    }
    for (const auto& [incarnation, units] : shares) Compute(incarnation, units);
  }

  // Seals in a new epoch for all members, with what they said that they hold.
  std::string Seal(int64_t window = 0) {
    ++epoch_;
    const std::string communicator = absl::StrCat("epoch-", epoch_);
    v1::Seal seal = MakeSeal(communicator);
    for (const auto& [incarnation, member] : members_) {
      member->epoch = epoch_;
      TellSeal(*member, seal, window, attempt_);
    }
    return communicator;
  }

  v1::Seal MakeSeal(const std::string& communicator) {
    std::vector<v1::UnitReport> reports;
    for (const auto& [unit, report] : reports_) reports.push_back(report);
    std::vector<int64_t> incarnations;
    for (const auto& [incarnation, member] : members_) incarnations.push_back(incarnation);
    v1::Seal seal = SealOf(reports, incarnations, communicator, mode_ == AccumulationMode::kExact);
    if (std::any_of(final_.begin(), final_.end(), [](const auto& entry) { return entry.second > 0; })) {
      for (int64_t incarnation : incarnations) seal.add_final_buckets(final_[incarnation]);
    }
    return seal;
  }

  // The members' answers to a seal that broke; a member that is killed is not heard.
  void TakeFailures(const std::vector<int64_t>& killed = {}) {
    for (int64_t incarnation : killed) {
      members_.at(incarnation)->TakeReduceFailed();
      members_.erase(incarnation);
      final_.erase(incarnation);
    }
    for (const auto& [incarnation, member] : members_) {
      const v1::ReduceFailed failed = member->TakeReduceFailed();
      EXPECT_EQ(failed.key().epoch(), epoch_);
      EXPECT_GE(failed.final_buckets(), final_[incarnation]);
      final_[incarnation] = failed.final_buckets();
    }
  }

  // All members step to the same digest, and commit.
  std::string TakeSteps(int64_t window = 0) {
    std::string digest;
    for (const auto& [incarnation, member] : members_) {
      const v1::Stepped stepped = member->TakeStepped();
      EXPECT_EQ(stepped.key().window(), window);
      if (digest.empty()) digest = stepped.digest();
      EXPECT_EQ(stepped.digest(), digest);
    }
    for (const auto& [incarnation, member] : members_) member->Commit(window, digest);
    reports_.clear();
    leases_.clear();
    final_.clear();
    return digest;
  }

  // The digests of the first two windows on one member, undisturbed.
  std::vector<std::string> Undisturbed() {
    std::vector<std::string> digests;
    const auto others = std::exchange(members_, {});
    const auto reports = std::exchange(reports_, {});
    const auto leases = std::exchange(leases_, {});
    const auto final = std::exchange(final_, {});
    const int64_t attempt = std::exchange(attempt_, 0);
    Add(99);
    for (int64_t window : {0, 1}) {
      Compute(99, {0, 1, 2, 3, 4, 5}, window);
      Seal(window);
      digests.push_back(TakeSteps(window));
    }
    members_.clear();
    attempt_ = attempt;
    return digests;
  }

  // The window after one that was disturbed, on who is left.
  std::string NextWindow() {
    auto next = members_.begin();
    std::map<int64_t, std::vector<int64_t>> shares;
    for (int64_t unit = 0; unit < kUnits; ++unit) {
      shares[next->first].push_back(unit);
      if (++next == members_.end()) next = members_.begin();
    }
    for (const auto& [incarnation, units] : shares) Compute(incarnation, units, 1);
    Seal(1);
    return TakeSteps(1);
  }

  // In the reduce of the next Seal, the rank leaves before operation `index`.
  void BreakBefore(int rank, int index) {
    collectives_.after = nullptr;
    collectives_.before = Hook(index, [rank](int other) { return other == rank; });
  }
  // The operation is completed, but one rank is told that it broke.
  void BreakAfter(int rank, int index) {
    collectives_.before = nullptr;
    collectives_.after = Hook(index, [rank](int other) { return other == rank; });
  }
  // The operation is completed, but only one rank is told so.
  void BreakAfterForAllBut(int rank, int index) {
    collectives_.before = nullptr;
    collectives_.after = Hook(index, [rank](int other) { return other != rank; });
  }
  template <typename Chosen>
  MemoryCollectives::Hook Hook(int index, Chosen chosen) const {
    return [index, chosen, communicator = absl::StrCat("epoch-", epoch_ + 1)](const MemoryOperation& operation) {
      const bool is_it =
          operation.communicator == communicator && operation.index == index && chosen(operation.rank);
      return is_it ? absl::UnavailableError("the network is gone") : absl::OkStatus();
    };
  }

  MemoryCollectives collectives_;
  AccumulationMode mode_ = AccumulationMode::kExact;
  std::vector<int> exponents_;
  int64_t epoch_ = 1;
  int64_t attempt_ = 0;
  std::map<int64_t, std::unique_ptr<Member>> members_;     // by incarnation: so in rank order
  std::map<int64_t, v1::UnitReport> reports_;              // of the window at hand
  std::map<int64_t, std::set<int64_t>> leases_;            // by incarnation
  std::map<int64_t, int64_t> final_;                       // as their last ReduceFailed said
};

std::vector<std::pair<int64_t, int64_t>> Ranges(const v1::BucketManifest& manifest) {
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (const v1::UnitRange& range : manifest.units()) ranges.push_back({range.first(), range.count()});
  return ranges;
}

TEST_F(WindowRecoveryTest, Reduce_MemberDiesInTheMiddle_OthersGoOnInTheSameAttempt) {
  const std::vector<std::string> expected = Undisturbed();
  for (int64_t incarnation : {1, 2, 3}) Add(incarnation);
  const double own_norm = Compute(1, {0, 1}).local_gradient_norm();
  Compute(2, {2, 3});
  Compute(3, {4, 5});
  BreakBefore(/*rank=*/2, /*index=*/2);
  Seal();
  TakeFailures(/*killed=*/{3});
  EXPECT_THAT(final_, ElementsAre(Pair(1, 2), Pair(2, 2)));

  const v1::WindowComputed computed = Compute(1, {4, 5});
  ASSERT_EQ(computed.buckets_size(), kBuckets);
  for (int bucket = 0; bucket < kBuckets; ++bucket) {
    const v1::BucketManifest& manifest = computed.buckets(bucket);
    EXPECT_EQ(manifest.final(), bucket < 2);
    if (bucket < 2) {
      EXPECT_EQ(manifest.units_size(), 0);
    } else {
      EXPECT_THAT(Ranges(manifest), ElementsAre(Pair(0, 2), Pair(4, 2)));
    }
  }
  EXPECT_EQ(computed.key().attempt(), 0);
  EXPECT_EQ(computed.local_gradient_norm(), own_norm);  // sums over all members are not this worker's

  // Member 2 got no units: it stays computed, and says nothing.
  const std::string communicator = Seal();
  EXPECT_EQ(TakeSteps(), expected[0]);
  EXPECT_THAT(collectives_.Operations(communicator),
              ElementsAre("broadcast from 0", "broadcast from 0", "all-reduce", "all-reduce"));
  EXPECT_EQ(NextWindow(), expected[1]);
}

TEST_F(WindowRecoveryTest, Reduce_OneMemberSawMoreComplete_ItSendsWhatTheOthersLack) {
  const std::vector<std::string> expected = Undisturbed();
  for (int64_t incarnation : {1, 2, 3}) Add(incarnation);
  Compute(1, {0, 1});
  Compute(2, {2, 3});
  Compute(3, {4, 5});
  BreakAfterForAllBut(/*rank=*/1, /*index=*/2);
  Seal();
  TakeFailures(/*killed=*/{3});
  EXPECT_THAT(final_, ElementsAre(Pair(1, 2), Pair(2, 3)));
  ComputeLost();
  const std::string communicator = Seal();
  EXPECT_EQ(TakeSteps(), expected[0]);
  EXPECT_THAT(collectives_.Operations(communicator),
              ElementsAre("broadcast from 0", "broadcast from 0", "broadcast from 1", "all-reduce"));
  EXPECT_EQ(NextWindow(), expected[1]);
}

TEST_F(WindowRecoveryTest, Reduce_TheHolderOfFinalBucketsDies_TheyAreReducedAgain) {
  const std::vector<std::string> expected = Undisturbed();
  for (int64_t incarnation : {1, 2, 3}) Add(incarnation);
  Compute(1, {0, 1, 2});
  Compute(2, {3, 4, 5});
  Compute(3, {});
  BreakAfterForAllBut(/*rank=*/1, /*index=*/1);
  Seal();
  TakeFailures(/*killed=*/{2});
  EXPECT_THAT(final_, ElementsAre(Pair(1, 1), Pair(3, 1)));
  ComputeLost();
  EXPECT_THAT(leases_[3], testing::Not(testing::IsEmpty()));
  const std::string communicator = Seal();
  EXPECT_EQ(TakeSteps(), expected[0]);
  EXPECT_THAT(collectives_.Operations(communicator),
              ElementsAre("broadcast from 0", "all-reduce", "all-reduce", "all-reduce"));
}

TEST_F(WindowRecoveryTest, Reduce_OthersHadAllSums_TheyStepAndOneDoesNot) {
  const std::vector<std::string> expected = Undisturbed();
  for (int64_t incarnation : {1, 2, 3}) Add(incarnation);
  Compute(1, {0, 1, 2});
  Compute(2, {3, 4});
  Compute(3, {5});
  BreakAfter(/*rank=*/0, /*index=*/kBuckets - 1);
  Seal();
  EXPECT_EQ(members_.at(1)->TakeReduceFailed().final_buckets(), kBuckets - 1);
  // The others had all sums, and stepped: that update counts.
  EXPECT_EQ(members_.at(2)->TakeStepped().digest(), expected[0]);
  EXPECT_EQ(members_.at(3)->TakeStepped().digest(), expected[0]);
}

TEST_F(WindowRecoveryTest, Reduce_LastMemberLeft_StepsAlone) {
  const std::vector<std::string> expected = Undisturbed();
  for (int64_t incarnation : {1, 2}) Add(incarnation);
  Compute(1, {0, 1, 2});
  Compute(2, {3, 4, 5});
  BreakBefore(/*rank=*/1, /*index=*/3);
  Seal();
  TakeFailures(/*killed=*/{2});
  ComputeLost();
  Seal();
  EXPECT_EQ(TakeSteps(), expected[0]);
  EXPECT_EQ(NextWindow(), expected[1]);
}

TEST_F(WindowRecoveryTest, Reduce_BreaksAgainAndAgain_SameDigest) {
  const std::vector<std::string> expected = Undisturbed();
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    uint64_t draws = seed * 1000;
    const auto draw = [&draws](int64_t below) { return static_cast<int64_t>(SplitMix64(++draws) % below); };
    for (int64_t incarnation : {1, 2, 3}) Add(incarnation);
    std::map<int64_t, std::vector<int64_t>> shares = {{1, {}}, {2, {}}, {3, {}}};
    for (int64_t unit = 0; unit < kUnits; ++unit) shares[1 + draw(3)].push_back(unit);
    for (const auto& [incarnation, units] : shares) Compute(incarnation, units);
    while (members_.size() > 1) {
      const int rank = static_cast<int>(draw(static_cast<int64_t>(members_.size())));
      const int index = static_cast<int>(draw(kBuckets - 1));
      switch (draw(3)) {
        case 0: BreakBefore(rank, index); break;
        case 1: BreakAfter(rank, index); break;
        default: BreakAfterForAllBut(rank, index);
      }
      Seal();
      if (draw(2) == 0) {
        auto dying = members_.begin();
        std::advance(dying, draw(static_cast<int64_t>(members_.size())));
        TakeFailures(/*killed=*/{dying->first});
      } else {
        TakeFailures();
      }
      ComputeLost();
    }
    Seal();
    ASSERT_EQ(TakeSteps(), expected[0]);
    members_.clear();
  }
}

TEST_F(WindowRecoveryTest, Fast_MemberDiesInTheMiddle_SumsHoldEachUnitOnce) {
  mode_ = AccumulationMode::kFast;
  Add(9);
  Compute(9, {0, 1, 2, 3, 4, 5});
  Seal();
  TakeSteps();
  members_.at(9)->Release();
  const std::unique_ptr<Job> alone = std::move(members_.at(9)->job);
  members_.clear();

  for (int64_t incarnation : {1, 2, 3}) Add(incarnation);
  Compute(1, {0, 1});
  Compute(2, {2, 3});
  Compute(3, {4, 5});
  BreakAfterForAllBut(/*rank=*/1, /*index=*/2);
  Seal();
  TakeFailures(/*killed=*/{3});
  EXPECT_THAT(final_, ElementsAre(Pair(1, 2), Pair(2, 3)));
  ComputeLost();
  const std::string communicator = Seal();
  TakeSteps();
  EXPECT_THAT(collectives_.Operations(communicator),
              ElementsAre("broadcast from 0", "broadcast from 0", "broadcast from 1", "all-reduce"));
  members_.at(2)->Release();
  const float* found = members_.at(2)->job->state->parameters();
  const ParameterLayout& layout = members_.at(2)->job->engine->layout();
  std::vector<float> moment(layout.tensors()[1].elements), expected_moment(moment.size());
  members_.at(2)->job->state->ReadArray(4, moment.data());  // the second tensor's first moment
  alone->state->ReadArray(4, expected_moment.data());
  for (size_t i = 0; i < moment.size(); ++i) ASSERT_NEAR(moment[i], expected_moment[i], 1e-6) << i;
  EXPECT_NEAR(found[0], alone->state->parameters()[0], 1e-6);
}

TEST_F(WindowRecoveryTest, Abort_BetweenBuckets_FinalOnesAreKept) {
  const std::vector<std::string> expected = Undisturbed();
  for (int64_t incarnation : {1, 2}) Add(incarnation);
  Compute(1, {0, 1, 2});
  Compute(2, {3, 4, 5});
  v1::CoordinatorMessage abort;
  abort.mutable_abort()->set_reason("a member died");
  *abort.mutable_abort()->mutable_key() = members_.at(1)->Key(0);
  abort.mutable_abort()->mutable_key()->set_epoch(epoch_ + 1);
  collectives_.before = [&, communicator = absl::StrCat("epoch-", epoch_ + 1)](const MemoryOperation& operation) {
    if (operation.communicator == communicator && operation.rank == 0 && operation.index == 3) {
      members_.at(1)->Tell(abort);
    }
    return absl::OkStatus();
  };
  Seal();
  const v1::ReduceFailed failed = members_.at(1)->TakeReduceFailed();
  EXPECT_EQ(failed.final_buckets(), 3);
  EXPECT_EQ(failed.unreachable_incarnations_size(), 0);
  const v1::ReduceFailed other = members_.at(2)->TakeReduceFailed();
  EXPECT_EQ(other.final_buckets(), 3);
  EXPECT_THAT(other.unreachable_incarnations(), ElementsAre(1));
  final_ = {{1, 3}, {2, 3}};
  Seal();  // of a newer epoch: the abort is not its
  EXPECT_EQ(TakeSteps(), expected[0]);
}

TEST_F(WindowRecoveryTest, Seal_SkipAfterAFailedReduce_KeepsParametersAndGoesOn) {
  for (int64_t incarnation : {1, 2}) Add(incarnation);
  const std::string before = members_.at(1)->loaded.parameter_hash();
  Compute(1, {0, 1, 2});
  Compute(2, {3, 4, 5});
  BreakBefore(/*rank=*/0, /*index=*/2);
  Seal();
  TakeFailures();
  v1::Seal seal = MakeSeal("skip");
  seal.set_verdict(v1::VERDICT_SKIP);
  for (const auto& [incarnation, member] : members_) TellSeal(*member, seal, 0);
  for (const auto& [incarnation, member] : members_) {
    const v1::Stepped stepped = member->TakeStepped();
    EXPECT_EQ(stepped.parameter_hash(), before);
    member->Commit(0, stepped.digest());
  }
  reports_.clear();
  final_.clear();
  const v1::WindowComputed computed = Compute(1, {0, 1}, 1);
  ASSERT_EQ(computed.buckets_size(), 1);
  EXPECT_FALSE(computed.buckets(0).final());
}

TEST_F(WindowRecoveryTest, Replay_AfterAFailedReduce_ZeroesFinalBucketsToo) {
  const std::vector<std::string> expected = Undisturbed();
  for (int64_t incarnation : {1, 2}) Add(incarnation);
  Compute(1, {0, 1, 2});
  Compute(2, {3, 4, 5});
  BreakBefore(/*rank=*/0, /*index=*/2);
  Seal();
  TakeFailures();
  EXPECT_THAT(final_, ElementsAre(Pair(1, 2), Pair(2, 2)));
  attempt_ = 1;
  leases_.clear();
  final_.clear();
  for (const auto& [incarnation, member] : members_) {
    v1::CoordinatorMessage replay;
    *replay.mutable_replay()->mutable_key() = member->Key(0, 1);
    member->Tell(replay);
  }
  const v1::WindowComputed computed = Compute(1, {3, 4});
  ASSERT_EQ(computed.buckets_size(), 1);
  EXPECT_THAT(Ranges(computed.buckets(0)), ElementsAre(Pair(3, 2)));
  Compute(2, {0, 1, 2, 5});
  Seal();
  EXPECT_EQ(TakeSteps(), expected[0]);
}

TEST_F(WindowRecoveryTest, Broadcast_BitFlippedOnTheWire_NotFinalAndTriedAgain) {
  const std::vector<std::string> expected = Undisturbed();
  for (int64_t incarnation : {1, 2}) Add(incarnation);
  Compute(1, {0, 1, 2});
  Compute(2, {3, 4, 5});
  BreakAfter(/*rank=*/1, /*index=*/1);
  Seal();
  TakeFailures();
  EXPECT_THAT(final_, ElementsAre(Pair(1, 2), Pair(2, 1)));
  collectives_.tamper = [communicator = absl::StrCat("epoch-", epoch_ + 1)](const MemoryOperation& operation,
                                                                            void* data, size_t size_bytes) {
    if (operation.communicator != communicator || operation.root != 0 || operation.index != 1) return;
    static_cast<char*>(data)[size_bytes / 2] ^= 4;
  };
  Seal();
  v1::ReduceFailed failed = members_.at(2)->TakeReduceFailed();
  EXPECT_THAT(failed.reason(), HasSubstr("bucket 1 of window 0 was reduced to checksum"));
  EXPECT_EQ(failed.final_buckets(), 1);
  final_[1] = members_.at(1)->TakeReduceFailed().final_buckets();
  EXPECT_EQ(final_[1], 2);
  Seal();
  EXPECT_EQ(TakeSteps(), expected[0]);
}

TEST_F(WindowRecoveryTest, Seal_WrongAboutThisMembersBuckets_Refused) {
  for (int64_t incarnation : {1, 2}) Add(incarnation);
  Compute(1, {0, 1, 2});
  Compute(2, {3, 4, 5});
  BreakBefore(/*rank=*/0, /*index=*/2);
  Seal();
  TakeFailures();
  ++epoch_;
  const auto refused = [&](std::vector<int64_t> final_buckets, const std::string& communicator) {
    v1::Seal seal = MakeSeal(communicator);
    seal.mutable_final_buckets()->Assign(final_buckets.begin(), final_buckets.end());
    members_.at(1)->epoch = epoch_;
    TellSeal(*members_.at(1), seal, 0);
    const v1::ReduceFailed failed = members_.at(1)->TakeReduceFailed();
    EXPECT_EQ(failed.final_buckets(), 2);
    return failed.reason();
  };
  EXPECT_THAT(refused({1, 2}, "a"), HasSubstr("says that this member holds 1 buckets final; it holds 2"));
  EXPECT_THAT(refused({}, "b"), HasSubstr("holds 0 buckets final; it holds 2"));
  EXPECT_THAT(refused({2}, "c"), HasSubstr("says for 1 members"));
}

TEST_F(WindowRecoveryTest, FinalBucket_ChangedInMemory_WorkerGivesUpTheJob) {
  for (int64_t incarnation : {1, 2}) Add(incarnation);
  Compute(1, {0, 1, 2});
  Compute(2, {3, 4, 5});
  BreakBefore(/*rank=*/0, /*index=*/2);
  Seal();
  TakeFailures();
  members_.at(1)->job->accumulator->ExactBucket(1)[77] ^= 1;  // it waits for messages meanwhile
  Seal();
  const v1::WorkerMessage message = members_.at(1)->link.Take();
  ASSERT_TRUE(message.has_job_failed()) << message.DebugString();
  EXPECT_FALSE(message.job_failed().fatal_for_job());
  EXPECT_THAT(message.job_failed().reason(), HasSubstr("bucket 1 of window 0, which is final, has checksum"));
  members_.at(1)->Join();
}

TEST_F(WindowRecoveryTest, ParameterHash_OfLoadAndStep_IsThatOfTheNextWindow) {
  Add(1);
  const v1::WindowComputed first = Compute(1, {0, 1, 2, 3, 4, 5});
  EXPECT_EQ(members_.at(1)->loaded.parameter_hash(), first.parameter_hash());
  Seal();
  const v1::Stepped stepped = members_.at(1)->TakeStepped();
  EXPECT_NE(stepped.parameter_hash(), first.parameter_hash());
  members_.at(1)->Commit(0, stepped.digest());
  reports_.clear();
  EXPECT_EQ(Compute(1, {0}, 1).parameter_hash(), stepped.parameter_hash());
}

}  // namespace
}  // namespace accrue
