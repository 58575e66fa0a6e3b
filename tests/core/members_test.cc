// Workers that come, go, differ, or die at every point of a window.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/harness.h"

namespace accrue::core {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// ---- start ----

TEST(Start, TooFewWorkers_WaitsAndSaysSo) {
  Harness harness;
  JobConfig config = SmallJob();
  config.min_workers = 2;
  harness.Submit(config);
  harness.Join();
  EXPECT_EQ(harness.View().state, JobState::kWaiting);
  EXPECT_THAT(harness.View().reason, HasSubstr("1 of at least 2"));
}

// Processors may multiply binary32 alike and bf16 not.
TEST(Start, NumericClass_IsThatOfTheJobsPrecision) {
  for (const bool bf16 : {false, true}) {
    Harness harness;
    JobConfig config = SmallJob();
    config.precision = bf16 ? Precision::kBf16 : Precision::kFp32;
    harness.Submit(config);
    const Incarnation first = harness.Join("cpu", "cpu one");
    EXPECT_EQ(harness.Sent<AssignJob>().count(first), 1u);
    const Incarnation second = harness.Join("cpu", "cpu two");
    EXPECT_EQ(harness.Sent<AssignJob>().count(second), bf16 ? 0u : 1u);
  }
}

// As a CPU is in tf32: nothing is sent to it, and the reason is there at once.
TEST(Start, WorkerThatDoesNotComputeThePrecision_RefusedWithTheReason) {
  for (const bool closed_fleet : {false, true}) {
    Harness harness;
    JobConfig config = SmallJob();
    config.precision = Precision::kTf32;
    config.closed_fleet = closed_fleet;
    harness.Submit(config);
    harness.Join();
    EXPECT_THAT(harness.Sent<AssignJob>(), IsEmpty());
    EXPECT_EQ(harness.View().state, closed_fleet ? JobState::kFailed : JobState::kWaiting);
    EXPECT_THAT(harness.View().reason, HasSubstr("does not compute in precision tf32 with backend cpu: only GPUs do"));
  }
}

TEST(Start, WaitsForWorkersThatStillLoadUpToTheGatheringTime) {
  CoreOptions options = Harness::Options();
  options.gather_ns = 100;
  Harness harness(options);
  harness.Submit(SmallJob());
  const Incarnation first = harness.Join(), second = harness.Join();
  harness.Load(first);
  harness.AdvanceNs(500);
  harness.Apply(Tick{});
  EXPECT_EQ(harness.View().state, JobState::kStarting);  // the second one loads
  harness.Load(second);
  EXPECT_THAT(harness.Sent<ProbeOrder>(), IsEmpty());  // a third may be about to come
  harness.AdvanceNs(100);
  harness.Apply(Tick{});
  EXPECT_THAT(harness.Sent<ProbeOrder>(), SizeIs(1));
  EXPECT_THAT(harness.Effects<PersistEpoch>().at(0).members, ElementsAre(first, second));
}

TEST(Start, LoadingWorkerTakesTooLong_StartsWithoutIt) {
  CoreOptions options = Harness::Options();
  options.gather_ns = 100;
  Harness harness(options);
  harness.Submit(SmallJob());
  const Incarnation first = harness.Join();
  harness.Join();
  harness.Load(first);
  harness.AdvanceNs(1000);
  harness.Apply(Tick{});
  EXPECT_EQ(harness.View().state, JobState::kRunning);
}

TEST(Start, AtWorkersMax_DoesNotWait) {
  CoreOptions options = Harness::Options();
  options.gather_ns = 1'000'000'000;
  Harness harness(options);
  JobConfig config = SmallJob();
  config.max_workers = 1;
  harness.Submit(config);
  const Incarnation first = harness.Join(), second = harness.Join();
  harness.Load(first);
  EXPECT_EQ(harness.View().state, JobState::kRunning);
  EXPECT_EQ(harness.core.Workers()[1].incarnation, second);
  EXPECT_EQ(harness.core.Workers()[1].state, "idle");
}

TEST(Start, DigestDiffers_IsRefusedWithBothAndNotAskedAgain) {
  Harness harness;
  JobConfig config = SmallJob();
  config.min_workers = 2;
  harness.Submit(config);
  const Incarnation first = harness.Join(), second = harness.Join();
  harness.Load(first, "aaa");
  harness.Load(second, "bbb");
  EXPECT_THAT(harness.Sent<Release>().at(second).reason, AllOf(HasSubstr("aaa"), HasSubstr("bbb")));
  EXPECT_THAT(harness.Sent<AssignJob>(), IsEmpty());
  EXPECT_EQ(harness.View().state, JobState::kWaiting);
  EXPECT_THAT(harness.View().reason, HasSubstr("bbb"));
}

TEST(Start, LayoutDiffers_IsRefused) {
  Harness harness;
  JobConfig config = SmallJob();
  config.min_workers = 2;
  harness.Submit(config);
  const Incarnation first = harness.Join(), second = harness.Join();
  harness.Load(first);
  JobLoaded loaded{second, harness.Last<AssignJob>(second).key, "scratch", {60, 41}, 1, {}};
  harness.Apply(loaded);
  EXPECT_THAT(harness.Sent<Release>().at(second).reason, HasSubstr("60 41"));
}

TEST(Start, NumericClassDiffers_IsNotAssigned) {
  Harness harness;
  harness.Submit(SmallJob());
  harness.Join("cpu avx2");
  const Incarnation other = harness.Join("cpu avx512");
  EXPECT_THAT(harness.Sent<AssignJob>(), IsEmpty());
  EXPECT_THAT(harness.ledger.back().reason, AllOf(HasSubstr("avx2"), HasSubstr("avx512")));
  JobConfig config = SmallJob();
  config.id = "another";
  harness.Submit(config);
  EXPECT_THAT(harness.Sent<AssignJob>(), testing::Contains(testing::Key(other)));
}

TEST(Jobs, IdleWorkersGoToThemInOrderOfSubmission) {
  Harness harness;
  JobConfig config = SmallJob();
  config.max_workers = 2;
  harness.Submit(config);
  JobConfig second = config;
  second.id = "second";
  harness.Submit(second);
  std::vector<JobId> jobs;
  for (int i = 0; i < 5; ++i) harness.Join();
  for (const WorkerView& worker : harness.core.Workers()) jobs.push_back(worker.job);
  EXPECT_THAT(jobs, ElementsAre("job", "job", "second", "second", ""));
}

// ---- joining ----

TEST(Joiner, OfARunningJob_GetsTheStateThenZeroUnitsThenAShare) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  const Incarnation joiner = harness.Join();
  EXPECT_EQ(harness.Last<AssignJob>(joiner).start, AssignJob::Start::kFromMembers);
  harness.RunWindow(workers, 0);
  harness.Load(joiner);
  const auto syncs = harness.Sent<StateSync>();
  ASSERT_THAT(syncs, SizeIs(2));
  EXPECT_EQ(syncs.at(joiner).source, workers[0]);
  EXPECT_THAT(syncs.at(joiner).members, ElementsAre(workers[0], joiner));
  EXPECT_EQ(syncs.at(joiner).key.window, Window(1));
  harness.Compute(workers[0], 1);
  EXPECT_THAT(harness.Sent<Seal>(), IsEmpty());  // the state must not change under the copy
  harness.Synced(workers[0], Harness::DigestOf(0));
  harness.Synced(joiner, Harness::DigestOf(0));
  const Plan entry = harness.Sent<Plan>().at(joiner);
  EXPECT_THAT(entry.units, IsEmpty());
  harness.SendComputed(joiner, 1);
  EXPECT_THAT(harness.Sent<Seal>().at(joiner).members, ElementsAre(workers[0], joiner));
  harness.Step(workers[0], 1, "d1");
  harness.Step(joiner, 1, "d1");
  // Window 2 was planned before it came; window 3 is shared.
  harness.RunWindow({workers[0], joiner}, 2);
  EXPECT_THAT(harness.Held(joiner, 3), SizeIs(2));
  EXPECT_THAT(harness.commits, SizeIs(3));
}

