// A job's end, its evaluations and checkpoints, and what people ask of it.
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

JobConfig ShortJob(int64_t windows) {
  JobConfig config = SmallJob();
  config.total_windows = config.schedule.total_windows = windows;
  return config;
}

// ---- the end ----

TEST(End, SucceedsOnlyWhenTheLastCheckpointIsVerified) {
  Harness harness;
  harness.Submit(ShortJob(2));
  const auto workers = harness.Start(2);
  harness.RunWindow(workers, 0);
  for (Incarnation worker : workers) harness.Compute(worker, 1);
  EXPECT_EQ(harness.Last<Seal>(workers[1]).checkpoint->window, Window(2));
  EXPECT_EQ(harness.Last<Seal>(workers[1]).checkpoint->shard, 1);
  EXPECT_EQ(harness.Last<Seal>(workers[1]).checkpoint->shards, 2);
  harness.WriteShard(workers[0]);  // written before the others stepped
  for (Incarnation worker : workers) harness.Step(worker, 1, "last");
  EXPECT_EQ(harness.View().state, JobState::kFinishing);
  harness.WriteShard(workers[1]);
  const auto finish = harness.Effects<FinishCheckpoint>();
  ASSERT_THAT(finish, SizeIs(1));
  EXPECT_EQ(finish[0].digest, "last");
  EXPECT_EQ(finish[0].steps, 2);
  EXPECT_THAT(finish[0].files, SizeIs(2));
  EXPECT_EQ(finish[0].exponents, NextExponents(4, {0, -3}));
  EXPECT_EQ(harness.View().state, JobState::kFinishing);
  harness.VerifyCheckpoint(2);
  EXPECT_EQ(harness.View().state, JobState::kSucceeded);
  EXPECT_EQ(harness.View().checkpoint, Window(2));
  EXPECT_THAT(harness.Sent<Release>(), SizeIs(2));
  EXPECT_THAT(harness.Effects<PersistCheckpoint>(), SizeIs(1));
}

TEST(End, UntilWindow_StopsThereWithACheckpoint) {
  Harness harness;
  JobConfig config = SmallJob();
  config.until_window = 1;
  harness.Submit(config);
  const auto workers = harness.Start(1);
  harness.RunWindow(workers, 0);
  EXPECT_THAT(harness.Held(workers[0], 1), IsEmpty());
  harness.WriteShard(workers[0]);
  harness.VerifyCheckpoint(1);
  EXPECT_EQ(harness.View().state, JobState::kSucceeded);
  EXPECT_THAT(harness.View().reason, HasSubstr("stopped after window 1"));
}

TEST(End, ResumedWhereItEnds_SucceedsWithoutWorkers) {
  Harness harness;
  StartPoint start;
  start.checkpoint_directory = "c";
  start.window = Window(10);
  start.digest = "d";
  harness.Submit(SmallJob(), start);
  EXPECT_EQ(harness.View().state, JobState::kSucceeded);
  EXPECT_EQ(harness.View().digest, "d");
}

TEST(Resume, FromACheckpoint_TakesItsExponentsAndSteps) {
  Harness harness;
  StartPoint start;
  start.checkpoint_directory = "c";
  start.window = Window(5);
  start.steps = 4;
  start.digest = "d5";
  start.exponents = {40, 41};
  start.timeline = Timeline(2);
  start.recorded = {{5, "d6"}};
  harness.Submit(SmallJob(), start);
  const Incarnation worker = harness.Join();
  EXPECT_EQ(harness.Last<AssignJob>(worker).start, AssignJob::Start::kFromCheckpoint);
  harness.Apply(JobLoaded{worker, harness.Last<AssignJob>(worker).key, "d5", {60, 40}, 1, {40, 41}});
  const Plan plan = harness.Sent<Plan>().at(worker);
  EXPECT_EQ(plan.key.window, Window(5));
  EXPECT_EQ(plan.key.timeline, Timeline(2));
  EXPECT_THAT(plan.exponents, ElementsAre(40, 41));
  EXPECT_EQ(plan.scalars.bias_correction2_bits, ScalarsOf(SmallJob().schedule, 5, 4).bias_correction2_bits);
  harness.Compute(worker, 5);
  harness.Step(worker, 5, "d6");
  EXPECT_THAT(harness.commits, IsEmpty());  // recorded in the life before
  harness.RunWindow({worker}, 6);
  EXPECT_THAT(harness.commits, SizeIs(1));
}

