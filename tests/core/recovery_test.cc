// A reduce that breaks, and the window that goes on from what is final and from what was accumulated.
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
using ::testing::Key;
using ::testing::Not;
using ::testing::SizeIs;

class Recovery : public ::testing::Test {
 protected:
  // `workers` members of a job of four buckets, window 0 sealed.
  std::vector<Incarnation> Sealed(int workers, JobConfig config = SmallJob()) {
    config.max_workers = 16;
    harness_.buckets = 4;
    harness_.Submit(config);
    const std::vector<Incarnation> members = harness_.Start(workers);
    for (Incarnation member : members) harness_.Compute(member, 0);
    return members;
  }
  // Plans that the last event made for window 0; those of window 1 lose their holder too.
  std::map<Incarnation, Plan> Planned() const {
    std::map<Incarnation, Plan> plans;
    for (const Send& send : harness_.Effects<Send>()) {
      const Plan* plan = std::get_if<Plan>(&send.message);
      if (plan != nullptr && plan->key.window == Window(0)) plans[send.to] = *plan;
    }
    return plans;
  }
  void Commit(const std::vector<Incarnation>& members) {
    for (Incarnation member : members) harness_.Step(member, 0, "d0");
  }
  Harness harness_;
};

TEST_F(Recovery, DeathInTheReduce_OnlyItsUnitsAreComputedAgainWithinTheAttempt) {
  const auto workers = Sealed(3);
  const Seal first = harness_.Last<Seal>(workers[0]);
  EXPECT_THAT(first.final_buckets, IsEmpty());
  EXPECT_EQ(first.loss_sum, 16. + 32. + 48. + 64.);
  harness_.Gone(workers[2]);
  EXPECT_THAT(harness_.Sent<Abort>(), SizeIs(2));
  EXPECT_EQ(harness_.Effects<GiveUpCommunicator>().at(0).communicator, first.communicator);
  harness_.Fail(workers[0]);
  EXPECT_THAT(Planned(), IsEmpty());  // the other may yet have stepped
  harness_.Fail(workers[1]);
  EXPECT_THAT(harness_.Sent<Replay>(), IsEmpty());
  EXPECT_THAT(harness_.Effects<PersistAttempt>(), IsEmpty());
  const auto plans = Planned();
  ASSERT_THAT(plans, ElementsAre(Key(workers[0])));
  EXPECT_THAT(plans.at(workers[0]).units, ElementsAre(UnitRange{3, 1}));
  EXPECT_EQ(plans.at(workers[0]).key.attempt, Attempt(0));

  harness_.Compute(workers[0], 0);  // the other stays computed
  const auto seals = harness_.Sent<Seal>();
  ASSERT_THAT(seals, SizeIs(2));
  const Seal& second = seals.at(workers[0]);
  EXPECT_THAT(second.members, ElementsAre(workers[0], workers[1]));
  EXPECT_GT(second.key.epoch, first.key.epoch);
  EXPECT_NE(second.communicator, first.communicator);
  EXPECT_EQ(second.bucket_checksums, first.bucket_checksums);
  EXPECT_EQ(second.loss_sum, first.loss_sum);
  Commit({workers[0], workers[1]});
  ASSERT_THAT(harness_.commits, SizeIs(1));
  EXPECT_EQ(harness_.commits[0].attempt, Attempt(0));
  EXPECT_EQ(harness_.commits[0].workers[0].units + harness_.commits[0].workers[1].units, 4);
}