TEST(Joiner, WithAnotherDigestThanTheMembers_IsExpelledAndTheJobGoesOn) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  harness.RunWindow(workers, 0);
  const Incarnation joiner = harness.Join();
  harness.Load(joiner);
  harness.Synced(joiner, "garbled");
  ASSERT_THAT(harness.Effects<Expel>(), SizeIs(1));
  EXPECT_THAT(harness.Effects<Expel>()[0].reason,
              AllOf(HasSubstr("garbled"), HasSubstr(Harness::DigestOf(0))));
  harness.RunWindow(workers, 1);
  EXPECT_THAT(harness.commits, SizeIs(2));
}

TEST(Joiner, SourceDies_AnotherSends) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  harness.RunWindow(workers, 0);
  const Incarnation joiner = harness.Join();
  harness.Load(joiner);
  const Incarnation source = harness.Last<StateSync>(joiner).source;
  const std::string name = harness.Last<StateSync>(joiner).communicator;
  harness.Gone(source);
  EXPECT_THAT(harness.Sent<StateSync>(), SizeIs(2));
  EXPECT_NE(harness.Last<StateSync>(joiner).source, source);
  EXPECT_NE(harness.Last<StateSync>(joiner).communicator, name);
  EXPECT_EQ(harness.Effects<GiveUpCommunicator>().at(0).communicator, name);
}

