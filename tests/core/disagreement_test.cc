// Members that do not agree on the state: who is right is known, or there is a majority, or all go back.
#include <cmath>

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

class Disagreement : public ::testing::Test {
 protected:
  std::vector<Incarnation> Start(int workers, JobConfig config = SmallJob()) {
    harness_.Submit(config);
    return harness_.Start(workers);
  }
  // A job with its checkpoint at window 2.
  std::vector<Incarnation> StartWithCheckpoint(int workers) {
    JobConfig config = SmallJob();
    config.checkpoint_every = 2;
    const auto members = Start(workers, config);
    for (int64_t window = 0; window < 2; ++window) harness_.RunWindow(members, window);
    for (Incarnation member : members) harness_.WriteShard(member);
    harness_.VerifyCheckpoint(2);
    return members;
  }
  // All load what they were told to, with this digest.
  void Reload(const std::vector<Incarnation>& workers, const std::string& digest) {
    for (Incarnation worker : workers) {
      harness_.Apply(
          JobLoaded{worker, harness_.Last<AssignJob>(worker).key, digest, {60, 40}, 1, exponents_});
    }
  }
  // Two members compute and step apart.
  void StepApart(const std::vector<Incarnation>& members, int64_t window) {
    for (Incarnation member : members) harness_.Compute(member, window);
    for (size_t i = 0; i < members.size(); ++i) {
      harness_.Step(members[i], window, "state-" + std::to_string(i));
    }
  }

  Harness harness_;
  const std::vector<int> exponents_ = NextExponents(4, {0, -3});
};

// ---- after the step ----

TEST_F(Disagreement, NoMajority_AllGoBackToTheCheckpointOnANewTimeline) {
  const auto workers = StartWithCheckpoint(2);
  harness_.RunWindow(workers, 2);
  StepApart(workers, 3);
  EXPECT_THAT(harness_.commits, SizeIs(3));
  EXPECT_THAT(harness_.Effects<Expel>(), IsEmpty());
  const auto assigned = harness_.Sent<AssignJob>();
  ASSERT_THAT(assigned, SizeIs(2));
  for (Incarnation worker : workers) {
    EXPECT_EQ(assigned.at(worker).checkpoint_directory, "checkpoints/2");
    EXPECT_EQ(assigned.at(worker).key.timeline, Timeline(1));
  }
  EXPECT_EQ(harness_.View().window, Window(3));  // what is recorded stays
  Reload(workers, Harness::DigestOf(1));
  for (int64_t window = 2; window < 5; ++window) harness_.RunWindow(workers, window);
  ASSERT_THAT(harness_.commits, SizeIs(5));
  EXPECT_EQ(harness_.commits[3].window, Window(3));
}

TEST_F(Disagreement, WithoutACheckpoint_AllGoBackToTheStart) {
  const auto workers = Start(2);
  StepApart(workers, 0);
  EXPECT_EQ(harness_.Last<AssignJob>(workers[0]).start, AssignJob::Start::kFromScratch);
  EXPECT_EQ(harness_.Last<AssignJob>(workers[0]).key.timeline, Timeline(1));
}

TEST_F(Disagreement, NormsDiffer_IsOneToo) {
  const auto workers = Start(2);
  for (Incarnation worker : workers) harness_.Compute(worker, 0);
  harness_.Step(workers[0], 0, "same", 1.0);
  harness_.Step(workers[1], 0, "same", std::nextafter(1.0, 2.0));
  EXPECT_THAT(harness_.commits, IsEmpty());
  EXPECT_THAT(harness_.Sent<AssignJob>(), SizeIs(2));
}