TEST(Resume, StateDiffersFromTheCheckpoints_IsRefused) {
  Harness harness;
  StartPoint start;
  start.checkpoint_directory = "c";
  start.window = Window(5);
  start.digest = "d5";
  start.exponents = {40, 41};
  harness.Submit(SmallJob(), start);
  const Incarnation worker = harness.Join();
  harness.Apply(JobLoaded{worker, harness.Last<AssignJob>(worker).key, "other", {60, 40}, 1, {40, 41}});
  EXPECT_THAT(harness.Sent<Release>().at(worker).reason, AllOf(HasSubstr("other"), HasSubstr("d5")));
}

// ---- evaluation ----

JobConfig EvaluatedJob() {
  JobConfig config = ShortJob(3);
  config.evaluation_every = 2;
  config.evaluation_units = 3;
  return config;
}

TEST(Evaluation, RidesInTheNextWindowAndIsDoneBeforeItsSeal) {
  Harness harness;
  harness.Submit(EvaluatedJob());
  const auto workers = harness.Start(2);
  harness.RunWindow(workers, 0);
  harness.RunWindow(workers, 1);
  const Plan plan = harness.Last<Plan>(workers[0]);
  EXPECT_EQ(plan.key.window, Window(2));
  EXPECT_THAT(plan.evaluation_units, ElementsAre(UnitRange{0, 2}));
  for (Incarnation worker : workers) harness.Compute(worker, 2);
  harness.Evaluate(workers[0]);
  EXPECT_THAT(harness.Sent<Seal>(), IsEmpty());
  harness.Evaluate(workers[1]);
  EXPECT_THAT(harness.Sent<Seal>(), SizeIs(2));
  ASSERT_THAT(harness.evaluations, SizeIs(1));
  EXPECT_EQ(harness.evaluations[0].window, Window(2));
  EXPECT_EQ(harness.evaluations[0].loss, 2);
  EXPECT_EQ(harness.evaluations[0].tokens, 1 + 2 + 3);
}

TEST(Evaluation, AfterTheLastWindow_StandsAlone) {
  Harness harness;
  harness.Submit(EvaluatedJob());
  const auto workers = harness.Start(1);
  harness.RunWindow(workers, 0);
  harness.RunWindow(workers, 1);
  harness.Evaluate(workers[0]);
  harness.RunWindow(workers, 2);
  const Plan plan = harness.Last<Plan>(workers[0]);
  EXPECT_TRUE(plan.evaluation_only);
  EXPECT_EQ(plan.key.window, Window(3));
  harness.WriteShard(workers[0]);
  harness.VerifyCheckpoint(3);
  EXPECT_EQ(harness.View().state, JobState::kFinishing);
  harness.Evaluate(workers[0]);
  EXPECT_EQ(harness.View().state, JobState::kSucceeded);
  EXPECT_EQ(harness.View().validation_loss, 2);
}

TEST(Evaluation, HolderDies_OnlyWhatItHadNotReportedIsDoneAgain) {
  Harness harness;
  harness.Submit(EvaluatedJob());
  const auto workers = harness.Start(2);
  harness.RunWindow(workers, 0);
  harness.RunWindow(workers, 1);
  const Plan plan = harness.Last<Plan>(workers[0]);
  harness.Apply(EvaluationReported{workers[0], plan.key, {{0, 2, 1}}});
  harness.Gone(workers[0]);
  EXPECT_THAT(harness.Sent<Plan>().at(workers[1]).evaluation_units, ElementsAre(UnitRange{1, 1}));
}

