// A coordinator that takes up a job whose members outlived the one before.
#include "tests/core/restore_fixture.h"

namespace accrue::core {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST_F(RestoreTest, Submitted_WithLiveMembers_WaitsForThemAndSaysSo) {
  Submit();
  EXPECT_EQ(h.View().state, JobState::kWaiting);
  EXPECT_THAT(h.View().reason, HasSubstr("waits for the 3 workers that held the state of window 3"));
  EXPECT_EQ(h.View().window, Window(3));
  ASSERT_FALSE(h.ledger.empty());
  EXPECT_EQ(h.ledger[0].timeline, Timeline(2));  // theirs, not the one that begins if none comes back
  const Incarnation fresh = h.Join();
  EXPECT_THAT(h.Sent<AssignJob>(), IsEmpty());
  EXPECT_EQ(h.core.WhyNotAwaited(kB), "");
  EXPECT_NE(h.core.WhyNotAwaited(fresh), "");
  EXPECT_NE(h.core.WhyNotAwaited(Incarnation(99)), "");
}

TEST_F(RestoreTest, AllBack_UnitsTheyHoldCount_TheRestIsLeased) {
  Submit();
  Back(Level(kA, {0, 3}));
  Back(Level(kB, {2}));
  EXPECT_THAT(h.Sent<Plan>(), IsEmpty());
  Back(Level(kC, {}));
  EXPECT_EQ(h.View().state, JobState::kRunning);
  EXPECT_EQ(h.View().timeline, Timeline(2));
  ASSERT_THAT(h.Effects<PersistEpoch>(), SizeIs(1));
  EXPECT_EQ(h.Effects<PersistEpoch>()[0].epoch, Epoch(8));
  EXPECT_THAT(h.Effects<PersistEpoch>()[0].members, ElementsAre(kA, kB, kC));
  std::vector<int64_t> leased;
  for (Incarnation worker : {kA, kB, kC}) {
    for (int64_t unit : h.Held(worker, kCommitted)) leased.push_back(unit);
  }
  EXPECT_THAT(leased, ElementsAre(1));
  for (Incarnation worker : {kA, kB, kC}) {
    EXPECT_EQ(h.KeyOf(worker, kCommitted).term, Term(3));
    Compute(worker, kCommitted);
  }
  const auto seals = h.Sent<Seal>();
  ASSERT_THAT(seals, SizeIs(3));
  EXPECT_EQ(seals.at(kA).valid_tokens, 64);
  for (Incarnation worker : {kA, kB, kC}) h.Step(worker, kCommitted, Harness::DigestOf(kCommitted));
  ASSERT_THAT(h.commits, SizeIs(1));
  EXPECT_EQ(h.commits[0].window, Window(3));
  EXPECT_EQ(h.commits[0].timeline, Timeline(2));
  EXPECT_EQ(h.commits[0].steps, 4);
  EXPECT_EQ(h.commits[0].loss, (16.0 + 32 + 48 + 64) / 64);
}

TEST_F(RestoreTest, AdoptedUnit_SentAgain_IsNotCountedTwice) {
  Submit();
  live_.members = {kA};
  Back(Level(kA, {0, 3}));
  Back(Level(kB, {}));
  Back(Level(kC, {}));
  UnitsReported again{kA, h.KeyOf(kA, kCommitted), false, {h.UnitOf(kCommitted, 3)}};
  h.Apply(again);
  EXPECT_EQ(h.core.Dropped().at("unit is reported twice"), 1);
}

TEST_F(RestoreTest, SomeNeverBack_GoesOnWithoutThem_LateOneMustRejoin) {
  Submit();
  Back(Level(kB, {1}));
  PassDeadline();
  EXPECT_EQ(h.View().state, JobState::kRunning);
  EXPECT_THAT(h.Held(kB, kCommitted), ElementsAre(0, 2, 3));
  EXPECT_EQ(h.core.WhyNotAwaited(kA),
            "no job awaits incarnation 1: it was no member when the coordinator died, or it "
            "comes too late; come back as a new one");
  Resume(kA);
  ASSERT_THAT(Expelled(), SizeIs(1));
  EXPECT_EQ(Expelled()[0].worker, kA);
  EXPECT_TRUE(Expelled()[0].rejoin);
  h.Apply(Level(kA, {0}));
  EXPECT_EQ(h.core.Dropped().at("incarnation is gone"), 1);
  Compute(kB, kCommitted);
  EXPECT_THAT(h.Sent<Seal>(), SizeIs(1));
}

TEST_F(RestoreTest, Back_DiesAgain_IsNotAwaitedASecondTime) {
  Submit();
  Back(Level(kA, {0}));
  h.Gone(kA);
  EXPECT_NE(h.core.WhyNotAwaited(kA), "");
  Back(Level(kB, {1}));
  Back(Level(kC, {2}));
  EXPECT_EQ(h.View().state, JobState::kRunning);
  EXPECT_THAT(h.Effects<PersistEpoch>()[0].members, ElementsAre(kB, kC));
}

TEST_F(RestoreTest, AtTheFirstWindow_OneDiesAlone_TheNextOneCounts) {
  live_.window = Window(0);
  live_.steps = 0;
  live_.members = {kA, kB};
  start_.recorded.clear();
  Submit();
  Resume(kA);
  h.Gone(kA);  // nobody is attached, and nothing is on record
  WorkerHolds holds = Level(kB, {1, 2});
  holds.key.window = Window(0);
  Back(holds);
  EXPECT_THAT(Expelled(), IsEmpty());
  EXPECT_THAT(h.Held(kB, 0), ElementsAre(0, 3));
}

TEST_F(RestoreTest, SecondStreamOfALivingIncarnation_ChangesNothing) {
  Submit();
  Back(Level(kA, {}));
  Resume(kA);
  EXPECT_THAT(h.effects(), IsEmpty());
  EXPECT_THAT(h.core.WhyNotAwaited(kA), HasSubstr("here already"));
  EXPECT_EQ(h.View().workers, 1);
}

TEST_F(RestoreTest, CoordinatorAsleep_DeadlineIsPutOff) {
  Submit();
  h.Apply(Tick{});
  h.AdvanceNs(20'000'000'000);
  h.Apply(Tick{});
  EXPECT_EQ(h.core.WhyNotAwaited(kA), "");
}

TEST_F(RestoreTest, NobodyBack_GoesBackToTheCheckpointOnANewTimeline) {
  start_.checkpoint_directory = "checkpoints/2";
  start_.window = Window(2);
  start_.digest = Harness::DigestOf(1);
  start_.recorded.erase(0);
  start_.recorded.erase(1);
  Submit();
  PassDeadline();
  EXPECT_EQ(h.View().timeline, Timeline(5));
  ASSERT_THAT(h.Effects<PersistEpoch>(), SizeIs(1));
  EXPECT_EQ(h.Effects<PersistEpoch>()[0].timeline, Timeline(5));
  const Incarnation fresh = h.Join();
  EXPECT_EQ(h.Last<AssignJob>(fresh).start, AssignJob::Start::kFromCheckpoint);
  EXPECT_EQ(h.Last<AssignJob>(fresh).key.window, Window(2));
}

TEST_F(RestoreTest, SomeStepped_TheirStepIsCommitted_TheOthersCopyTheState) {
  Submit();
  Back(Level(kA, {0, 1}));
  Back(Ahead(kB, {{2, 1}}, {3}));
  Back(Ahead(kC, {{3, 1}, {0, 1}}, {0}));  // in the order of their computing
  ASSERT_THAT(h.commits, SizeIs(1));
  const WindowRecord& record = h.commits[0];
  EXPECT_EQ(record.window, Window(3));
  EXPECT_EQ(record.digest, Harness::DigestOf(3));
  EXPECT_EQ(record.loss, 2.5);
  EXPECT_EQ(record.tokens, 64);
  EXPECT_EQ(record.gradient_norm, 1.5);
  EXPECT_EQ(record.clip_coefficient, 0.25);
  EXPECT_EQ(record.vanished_fraction, 8.0 / (4 * 100));
  EXPECT_EQ(record.epoch, Epoch(7));
  EXPECT_EQ(record.steps, 4);
  ASSERT_THAT(record.workers, SizeIs(2));
  EXPECT_EQ(record.workers[0].incarnation, kB);
  EXPECT_EQ(record.workers[0].units, 1);
  EXPECT_EQ(record.workers[0].gradient_norm, 0.75);
  EXPECT_EQ(record.workers[0].memory_bytes, 77);
  EXPECT_THAT(h.Sent<Commit>(), SizeIs(2));
  const auto syncs = h.Sent<StateSync>();
  EXPECT_EQ(syncs.count(kA), 1u);
  // What they computed of the window after is kept: only two units are leased.
  std::vector<int64_t> leased = h.Held(kB, 4);
  for (int64_t unit : h.Held(kC, 4)) leased.push_back(unit);
  std::sort(leased.begin(), leased.end());
  EXPECT_THAT(leased, ElementsAre(1, 2));
}

TEST_F(RestoreTest, StepOfAWindowThatIsOnRecord_IsNotRecordedTwice) {
  start_.recorded[kCommitted] = Harness::DigestOf(kCommitted);
  live_.members = {kA};
  Submit();
  WorkerHolds holds = Ahead(kA, {{0, 4}});
  holds.parameter_hash = holds.step->stepped.parameter_hash = "after the step";
  Back(holds);
  EXPECT_THAT(h.commits, IsEmpty());
  EXPECT_THAT(h.Sent<Commit>(), SizeIs(1));
  ASSERT_THAT(h.Effects<PersistPosition>(), SizeIs(1));
  EXPECT_EQ(h.Effects<PersistPosition>()[0].parameter_hash, "after the step");
  EXPECT_EQ(h.View().state, JobState::kRunning);
}

TEST_F(RestoreTest, StepOfAWindowThatIsOnRecordDifferently_FailsTheJob) {
  start_.recorded[kCommitted] = "another";
  live_.members = {kA};
  Submit();
  Back(Ahead(kA, {{0, 4}}));
  EXPECT_EQ(h.View().state, JobState::kFailed);
  EXPECT_THAT(h.View().reason, HasSubstr("another"));
}

TEST_F(RestoreTest, StepsDiffer_TheMajorityCounts) {
  Submit();
  Back(Ahead(kA, {{0, 1}}));
  Back(Ahead(kB, {{1, 1}}, {}, "flipped"));
  Back(Ahead(kC, {{2, 2}}));
  ASSERT_THAT(h.commits, SizeIs(1));
  EXPECT_EQ(h.commits[0].digest, Harness::DigestOf(3));
  ASSERT_THAT(Expelled(), SizeIs(1));
  EXPECT_EQ(Expelled()[0].worker, kB);
}

TEST_F(RestoreTest, SealsDiffer_TheMajorityCounts) {
  Submit();
  Back(Ahead(kA, {{0, 1}}));
  WorkerHolds other = Ahead(kB, {{1, 1}});
  other.step->valid_tokens = 63;
  Back(other);
  Back(Ahead(kC, {{2, 2}}));
  ASSERT_THAT(h.commits, SizeIs(1));
  EXPECT_EQ(h.commits[0].tokens, 64);
  ASSERT_THAT(Expelled(), SizeIs(1));
  EXPECT_EQ(Expelled()[0].worker, kB);
}

TEST_F(RestoreTest, CommittedButNotTold_IsToldAgain) {
  live_.members = {kA};
  Submit();
  WorkerHolds holds = Level(kA, {0, 1, 2, 3});
  holds.step = Ahead(kB, {{0, 4}}).step;
  holds.step->stepped.key = KeyOf(kA, kCommitted - 1, 1);
  holds.step->stepped.digest = live_.digest;
  Back(holds);
  EXPECT_THAT(h.commits, IsEmpty());
  ASSERT_THAT(h.Sent<Commit>(), SizeIs(1));
  EXPECT_EQ(h.Sent<Commit>().at(kA).key.window, Window(2));
  EXPECT_EQ(h.Sent<Commit>().at(kA).key.attempt, Attempt(1));
  EXPECT_EQ(h.Sent<Commit>().at(kA).digest, live_.digest);
  // Nothing is left to lease; it says once more what its accumulator has.
  EXPECT_THAT(h.Held(kA, kCommitted), IsEmpty());
  Compute(kA, kCommitted);
  EXPECT_THAT(h.Sent<Seal>(), SizeIs(1));
}

TEST_F(RestoreTest, AttemptOnRecord_OlderAccumulatorsDoNotCount) {
  live_.attempt = Attempt(2);
  live_.exponents = {11, 12};
  live_.members = {kA, kB};
  Submit();
  WorkerHolds old = Level(kA, {0, 1, 2});
  old.key.attempt = Attempt(1);
  Back(old);
  Back(Level(kB, {3}));
  std::vector<int64_t> leased = h.Held(kA, kCommitted);
  for (int64_t unit : h.Held(kB, kCommitted)) leased.push_back(unit);
  std::sort(leased.begin(), leased.end());
  EXPECT_THAT(leased, ElementsAre(0, 1, 2));
  EXPECT_EQ(h.KeyOf(kA, kCommitted).attempt, Attempt(2));
  std::vector<std::vector<int>> exponents;
  for (const Send& send : h.Effects<Send>()) {
    const auto* plan = std::get_if<Plan>(&send.message);
    if (plan != nullptr && send.to == kA && !plan->exponents.empty()) exponents.push_back(plan->exponents);
  }
  EXPECT_THAT(exponents, ElementsAre(ElementsAre(11, 12)));
}

TEST_F(RestoreTest, OneUnitInTwoAccumulators_TheSecondIsRefused) {
  Submit();
  Back(Level(kA, {0, 1}));
  Back(Level(kB, {1, 2}));
  Back(Level(kC, {}));
  ASSERT_THAT(Expelled(), SizeIs(1));
  EXPECT_EQ(Expelled()[0].worker, kB);
  EXPECT_THAT(Expelled()[0].reason, HasSubstr("unit 1, which another's has too"));
  EXPECT_THAT(h.Effects<PersistEpoch>()[0].members, ElementsAre(kA, kC));
}

TEST_F(RestoreTest, ReduceWasBroken_WhatIsFinalStaysSo) {
  live_.members = {kA, kB};
  Submit();
  WorkerHolds holds = Level(kA, {0, 1});
  holds.final_buckets = 1;
  Back(holds);
  Back(Level(kB, {2}));
  EXPECT_THAT(h.Effects<PersistAttempt>(), IsEmpty());
  // Who is gone had unit 3: its report is needed once more, whoever has its gradient.
  std::vector<int64_t> leased = h.Held(kA, kCommitted);
  for (int64_t unit : h.Held(kB, kCommitted)) leased.push_back(unit);
  EXPECT_THAT(leased, ElementsAre(3));
  h.ReportUnits(kA, kCommitted);
  WindowComputed computed{kA, h.KeyOf(kA, kCommitted), "parameters", {{/*final=*/true, {}}}};
  h.Apply(computed);
  Compute(kB, kCommitted);
  const auto seals = h.Sent<Seal>();
  ASSERT_THAT(seals, SizeIs(2));
  EXPECT_THAT(seals.at(kA).final_buckets, ElementsAre(1, 0));
}

TEST_F(RestoreTest, NothingHeld_TheWindowIsPlannedAnew) {
  Submit();
  for (Incarnation worker : {kA, kB, kC}) Back(Level(worker, {}));
  EXPECT_THAT(h.Sent<Plan>(), SizeIs(3));
  EXPECT_FALSE(h.Sent<Plan>().at(kA).exponents.empty());
}

TEST_F(RestoreTest, WithoutExponents_AsksForTheProbeAgain) {
  live_.exponents.clear();
  live_.members = {kA};
  Submit();
  Back(Level(kA, {}));
  EXPECT_THAT(h.Sent<ProbeOrder>(), SizeIs(1));
}

TEST_F(RestoreTest, EvaluationReportsHeld_CountOnce) {
  JobConfig config = SmallJob();
  config.evaluation_every = 3;
  config.evaluation_units = 3;
  live_.members = {kA, kB};
  Submit(config);
  WorkerHolds holds = Level(kA, {0});
  holds.evaluations = {{0, 2, 1}, {2, 6, 3}};
  Back(holds);
  Back(Level(kB, {1}));
  EXPECT_THAT(h.evaluations, IsEmpty());
  std::map<Incarnation, std::vector<UnitRange>> evaluation;
  for (const Send& send : h.Effects<Send>()) {
    if (const auto* plan = std::get_if<Plan>(&send.message)) {
      for (const UnitRange& range : plan->evaluation_units) evaluation[send.to].push_back(range);
    }
  }
  ASSERT_THAT(evaluation, SizeIs(1));
  const auto& [worker, ranges] = *evaluation.begin();
  EXPECT_THAT(ranges, ElementsAre(UnitRange{1, 1}));
  h.Apply(EvaluationReported{worker, h.KeyOf(worker, kCommitted), {{1, 4, 2}}});
  ASSERT_THAT(h.evaluations, SizeIs(1));
  EXPECT_EQ(h.evaluations[0].loss, 2);
  EXPECT_EQ(h.evaluations[0].tokens, 6);
}

TEST_F(RestoreTest, EvaluationRecordedBeforeItsCommit_IsNotDoneAgain) {
  JobConfig config = SmallJob();
  config.evaluation_every = 1;
  config.evaluation_units = 2;
  start_.evaluated = {{3, 1.5}, {4, 1.25}};
  live_.members = {kA};
  Submit(config);
  Back(Ahead(kA, {{0, 4}}, {0}));
  ASSERT_THAT(h.commits, SizeIs(1));
  for (const Send& send : h.Effects<Send>()) {
    if (const auto* plan = std::get_if<Plan>(&send.message)) {
      EXPECT_THAT(plan->evaluation_units, IsEmpty());
    }
  }
  EXPECT_EQ(h.View().validation_loss, 1.25);
}

TEST_F(RestoreTest, FastAccumulation_EvaluationOfAStepThatIsLost_IsDoneAgain) {
  JobConfig config = SmallJob();
  config.exact = false;
  config.evaluation_every = 1;
  config.evaluation_units = 2;
  start_.evaluated = {{3, 1.5}, {4, 1.25}};
  live_.exponents.clear();
  live_.members = {kA};
  Submit(config);
  Back(Level(kA, {0, 1, 2, 3}));
  Compute(kA, kCommitted);
  h.Step(kA, kCommitted, "another");
  EXPECT_THAT(h.Last<Plan>(kA).evaluation_units, ElementsAre(UnitRange{0, 2}));
}

TEST_F(RestoreTest, EvaluationAtTheEnd_AllHeld_JobGoesOnToItsCheckpoint) {
  JobConfig config = SmallJob();
  config.total_windows = kCommitted;
  config.evaluation_every = 5;
  config.evaluation_units = 2;
  live_.members = {kA};
  Submit(config);
  WorkerHolds holds = Level(kA, {});
  holds.evaluations = {{0, 2, 1}, {1, 6, 3}};
  Back(holds);
  ASSERT_THAT(h.evaluations, SizeIs(1));
  EXPECT_EQ(h.evaluations[0].tokens, 4);
  ASSERT_THAT(h.Sent<CheckpointNow>(), SizeIs(1));
  h.WriteShard(kA);
  h.VerifyCheckpoint(kCommitted);
  EXPECT_EQ(h.View().state, JobState::kSucceeded);
}

TEST_F(RestoreTest, CheckpointOnTheWay_IsOrderedWithTheNextSeal) {
  JobConfig config = SmallJob();
  config.checkpoint_every = 3;
  live_.members = {kA};
  Submit(config);
  Back(Level(kA, {0, 1, 2, 3}));
  Compute(kA, kCommitted);
  ASSERT_THAT(h.Sent<Seal>(), SizeIs(1));
  ASSERT_TRUE(h.Sent<Seal>().at(kA).checkpoint.has_value());
  EXPECT_EQ(h.Sent<Seal>().at(kA).checkpoint->window, Window(4));
}

TEST_F(RestoreTest, CheckpointOrderedWithTheSealOfTheStep_IsOrderedWithTheNext) {
  JobConfig config = SmallJob();
  config.checkpoint_every = 4;
  live_.members = {kA};
  Submit(config);
  Back(Ahead(kA, {{0, 4}}, {0, 1, 2, 3}));
  Compute(kA, kCommitted + 1);
  ASSERT_THAT(h.Sent<Seal>(), SizeIs(1));
  EXPECT_TRUE(h.Sent<Seal>().at(kA).checkpoint.has_value());
}

TEST_F(RestoreTest, Paused_FinishesWhatIsOnTheWayAndNoMore) {
  live_.members = {kA};
  Submit();
  h.Apply(JobPaused{"job"});
  Back(Level(kA, {0}));
  Compute(kA, kCommitted);
  h.Step(kA, kCommitted, Harness::DigestOf(kCommitted));
  EXPECT_EQ(h.commits.size(), 1u);
  EXPECT_EQ(h.View().state, JobState::kPaused);
}

TEST_F(RestoreTest, CancelledMeanwhile_EndsAtOnce) {
  Submit();
  Back(Level(kA, {0}));
  h.Apply(JobCancelled{"job", "enough"});
  EXPECT_EQ(h.View().state, JobState::kCancelled);
  EXPECT_THAT(h.Sent<Release>(), SizeIs(1));
  EXPECT_NE(h.core.WhyNotAwaited(kB), "");
}

TEST_F(RestoreTest, CancelledWithACheckpoint_WritesTheStateThatIsHeld) {
  live_.members = {kA, kB};
  Submit();
  h.Apply(JobCancelled{"job", "enough", /*checkpoint=*/true});
  EXPECT_EQ(h.View().state, JobState::kWaiting);
  Back(Ahead(kA, {{0, 2}}));
  Back(Ahead(kB, {{2, 2}}));
  ASSERT_THAT(h.Sent<CheckpointNow>(), SizeIs(2));
  EXPECT_EQ(h.Sent<CheckpointNow>().at(kA).order.window, Window(4));
}

TEST_F(RestoreTest, LeavingMeanwhile_FinishesTheWindowAndGoes) {
  live_.members = {kA, kB};
  Submit();
  Back(Level(kA, {0}));
  h.Leave(kA);
  EXPECT_THAT(h.Sent<Release>(), IsEmpty());
  Back(Level(kB, {1}));
  Compute(kA, kCommitted);
  Compute(kB, kCommitted);
  ASSERT_THAT(h.Sent<Seal>(), SizeIs(2));
  for (Incarnation worker : {kA, kB}) h.Step(worker, kCommitted, Harness::DigestOf(kCommitted));
  EXPECT_THAT(h.Sent<Release>(), SizeIs(1));
  EXPECT_EQ(h.Sent<Release>().count(kA), 1u);
}

TEST_F(RestoreTest, OtherNumericClass_IsRefused) {
  Submit();
  Resume(kA, "another cpu");
  ASSERT_THAT(Expelled(), SizeIs(1));
  EXPECT_THAT(Expelled()[0].reason, HasSubstr("numeric class another cpu"));
}

TEST_F(RestoreTest, LaterJoiner_MustBeOfTheClassOnRecord) {
  live_.members = {kA};
  Submit();
  Back(Level(kA, {}));
  h.Join("another cpu");
  EXPECT_THAT(h.Sent<AssignJob>(), IsEmpty());
  const Incarnation fresh = h.Join();
  EXPECT_EQ(h.Last<AssignJob>(fresh).start, AssignJob::Start::kFromMembers);
}

}  // namespace
}  // namespace accrue::core