TEST_F(Recovery, StepThatFollowedTheFirstSeal_DoesNotCountForTheSecond) {
  const auto workers = Sealed(3);
  const accrue::core::Key old = harness_.Last<Seal>(workers[1]).key;
  harness_.Gone(workers[2]);
  harness_.Fail(workers[0]);
  harness_.Fail(workers[1]);
  harness_.Compute(workers[0], 0);
  ASSERT_THAT(harness_.Sent<Seal>(), SizeIs(2));
  WorkerStepped late{workers[1]};
  late.key = old;
  late.digest = "d0";
  harness_.Apply(late);
  EXPECT_EQ(harness_.core.Dropped().at("seal is old"), 1);
  harness_.Step(workers[0], 0, "d0");
  EXPECT_THAT(harness_.commits, IsEmpty()) << "one of two has stepped";
  harness_.Step(workers[1], 0, "d0");
  EXPECT_THAT(harness_.commits, SizeIs(1));
}

TEST_F(Recovery, FinalBuckets_AreNamedInRankOrderAndInTheManifest) {
  const auto workers = Sealed(3);
  harness_.Gone(workers[1]);
  harness_.Fail(workers[0], {}, 1);
  harness_.Fail(workers[2], {}, 3);
  EXPECT_THAT(harness_.ledger, Contains(AllOf(Field(&LedgerEntry::kind, "abort"),
                                              Field(&LedgerEntry::reason, HasSubstr("3 of 4 buckets are final")))));
  harness_.Compute(workers[0], 0);
  harness_.Compute(workers[2], 0);
  EXPECT_THAT(harness_.Effects<Expel>(), IsEmpty());
  EXPECT_THAT(harness_.Last<Seal>(workers[0]).final_buckets, ElementsAre(1, 3));
  Commit({workers[0], workers[2]});
  EXPECT_THAT(harness_.commits, SizeIs(1));
}

TEST_F(Recovery, AllBucketsFinalSomewhere_NothingIsComputedAgain) {
  const auto workers = Sealed(3);
  harness_.Gone(workers[1]);
  harness_.Fail(workers[0], {}, 4);
  harness_.Fail(workers[2], {}, 0);
  EXPECT_THAT(Planned(), IsEmpty());
  EXPECT_THAT(harness_.Sent<Seal>().at(workers[2]).final_buckets, ElementsAre(4, 0));
  Commit({workers[0], workers[2]});
  EXPECT_THAT(harness_.commits, SizeIs(1));
}

TEST_F(Recovery, TheOnlyOneWithAllBucketsDiesNext_WhatWasSparedIsComputedAfterAll) {
  const auto workers = Sealed(3);
  harness_.Gone(workers[1]);
  harness_.Fail(workers[0], {}, 4);
  harness_.Fail(workers[2], {}, 2);
  harness_.Gone(workers[0]);
  harness_.Fail(workers[2], {}, 3);
  EXPECT_THAT(harness_.Held(workers[2], 0), ElementsAre(0, 1, 2, 3));
  harness_.Compute(workers[2], 0);
  EXPECT_THAT(harness_.Last<Seal>(workers[2]).final_buckets, ElementsAre(3));
  Commit({workers[2]});
  EXPECT_THAT(harness_.commits, SizeIs(1));
}

TEST_F(Recovery, HolderOfFinalBucketsDiesWhileTheRestIsComputed_ItsUnitsAndThoseItTookAreLeasedAgain) {
  const auto workers = Sealed(4);
  harness_.Gone(workers[3]);
  harness_.Fail(workers[0], {}, 3);
  harness_.Fail(workers[1], {}, 1);
  harness_.Fail(workers[2], {}, 0);
  harness_.ReportUnits(workers[0], 0);
  EXPECT_THAT(harness_.Held(workers[0], 0), ElementsAre(0, 3));
  harness_.Gone(workers[0]);
  std::vector<int64_t> held = harness_.Held(workers[1], 0);
  for (int64_t unit : harness_.Held(workers[2], 0)) held.push_back(unit);
  EXPECT_THAT(held, testing::UnorderedElementsAre(0, 1, 2, 3));
  harness_.Compute(workers[1], 0);
  harness_.Compute(workers[2], 0);
  EXPECT_THAT(harness_.Last<Seal>(workers[1]).final_buckets, ElementsAre(1, 0));
}