TEST_F(Disagreement, ThirdTimeWithoutANewWindow_FailsTheJobWithBoth) {
  const auto workers = StartWithCheckpoint(2);
  harness_.RunWindow(workers, 2);
  for (int time = 0; time < 2; ++time) {
    StepApart(workers, 3);
    ASSERT_EQ(harness_.View().state, JobState::kStarting) << time;
    Reload(workers, Harness::DigestOf(1));
    harness_.RunWindow(workers, 2);  // on record already
  }
  StepApart(workers, 3);
  EXPECT_EQ(harness_.View().state, JobState::kFailed);
  EXPECT_THAT(harness_.View().reason, AllOf(HasSubstr("state-0"), HasSubstr("state-1"), HasSubstr("time 3")));
  EXPECT_THAT(harness_.Sent<Release>(), SizeIs(2));
}

TEST_F(Disagreement, ANewWindowInBetween_StartsTheCountAnew) {
  const auto workers = Start(2);
  for (int64_t window = 0; window < 5; ++window) {
    StepApart(workers, window);
    Reload(workers, "scratch");
    for (int64_t again = 0; again <= window; ++again) harness_.RunWindow(workers, again);
    ASSERT_THAT(harness_.commits, SizeIs(window + 1));
  }
}

TEST_F(Disagreement, ACheckpointIsOnTheWay_IsAwaitedAndGoneBackTo) {
  JobConfig config = SmallJob();
  config.checkpoint_every = 2;
  const auto workers = Start(2, config);
  for (int64_t window = 0; window < 2; ++window) harness_.RunWindow(workers, window);
  StepApart(workers, 2);
  EXPECT_THAT(harness_.Sent<AssignJob>(), IsEmpty());
  ASSERT_THAT(harness_.Effects<PersistEpoch>(), SizeIs(1));  // a coordinator that comes after this one awaits nobody
  EXPECT_THAT(harness_.Effects<PersistEpoch>()[0].members, IsEmpty());
  for (Incarnation worker : workers) harness_.WriteShard(worker);
  harness_.VerifyCheckpoint(2);
  EXPECT_EQ(harness_.Sent<AssignJob>().at(workers[1]).checkpoint_directory, "checkpoints/2");
}

TEST_F(Disagreement, TheCheckpointOfThatStep_IsNotOne) {
  JobConfig config = SmallJob();
  config.checkpoint_every = 1;
  const auto workers = Start(2, config);
  StepApart(workers, 0);
  EXPECT_EQ(harness_.Sent<AssignJob>().at(workers[0]).start, AssignJob::Start::kFromScratch);
  for (Incarnation worker : workers) harness_.WriteShard(worker);
  EXPECT_THAT(harness_.Effects<FinishCheckpoint>(), IsEmpty());
}

TEST_F(Disagreement, OneThatLeaves_IsReleased) {
  const auto workers = Start(2);
  harness_.Leave(workers[1]);
  StepApart(workers, 0);
  EXPECT_THAT(harness_.Sent<Release>(), ElementsAre(testing::Key(workers[1])));
  EXPECT_THAT(harness_.Sent<AssignJob>(), ElementsAre(testing::Key(workers[0])));
}