// ---- checkpoints ----

TEST(Checkpoint, EveryWindows_IsOrderedWithTheSeal) {
  Harness harness;
  JobConfig config = SmallJob();
  config.checkpoint_every = 2;
  harness.Submit(config);
  const auto workers = harness.Start(1);
  harness.RunWindow(workers, 0);
  EXPECT_FALSE(harness.Last<Seal>(workers[0]).checkpoint.has_value());
  harness.RunWindow(workers, 1);
  EXPECT_EQ(harness.Last<Seal>(workers[0]).checkpoint->window, Window(2));
  harness.RunWindow(workers, 2);
  EXPECT_FALSE(harness.Last<Seal>(workers[0]).checkpoint.has_value());
}

TEST(Checkpoint, DueWhileTheLastIsWritten_HoldsTheSealUntilItIsVerified) {
  Harness harness;
  JobConfig config = SmallJob();
  config.checkpoint_every = 2;
  harness.Submit(config);
  const auto workers = harness.Start(1);
  for (int64_t window = 0; window < 3; ++window) harness.RunWindow(workers, window);
  harness.Compute(workers[0], 3);
  EXPECT_THAT(harness.Sent<Seal>(), IsEmpty());
  harness.WriteShard(workers[0]);
  EXPECT_THAT(harness.Sent<Seal>(), IsEmpty());
  harness.VerifyCheckpoint(2);
  ASSERT_THAT(harness.Sent<Seal>(), SizeIs(1));
  EXPECT_EQ(harness.Last<Seal>(workers[0]).checkpoint->window, Window(4));
}

TEST(Checkpoint, ShardsHolderDies_AbandonedAndTriedAgainAtTheNextSeal) {
  Harness harness;
  JobConfig config = SmallJob();
  config.checkpoint_every = 4;
  harness.Submit(config);
  const auto workers = harness.Start(2);
  for (int64_t window = 0; window < 4; ++window) harness.RunWindow(workers, window);
  harness.Gone(workers[1]);
  EXPECT_THAT(harness.ledger,
              testing::Contains(AllOf(testing::Field(&LedgerEntry::kind, "checkpoint"),
                                      testing::Field(&LedgerEntry::reason, HasSubstr("abandoned")))));
  harness.RunWindow({workers[0]}, 4);
  EXPECT_FALSE(harness.Last<Seal>(workers[0]).checkpoint.has_value());  // it still writes the one before
  harness.WriteShard(workers[0]);
  EXPECT_THAT(harness.Effects<FinishCheckpoint>(), IsEmpty());
  harness.RunWindow({workers[0]}, 5);
  EXPECT_EQ(harness.Last<Seal>(workers[0]).checkpoint->window, Window(6));
  EXPECT_EQ(harness.Last<Seal>(workers[0]).checkpoint->shards, 1);
}

TEST(Checkpoint, FailsThreeTimesInARow_FailsTheJobWithTheReason) {
  Harness harness;
  JobConfig config = SmallJob();
  config.checkpoint_every = 1;
  harness.Submit(config);
  const auto workers = harness.Start(1);
  harness.RunWindow(workers, 0);
  harness.WriteShard(workers[0], "no space left on device");
  harness.RunWindow(workers, 1);
  harness.WriteShard(workers[0]);
  harness.VerifyCheckpoint(2, "no space left on device");
  EXPECT_EQ(harness.View().state, JobState::kRunning);
  harness.RunWindow(workers, 2);
  harness.WriteShard(workers[0], "no space left on device");
  EXPECT_EQ(harness.View().state, JobState::kFailed);
  EXPECT_THAT(harness.View().reason, HasSubstr("no space left on device"));
}