TEST_F(Recovery, SecondDeathInTheSecondReduce_GoesOnFromThere) {
  const auto workers = Sealed(4);
  harness_.Gone(workers[3]);
  for (Incarnation worker : {workers[0], workers[1], workers[2]}) harness_.Fail(worker, {}, 1);
  for (Incarnation worker : {workers[0], workers[1], workers[2]}) harness_.Compute(worker, 0);
  ASSERT_THAT(harness_.Last<Seal>(workers[2]).final_buckets, ElementsAre(1, 1, 1));
  harness_.Gone(workers[1]);
  harness_.Fail(workers[0], {}, 2);
  harness_.Fail(workers[2], {}, 1);
  harness_.Compute(workers[0], 0);
  harness_.Compute(workers[2], 0);
  EXPECT_THAT(harness_.Last<Seal>(workers[0]).final_buckets, ElementsAre(2, 1));
  Commit({workers[0], workers[2]});
  ASSERT_THAT(harness_.commits, SizeIs(1));
  EXPECT_EQ(harness_.commits[0].workers[0].units + harness_.commits[0].workers[1].units, 4);
}

TEST_F(Recovery, JoinerInBetween_HasNothingFinalAndNoUnits) {
  const auto workers = Sealed(2);
  harness_.Gone(workers[1]);
  harness_.Fail(workers[0], {}, 2);
  const Incarnation joiner = harness_.Join();
  harness_.Load(joiner);
  harness_.Synced(workers[0], "scratch");
  harness_.Synced(joiner, "scratch");
  harness_.Compute(workers[0], 0);
  harness_.SendComputed(joiner, 0);
  EXPECT_THAT(harness_.Last<Seal>(joiner).final_buckets, ElementsAre(2, 0));
}