TEST(Joiner, NeverDone_IsExpelledAfterATime) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  harness.RunWindow(workers, 0);
  const Incarnation joiner = harness.Join();
  harness.Load(joiner);
  for (int second = 0; second < 121; ++second) {
    harness.AdvanceNs(1'000'000'000);
    for (Incarnation worker : {workers[0], joiner}) harness.Apply(WorkerHeartbeat{worker, 1});
    harness.Apply(Tick{});
  }
  EXPECT_THAT(harness.core.Workers(), SizeIs(1));
  harness.RunWindow(workers, 1);
  EXPECT_THAT(harness.commits, SizeIs(2));
}

// ---- leaving ----

TEST(Leaving, FinishesItsWindowAndIsReleasedAtTheBoundary) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  harness.Leave(workers[1]);
  EXPECT_THAT(harness.Sent<Release>(), IsEmpty());
  harness.Compute(workers[0], 0);
  EXPECT_THAT(harness.Held(workers[1], 1), IsEmpty());  // the next plan leaves it out
  harness.Compute(workers[1], 0);
  harness.Step(workers[0], 0, "d");
  harness.Step(workers[1], 0, "d");
  EXPECT_THAT(harness.Sent<Release>(), testing::Contains(testing::Key(workers[1])));
  harness.Compute(workers[0], 1);
  EXPECT_THAT(harness.Sent<Seal>().at(workers[0]).members, ElementsAre(workers[0]));
}

TEST(Leaving, LastHolder_IsReleasedOnlyAfterACheckpoint) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  harness.Leave(workers[0]);
  harness.RunWindow(workers, 0);
  EXPECT_THAT(harness.Sent<Release>(), IsEmpty());
  EXPECT_EQ(harness.Sent<CheckpointNow>().at(workers[0]).order.window, Window(1));
  harness.WriteShard(workers[0]);
  ASSERT_THAT(harness.Effects<FinishCheckpoint>(), SizeIs(1));
  harness.VerifyCheckpoint(1);
  EXPECT_THAT(harness.Sent<Release>(), SizeIs(1));
  EXPECT_EQ(harness.View().state, JobState::kWaiting);
  const Incarnation next = harness.Join();
  EXPECT_EQ(harness.Last<AssignJob>(next).checkpoint_directory, "checkpoints/1");
  EXPECT_EQ(harness.Last<AssignJob>(next).key.timeline, Timeline(1));
}