TEST_F(Disagreement, EqualDigestsButParameterHashes_TheMajorityCommits) {
  const auto workers = Start(3);
  for (Incarnation worker : workers) harness_.Compute(worker, 0);
  for (Incarnation worker : workers) {
    harness_.parameter_hash = worker == workers[1] ? "flipped" : "right";
    harness_.Step(worker, 0, "d0");
  }
  ASSERT_THAT(harness_.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(harness_.Effects<Expel>()[0].worker, workers[1]);
  EXPECT_FALSE(harness_.Effects<Expel>()[0].rejoin);
  EXPECT_THAT(harness_.Effects<Expel>()[0].reason, AllOf(HasSubstr("flipped"), HasSubstr("right")));
  EXPECT_THAT(harness_.commits, SizeIs(1));
}

// ---- at the seal ----

TEST_F(Disagreement, ParametersOfOneAreNotTheCommitted_QuarantinesItWithoutAMajority) {
  const auto workers = Start(2);
  harness_.parameter_hash = "after-0";
  harness_.RunWindow(workers, 0);
  for (Incarnation worker : workers) harness_.ReportUnits(worker, 1);
  harness_.SendComputed(workers[0], 1, "flipped");
  harness_.SendComputed(workers[1], 1, "after-0");
  ASSERT_THAT(harness_.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(harness_.Effects<Expel>()[0].worker, workers[0]);
  EXPECT_FALSE(harness_.Effects<Expel>()[0].rejoin);
  EXPECT_THAT(harness_.Effects<Expel>()[0].reason, AllOf(HasSubstr("flipped"), HasSubstr("last commit's is after-0")));
  EXPECT_THAT(harness_.Held(workers[1], 1), ElementsAre(0, 1, 2, 3));
  harness_.ReportUnits(workers[1], 1);
  harness_.SendComputed(workers[1], 1, "after-0");
  EXPECT_THAT(harness_.Sent<Seal>(), SizeIs(1));
}

TEST_F(Disagreement, ParametersOfMostAreNotTheCommitted_TheMinorityIsRight) {
  const auto workers = Start(3);
  harness_.parameter_hash = "after-0";
  harness_.RunWindow(workers, 0);
  for (Incarnation worker : workers) harness_.ReportUnits(worker, 1);
  harness_.SendComputed(workers[0], 1, "flipped");
  harness_.SendComputed(workers[1], 1, "flipped");
  harness_.SendComputed(workers[2], 1, "after-0");
  EXPECT_THAT(harness_.Effects<Expel>(), SizeIs(2));
  EXPECT_THAT(harness_.Held(workers[2], 1), ElementsAre(0, 1, 2, 3));
}

TEST_F(Disagreement, ParametersOfNobodyAreTheCommitted_AllGoBack) {
  const auto workers = Start(1);
  harness_.parameter_hash = "after-0";
  harness_.RunWindow(workers, 0);
  harness_.ReportUnits(workers[0], 1);
  harness_.SendComputed(workers[0], 1, "flipped");
  EXPECT_THAT(harness_.Effects<Expel>(), IsEmpty());
  EXPECT_THAT(harness_.Sent<AssignJob>(), SizeIs(1));
  EXPECT_EQ(harness_.View().timeline, Timeline(1));
  // It loads anew, and what it held is known no more.
  Reload(workers, "scratch");
  harness_.RunWindow(workers, 0);
  EXPECT_EQ(harness_.View().window, Window(1));
}

TEST_F(Disagreement, CommittedHashNotKnownAndNoMajority_AllGoBack) {
  const auto workers = Start(2);
  for (Incarnation worker : workers) harness_.ReportUnits(worker, 0);
  harness_.SendComputed(workers[0], 0, "one");
  harness_.SendComputed(workers[1], 0, "other");
  EXPECT_THAT(harness_.Effects<Expel>(), IsEmpty());
  EXPECT_THAT(harness_.Sent<AssignJob>(), SizeIs(2));
}

TEST_F(Disagreement, HashOfTheLoadedState_IsThatOfTheFirstWindow) {
  JobConfig config = SmallJob();
  config.min_workers = 2;
  harness_.Submit(config);
  const Incarnation first = harness_.Join(), second = harness_.Join();
  const auto load = [&](Incarnation worker, const std::string& hash) {
    harness_.Apply(JobLoaded{worker, harness_.Last<AssignJob>(worker).key, "scratch", {60, 40}, 1, exponents_, hash});
  };
  load(first, "loaded");
  load(second, "other");
  EXPECT_THAT(harness_.Sent<Release>().at(second).reason, AllOf(HasSubstr("other"), HasSubstr("loaded")));
  const Incarnation third = harness_.Join();
  load(third, "loaded");
  for (Incarnation worker : {first, third}) harness_.ReportUnits(worker, 0);
  harness_.SendComputed(first, 0, "loaded");
  harness_.SendComputed(third, 0, "flipped");
  ASSERT_THAT(harness_.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(harness_.Effects<Expel>()[0].worker, third);
}

}  // namespace
}  // namespace accrue::core