TEST_F(Recovery, MoreFinalBucketsThanThereAre_ExpelsTheWorker) {
  const auto workers = Sealed(3);
  harness_.Fail(workers[0], {}, 5);
  ASSERT_THAT(harness_.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(harness_.Effects<Expel>()[0].worker, workers[0]);
  EXPECT_THAT(harness_.Effects<Expel>()[0].reason, HasSubstr("5 final buckets; it had 0 of 4"));
  harness_.Fail(workers[1]);
  harness_.Fail(workers[2]);
  for (Incarnation worker : {workers[1], workers[2]}) harness_.Compute(worker, 0);
  Commit({workers[1], workers[2]});
  EXPECT_THAT(harness_.commits, SizeIs(1));
}

TEST_F(Recovery, FewerFinalBucketsThanBefore_ExpelsTheWorker) {
  const auto workers = Sealed(3);
  harness_.Gone(workers[2]);
  harness_.Fail(workers[0], {}, 3);
  harness_.Fail(workers[1], {}, 3);
  for (Incarnation worker : {workers[0], workers[1]}) harness_.Compute(worker, 0);
  harness_.Fail(workers[0], {}, 2);
  ASSERT_THAT(harness_.Effects<Expel>(), SizeIs(1));
  EXPECT_THAT(harness_.Effects<Expel>()[0].reason, HasSubstr("2 final buckets; it had 3"));
}

TEST_F(Recovery, ManifestNamesOtherFinalBuckets_ExpelsTheWorker) {
  const auto workers = Sealed(2);
  harness_.Gone(workers[1]);
  harness_.Fail(workers[0], {}, 2);
  harness_.ReportUnits(workers[0], 0);
  const BucketManifest open{false, {{0, 4}}};
  harness_.Apply(WindowComputed{workers[0], harness_.KeyOf(workers[0], 0), "p", {{true, {}}, open, open, open}});
  ASSERT_THAT(harness_.Effects<Expel>(), SizeIs(1));
  EXPECT_THAT(harness_.Effects<Expel>()[0].reason, HasSubstr("bucket 1 is said to be open; 2 of 4 are final"));
}

TEST_F(Recovery, FastMode_GoesOnWithoutChecksums) {
  JobConfig config = SmallJob();
  config.exact = false;
  config.max_workers = 3;
  harness_.buckets = 4;
  harness_.Submit(config);
  std::vector<Incarnation> workers;
  for (int i = 0; i < 3; ++i) workers.push_back(harness_.Join());
  for (Incarnation worker : workers) harness_.Load(worker);
  for (Incarnation worker : workers) harness_.Compute(worker, 0);
  harness_.Gone(workers[2]);
  harness_.Fail(workers[0], {}, 2);
  harness_.Fail(workers[1], {}, 0);
  harness_.Compute(workers[1], 0);
  EXPECT_THAT(harness_.Last<Seal>(workers[1]).final_buckets, ElementsAre(2, 0));
  EXPECT_THAT(harness_.Last<Seal>(workers[1]).bucket_checksums, IsEmpty());
  Commit({workers[0], workers[1]});
  EXPECT_THAT(harness_.commits, SizeIs(1));
}

TEST_F(Recovery, CheckpointOfTheSeal_IsOrderedAgainWithTheNextOne) {
  JobConfig config = SmallJob();
  config.checkpoint_every = 1;
  const auto workers = Sealed(3, config);
  EXPECT_EQ(harness_.Last<Seal>(workers[0]).checkpoint->shards, 3);
  harness_.Gone(workers[2]);
  for (Incarnation worker : {workers[0], workers[1]}) harness_.Fail(worker);
  for (Incarnation worker : {workers[0], workers[1]}) harness_.Compute(worker, 0);
  EXPECT_EQ(harness_.Last<Seal>(workers[0]).checkpoint->shards, 2);
  Commit({workers[0], workers[1]});
  for (Incarnation worker : {workers[0], workers[1]}) harness_.WriteShard(worker);
  EXPECT_THAT(harness_.Effects<FinishCheckpoint>(), SizeIs(1));
}

TEST_F(Recovery, CheckpointOwedFromBefore_IsStillOwed) {
  JobConfig config = SmallJob();
  config.checkpoint_every = 3;
  const auto workers = Sealed(3, config);
  Commit(workers);
  for (int64_t window = 1; window < 3; ++window) harness_.RunWindow(workers, window);
  harness_.WriteShard(workers[0], "the disk is full");  // window 3's is abandoned, and owed
  for (Incarnation worker : {workers[1], workers[2]}) harness_.WriteShard(worker);
  for (Incarnation worker : workers) harness_.Compute(worker, 3);
  ASSERT_TRUE(harness_.Last<Seal>(workers[0]).checkpoint.has_value());
  for (Incarnation worker : workers) harness_.Fail(worker);
  harness_.Wait(100'000'000);
  ASSERT_THAT(harness_.Sent<Seal>(), SizeIs(3));
  EXPECT_TRUE(harness_.Last<Seal>(workers[0]).checkpoint.has_value());
}

TEST_F(Recovery, FailedWithoutADeath_IsTriedAgainAfterAPause) {
  const auto workers = Sealed(2);
  const std::string name = harness_.Last<Seal>(workers[0]).communicator;
  for (int failures = 1; failures <= 3; ++failures) {
    for (Incarnation worker : workers) harness_.Fail(worker);
    EXPECT_THAT(harness_.Sent<Seal>(), IsEmpty());
    harness_.Wait((int64_t{100'000'000} << (failures - 1)) - 1);
    EXPECT_THAT(harness_.Sent<Seal>(), IsEmpty()) << failures;
    harness_.Wait(1);
    EXPECT_THAT(harness_.Sent<Seal>(), SizeIs(2)) << failures;
    EXPECT_NE(harness_.Last<Seal>(workers[0]).communicator, name);
  }
}

TEST_F(Recovery, ReducesThatFailBySuccessiveDeaths_DoNotCountAgainstTheJob) {
  std::vector<Incarnation> workers = Sealed(12);
  while (workers.size() > 2) {
    harness_.Gone(workers.back());
    workers.pop_back();
    for (Incarnation worker : workers) harness_.Fail(worker);
    for (Incarnation worker : workers) harness_.Compute(worker, 0);
  }
  Commit(workers);
  EXPECT_THAT(harness_.commits, SizeIs(1));
}

// ---- units computed again ----

TEST_F(Recovery, UnitComesOutTheSame_NothingIsSaid) {
  const auto workers = Sealed(2);
  harness_.Gone(workers[1]);
  harness_.Fail(workers[0], {}, 2);
  harness_.Compute(workers[0], 0);
  EXPECT_THAT(harness_.ledger, Not(Contains(Field(&LedgerEntry::kind, "differs"))));
}

TEST_F(Recovery, UnitComesOutDifferentlyBeforeTheSeal_LedgerNamesBothAndTheNewOneCounts) {
  harness_.Submit(SmallJob());
  const auto workers = harness_.Start(2);
  harness_.ReportUnits(workers[1], 0);  // units 2 and 3
  harness_.Gone(workers[1]);
  UnitReport other = harness_.UnitOf(0, 3);
  other.loss_sum = 65;
  harness_.special[{0, 3}] = other;
  harness_.Compute(workers[0], 0);
  EXPECT_THAT(harness_.ledger,
              Contains(AllOf(Field(&LedgerEntry::kind, "differs"),
                             Field(&LedgerEntry::reason, AllOf(HasSubstr("unit 3 of window 0"),
                                                               HasSubstr("worker-2"), HasSubstr("worker-1"),
                                                               HasSubstr("loss sums 64"), HasSubstr("and 65"))))));
  EXPECT_EQ(harness_.Last<Seal>(workers[0]).loss_sum, 16. + 32. + 48. + 65.);
}

TEST_F(Recovery, UnitComesOutDifferentlyAndNothingIsFinal_GoesOnWithTheNewOne) {
  const auto workers = Sealed(2);
  harness_.Gone(workers[1]);
  harness_.Fail(workers[0], {}, 0);
  UnitReport other = harness_.UnitOf(0, 2);
  other.bucket_checksums[1] = 7;
  harness_.special[{0, 2}] = other;
  harness_.Compute(workers[0], 0);
  EXPECT_THAT(harness_.ledger, Contains(AllOf(Field(&LedgerEntry::kind, "differs"),
                                              Field(&LedgerEntry::reason, HasSubstr("of bucket 1")))));
  EXPECT_EQ(harness_.Last<Seal>(workers[0]).bucket_checksums[1], (uint64_t{3} << 62) + 7);
  EXPECT_EQ(harness_.Last<Seal>(workers[0]).key.attempt, Attempt(0));
}

TEST_F(Recovery, UnitComesOutDifferentlyAndBucketsAreFinal_TheAttemptIsVoid) {
  const auto workers = Sealed(2);
  harness_.Gone(workers[1]);
  harness_.Fail(workers[0], {}, 2);
  UnitReport other = harness_.UnitOf(0, 2);
  other.max_exponents[1] = -2;
  harness_.special[{0, 2}] = other;
  harness_.ReportUnits(workers[0], 0);
  ASSERT_THAT(harness_.Effects<PersistAttempt>(), SizeIs(1));
  EXPECT_THAT(harness_.Sent<Replay>().at(workers[0]).reason, HasSubstr("exponents -3 and -2 of tensor 1"));
  EXPECT_THAT(harness_.Sent<Plan>().at(workers[0]).units, ElementsAre(UnitRange{0, 4}));
  harness_.Compute(workers[0], 0);
  EXPECT_THAT(harness_.Last<Seal>(workers[0]).final_buckets, IsEmpty());
  Commit({workers[0]});
  ASSERT_THAT(harness_.commits, SizeIs(1));
  EXPECT_EQ(harness_.commits[0].attempt, Attempt(1));
}

}  // namespace
}  // namespace accrue::core