TEST(Leaving, LastHolderWithAJoinerThere_HandsTheStateOver) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  const Incarnation joiner = harness.Join();
  harness.Leave(workers[0]);
  harness.Load(joiner);
  EXPECT_EQ(harness.Last<StateSync>(joiner).source, workers[0]);
  harness.Synced(workers[0], "scratch");
  harness.Synced(joiner, "scratch");
  harness.RunWindow({workers[0], joiner}, 0);
  EXPECT_THAT(harness.Sent<Release>(), testing::Contains(testing::Key(workers[0])));
  harness.RunWindow({joiner}, 1);
  EXPECT_THAT(harness.commits, SizeIs(2));
  EXPECT_EQ(harness.View().timeline, Timeline(0));
}

// ---- deaths ----

TEST(Death, BeforeTheSeal_SurvivorsKeepTheirUnitsAndComputeTheRest) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  harness.Compute(workers[0], 0);
  harness.ReportUnits(workers[1], 0);
  harness.Gone(workers[1]);
  ASSERT_THAT(harness.Effects<PersistEpoch>(), SizeIs(1));
  const Plan more = harness.Sent<Plan>().at(workers[0]);
  EXPECT_EQ(more.key.epoch, harness.Effects<PersistEpoch>()[0].epoch);
  EXPECT_EQ(more.key.attempt, Attempt(0));
  EXPECT_THAT(harness.Held(workers[0], 0), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(harness.Held(workers[0], 1), ElementsAre(0, 1, 2, 3));  // it was planned already
  harness.Compute(workers[0], 0);
  EXPECT_THAT(harness.Sent<Seal>().at(workers[0]).members, ElementsAre(workers[0]));
}

TEST(Death, ManifestOnTheWayWhenMoreUnitsAreLeased_WaitsForTheNextOne) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  harness.ReportUnits(workers[0], 0);
  harness.Gone(workers[1]);
  harness.SendComputed(workers[0], 0);  // written before the further Plan came
  EXPECT_THAT(harness.Sent<Seal>(), IsEmpty());
  EXPECT_THAT(harness.Effects<Expel>(), IsEmpty());
  harness.Compute(workers[0], 0);
  EXPECT_THAT(harness.Sent<Seal>(), SizeIs(1));
}

TEST(Death, OfTheProber_AnotherProbes) {
  Harness harness;
  harness.Submit(SmallJob());
  const Incarnation first = harness.Join(), second = harness.Join();
  JobConfig config = SmallJob();
  harness.Load(first);
  EXPECT_THAT(harness.Sent<ProbeOrder>(), SizeIs(1));
  harness.Load(second);  // holds the same state: a member at once
  harness.Gone(first);
  EXPECT_THAT(harness.Sent<ProbeOrder>(), testing::Contains(testing::Key(second)));
}

TEST(Death, AfterTheSealSomeoneStepped_CommitsAndTheOthersCopyTheState) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(3);
  for (Incarnation worker : workers) harness.Compute(worker, 0);
  harness.Step(workers[0], 0, "d0");
  harness.Gone(workers[2]);
  EXPECT_THAT(harness.Sent<Abort>(), ElementsAre(testing::Key(workers[1])));
  harness.Fail(workers[1]);
  ASSERT_THAT(harness.commits, SizeIs(1));
  EXPECT_EQ(harness.commits[0].attempt, Attempt(0));
  EXPECT_EQ(harness.Sent<StateSync>().at(workers[1]).source, workers[0]);
  harness.Synced(workers[0], "d0");
  harness.Synced(workers[1], "d0");
  harness.Compute(workers[0], 1);
  harness.SendComputed(workers[1], 1);
  EXPECT_THAT(harness.Sent<Seal>(), SizeIs(2));
}

TEST(Death, AfterTheSealAllOthersStepped_Commits) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(3);
  for (Incarnation worker : workers) harness.Compute(worker, 0);
  harness.Step(workers[0], 0, "d0");
  harness.Step(workers[1], 0, "d0");
  harness.Gone(workers[2]);
  EXPECT_THAT(harness.commits, SizeIs(1));
  EXPECT_THAT(harness.Sent<Abort>(), IsEmpty());
}