TEST(Checkpoint, LastOneFails_IsOrderedAgainWithoutASeal) {
  Harness harness;
  harness.Submit(ShortJob(1));
  const auto workers = harness.Start(1);
  harness.RunWindow(workers, 0);
  harness.WriteShard(workers[0], "no space left on device");
  EXPECT_EQ(harness.Sent<CheckpointNow>().at(workers[0]).key.window, Window(1));
  harness.WriteShard(workers[0]);
  harness.VerifyCheckpoint(1);
  EXPECT_EQ(harness.View().state, JobState::kSucceeded);
}

// ---- what people ask ----

TEST(Cancel, WithoutACheckpoint_EndsAtOnce) {
  Harness harness;
  harness.Submit(SmallJob());
  harness.Start(2);
  harness.Apply(JobCancelled{"job", "enough", false});
  EXPECT_EQ(harness.View().state, JobState::kCancelled);
  EXPECT_THAT(harness.Sent<Release>(), SizeIs(2));
}

TEST(Cancel, WithACheckpoint_WritesTheNewestCommittedStateFirst) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  harness.RunWindow(workers, 0);
  harness.ReportUnits(workers[0], 1);
  harness.Apply(JobCancelled{"job", "Ctrl-C", true});
  EXPECT_EQ(harness.Sent<CheckpointNow>().at(workers[0]).order.window, Window(1));
  EXPECT_NE(harness.View().state, JobState::kCancelled);
  harness.WriteShard(workers[0]);
  harness.VerifyCheckpoint(1);
  EXPECT_EQ(harness.View().state, JobState::kCancelled);
  EXPECT_EQ(harness.View().checkpoint, Window(1));
}

TEST(Cancel, WithACheckpointInMidReduce_WaitsForTheCommit) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  harness.Compute(workers[0], 0);
  harness.Apply(JobCancelled{"job", "Ctrl-C", true});
  EXPECT_THAT(harness.Sent<CheckpointNow>(), IsEmpty());
  harness.Step(workers[0], 0, "d0");
  EXPECT_THAT(harness.commits, SizeIs(1));
  EXPECT_THAT(harness.Sent<CheckpointNow>(), SizeIs(1));
}

TEST(Cancel, ItsCheckpointFails_EndsAllTheSame) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  harness.RunWindow(workers, 0);
  harness.Apply(JobCancelled{"job", "Ctrl-C", true});
  harness.WriteShard(workers[0], "no space left on device");
  EXPECT_EQ(harness.View().state, JobState::kCancelled);
}

TEST(Cancel, BeforeAnythingIsDone_NeedsNoCheckpoint) {
  Harness harness;
  harness.Submit(SmallJob());
  harness.Apply(JobCancelled{"job", "Ctrl-C", true});
  EXPECT_EQ(harness.View().state, JobState::kCancelled);
}

TEST(Pause, FinishesWhatIsPlannedThenPlansNoMoreUntilResumed) {
  Harness harness;
  harness.Submit(SmallJob());
  const auto workers = harness.Start(1);
  harness.Apply(JobPaused{"job"});
  harness.RunWindow(workers, 0);
  EXPECT_EQ(harness.View().state, JobState::kPaused);
  EXPECT_THAT(harness.commits, SizeIs(1));
  EXPECT_THAT(harness.Held(workers[0], 1), IsEmpty());
  harness.Apply(JobResumed{"job"});
  EXPECT_EQ(harness.View().state, JobState::kRunning);
  EXPECT_THAT(harness.Sent<Plan>().at(workers[0]).exponents, IsEmpty());  // the last seal gave them
  harness.RunWindow(workers, 1);
  EXPECT_THAT(harness.commits, SizeIs(2));
}

TEST(Jobs, WorkersOfAJobThatEnded_GoToTheNext) {
  Harness harness;
  harness.Submit(SmallJob());
  harness.Start(2);
  JobConfig next = SmallJob();
  next.id = "next";
  next.max_workers = 2;
  harness.Submit(next);
  harness.Apply(JobCancelled{"job", "enough", false});
  EXPECT_THAT(harness.Sent<AssignJob>(), SizeIs(2));
}

}  // namespace
}  // namespace accrue::core