TEST(Death, BelowMin_WaitsWithTheStateKeptAndGoesOnWithAJoiner) {
  Harness harness;
  JobConfig config = SmallJob();
  config.min_workers = 2;
  harness.Submit(config);
  const auto workers = harness.Start(2);
  harness.RunWindow(workers, 0);
  harness.Gone(workers[1]);
  EXPECT_EQ(harness.View().state, JobState::kWaiting);
  EXPECT_THAT(harness.View().reason, HasSubstr("keep the state of window 1"));
  EXPECT_THAT(harness.Sent<Plan>(), IsEmpty());  // its units wait too
  const Incarnation joiner = harness.Join();
  harness.Load(joiner);
  harness.Synced(workers[0], Harness::DigestOf(0));
  harness.Synced(joiner, Harness::DigestOf(0));
  EXPECT_EQ(harness.View().state, JobState::kRunning);
  harness.RunWindow({workers[0], joiner}, 1);
  EXPECT_THAT(harness.commits, SizeIs(2));
}

TEST(Death, OfAll_GoesBackToTheCheckpointAndReportsNothingTwice) {
  Harness harness;
  JobConfig config = SmallJob();
  config.checkpoint_every = 3;
  harness.Submit(config);
  const auto workers = harness.Start(1);
  for (int64_t window = 0; window < 3; ++window) harness.RunWindow(workers, window);
  harness.WriteShard(workers[0]);
  harness.VerifyCheckpoint(3);
  harness.RunWindow(workers, 3);
  harness.RunWindow(workers, 4);
  harness.Gone(workers[0]);
  EXPECT_EQ(harness.View().timeline, Timeline(1));
  EXPECT_EQ(harness.View().window, Window(5));  // what is recorded stays
  const Incarnation next = harness.Join();
  EXPECT_EQ(harness.Last<AssignJob>(next).checkpoint_directory, "checkpoints/3");
  JobLoaded loaded{next, harness.Last<AssignJob>(next).key, Harness::DigestOf(2), {60, 40}, 1, {50, 53}};
  harness.Apply(loaded);
  harness.RunWindow({next}, 3);
  EXPECT_THAT(harness.commits, SizeIs(5));
  harness.RunWindow({next}, 4);
  harness.RunWindow({next}, 5);
  ASSERT_THAT(harness.commits, SizeIs(6));
  EXPECT_EQ(harness.commits[5].window, Window(5));
}

TEST(Death, OfAllAndAnotherDigestWhenComputedAgain_FailsTheJobWithBoth) {
  Harness harness;
  harness.Submit(SmallJob());
  auto workers = harness.Start(1);
  harness.RunWindow(workers, 0);
  harness.Gone(workers[0]);
  workers = harness.Start(1);
  harness.Compute(workers[0], 0);
  harness.Step(workers[0], 0, "different");
  EXPECT_EQ(harness.View().state, JobState::kFailed);
  EXPECT_THAT(harness.View().reason, AllOf(HasSubstr("different"), HasSubstr(Harness::DigestOf(0))));
}

// ---- silence, and reduces that fail ----

TEST(Silence, LongerThanTheLimit_ExpelsButMayRejoin) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  for (int i = 0; i < 31; ++i) {
    harness.AdvanceNs(100'000'000);
    harness.Apply(WorkerHeartbeat{workers[0], 5});
    harness.Apply(Tick{});
  }
  ASSERT_THAT(harness.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(harness.Effects<Expel>()[0].worker, workers[1]);
  EXPECT_TRUE(harness.Effects<Expel>()[0].rejoin);
  EXPECT_THAT(harness.Held(workers[0], 0), SizeIs(4));
}

TEST(Silence, OfTheCoordinatorItself_ExpelsNobody) {
  Harness harness;
  harness.Submit(SmallJob());
  harness.Start(2);
  harness.Apply(Tick{});
  harness.AdvanceNs(60'000'000'000);  // stopped, or a laptop's lid
  harness.Apply(Tick{});
  EXPECT_THAT(harness.Effects<Expel>(), IsEmpty());
}

TEST(Abort, Unanswered_ExpelsTheSilentMember) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(3);
  for (Incarnation worker : workers) harness.Compute(worker, 0);
  harness.Fail(workers[0]);
  harness.Fail(workers[1]);
  for (int i = 0; i < 101; ++i) {
    harness.AdvanceNs(100'000'000);
    for (Incarnation worker : workers) harness.Apply(WorkerHeartbeat{worker, 1});
    harness.Apply(Tick{});
  }
  ASSERT_THAT(harness.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(harness.Effects<Expel>()[0].worker, workers[2]);
  harness.RunWindow({workers[0], workers[1]}, 0);
  EXPECT_THAT(harness.commits, SizeIs(1));
}

TEST(Reduce, FailsTwiceWithAccusations_RemovesTheMostAccused) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(3);
  for (Incarnation worker : workers) harness.Compute(worker, 0);
  for (int failures = 0; failures < 2; ++failures) {
    harness.Wait(1'000'000'000);
    harness.Fail(workers[0], {workers[1]});
    harness.Fail(workers[1], {workers[0], workers[2]});
    harness.Fail(workers[2], {workers[1]});
  }
  ASSERT_THAT(harness.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(harness.Effects<Expel>()[0].worker, workers[1]);
  for (Incarnation worker : {workers[0], workers[2]}) harness.Compute(worker, 0);
  harness.Wait(199'000'000);  // a split network lasts
  EXPECT_THAT(harness.Sent<Seal>(), IsEmpty());
  harness.Wait(1'000'000);
  for (Incarnation worker : {workers[0], workers[2]}) harness.Step(worker, 0, Harness::DigestOf(0));
  EXPECT_THAT(harness.commits, SizeIs(1));
}

TEST(Reduce, NeverSucceeds_FailsTheJob) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  for (Incarnation worker : workers) harness.Compute(worker, 0);
  for (int failures = 1; failures <= 8; ++failures) {
    for (Incarnation worker : workers) harness.Fail(worker);
    harness.Wait(int64_t{100'000'000} << (failures - 1));
  }
  EXPECT_EQ(harness.View().state, JobState::kFailed);
  EXPECT_THAT(harness.View().reason, HasSubstr("8 times"));
}

TEST(WorkerFailedJob, FatalForTheJob_FailsIt) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  harness.Apply(
      WorkerFailedJob{workers[0], harness.KeyOf(workers[0], 0), "INVALID_ARGUMENT", "bad shape", true});
  EXPECT_EQ(harness.View().state, JobState::kFailed);
  EXPECT_THAT(harness.View().reason, HasSubstr("bad shape"));
  EXPECT_THAT(harness.Sent<Release>(), SizeIs(2));
}

TEST(WorkerFailedJob, AllOfAClosedFleet_FailsTheJob) {
  Harness harness;
  JobConfig config = SmallJob();
  config.closed_fleet = true;
  harness.Submit(config);
  const auto workers = harness.Start(2);
  const auto fail = [&](Incarnation worker) {
    harness.Apply(WorkerFailedJob{worker, harness.KeyOf(worker, 0), "RESOURCE_EXHAUSTED", "no memory", false});
  };
  fail(workers[0]);
  EXPECT_EQ(harness.View().state, JobState::kRunning);
  fail(workers[1]);
  EXPECT_EQ(harness.View().state, JobState::kFailed);
  EXPECT_THAT(harness.View().reason, HasSubstr("no memory"));
}

TEST(WorkerFailedJob, NotFatal_TheOthersGoOnWithoutIt) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(2);
  harness.Apply(
      WorkerFailedJob{workers[0], harness.KeyOf(workers[0], 0), "DATA_LOSS", "a shard differs", false});
  EXPECT_THAT(harness.Sent<AssignJob>(), IsEmpty());  // not asked again
  harness.RunWindow({workers[1]}, 0);
  EXPECT_THAT(harness.commits, SizeIs(1));
}

}  // namespace
}  // namespace accrue::core
