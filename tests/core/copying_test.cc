// A newcomer that copies the state beside the members' work.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/copying_fixture.h"

namespace accrue::core {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

class Copying : public CopyingFixture {};

TEST_F(Copying, WhileItGoesOn_WindowsCommitWithoutTheNewcomer) {
  Begin(2);
  const auto orders = h.Sent<CopyState>();
  ASSERT_THAT(orders, SizeIs(2));
  EXPECT_EQ(orders.at(newcomer).receiver, newcomer);
  EXPECT_EQ(orders.at(newcomer).source, workers[0]);
  EXPECT_EQ(orders.at(newcomer).communicator, orders.at(workers[0]).communicator);
  EXPECT_FALSE(orders.at(newcomer).end);
  EXPECT_THAT(h.Sent<StateSync>(), IsEmpty());
  h.RunWindow(workers, 1);
  h.RunWindow(workers, 2);
  EXPECT_THAT(h.commits, SizeIs(3));
  EXPECT_THAT(h.Last<Seal>(workers[0]).members, ElementsAre(workers[0], workers[1]));
}

TEST_F(Copying, LevelBetweenTwoWindows_IsAMemberFromTheNextSealOn) {
  Begin(2);
  h.RunWindow(workers, 1);
  Say(2, Harness::DigestOf(1));
  const auto ends = h.Sent<CopyState>();
  EXPECT_TRUE(ends.at(newcomer).end);
  EXPECT_TRUE(ends.at(workers[0]).end);
  EXPECT_THAT(h.Effects<GiveUpCommunicator>(), SizeIs(2));  // the copy's, and the members' old one
  EXPECT_THAT(h.Sent<Plan>().at(newcomer).units, IsEmpty());
  h.RunWindow(All(), 2);
  EXPECT_THAT(h.Last<Seal>(newcomer).members, ElementsAre(workers[0], workers[1], newcomer));
  h.RunWindow(All(), 3);
  EXPECT_THAT(h.Held(newcomer, 4), testing::Not(IsEmpty()));
  EXPECT_THAT(h.commits, SizeIs(4));
}

TEST_F(Copying, LevelBeforeTheCommit_IsAMemberRightAfterIt) {
  Begin(2);
  for (Incarnation worker : workers) h.Compute(worker, 1);
  h.Step(workers[0], 1, "d1");  // the source; the newcomer steps at once
  Say(2, "d1");
  EXPECT_THAT(h.Sent<Plan>(), IsEmpty());
  h.Step(workers[1], 1, "d1");
  EXPECT_THAT(h.Sent<Plan>(), testing::Contains(testing::Key(newcomer)));
  h.RunWindow(All(), 2);
  EXPECT_THAT(h.commits, SizeIs(3));
}

TEST_F(Copying, LevelAfterTheSeal_WaitsForTheNextWindow) {
  Begin(1);
  h.Compute(workers[0], 1);
  Say(1, Harness::DigestOf(0));  // window 1 is sealed: it will change
  EXPECT_THAT(h.Sent<CopyState>(), IsEmpty());
  h.Step(workers[0], 1, "d1");
  EXPECT_THAT(h.Sent<Plan>(), testing::Not(testing::Contains(testing::Key(newcomer))));
  Say(2, "d1");
  EXPECT_TRUE(h.Sent<CopyState>().at(newcomer).end);
}

TEST_F(Copying, OtherDigestThanTheMembers_ASyncTellsWhoIsWrong) {
  Begin(2);
  Say(1, "garbled");
  EXPECT_THAT(h.Effects<Expel>(), IsEmpty());
  ASSERT_THAT(h.Sent<StateSync>(), SizeIs(2));
  const Incarnation source = h.Last<StateSync>(newcomer).source;
  h.Synced(source, "garbled");
  ASSERT_THAT(h.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(h.Effects<Expel>()[0].worker, source);
}

TEST_F(Copying, NewcomerDies_TheSourceIsToldAndNoWindowIsLost) {
  Begin(2);
  for (Incarnation worker : workers) h.Compute(worker, 1);
  h.Gone(newcomer);
  EXPECT_TRUE(h.Sent<CopyState>().at(workers[0]).end);
  EXPECT_THAT(h.Sent<Abort>(), IsEmpty());
  for (Incarnation worker : workers) h.Step(worker, 1, "d1");
  EXPECT_THAT(h.commits, SizeIs(2));
}

TEST_F(Copying, SourceDies_AnotherSends) {
  Begin(2);
  const std::string name = h.Last<CopyState>(newcomer).communicator;
  h.Gone(workers[0]);
  const CopyState again = h.Last<CopyState>(newcomer);
  EXPECT_FALSE(again.end);
  EXPECT_EQ(again.source, workers[1]);
  EXPECT_NE(again.communicator, name);
  // What is said of the copy before counts no more.
  StateCopied old{newcomer, again.key, name, Harness::DigestOf(0), ""};
  h.Apply(old);
  EXPECT_THAT(h.Sent<Plan>(), testing::Not(testing::Contains(testing::Key(newcomer))));
  h.RunWindow({workers[1]}, 1);
  Say(2, Harness::DigestOf(1));
  h.RunWindow({workers[1], newcomer}, 2);
  EXPECT_THAT(h.commits, SizeIs(3));
}

TEST_F(Copying, BrokenTwice_CopiesWhileTheSealWaits) {
  Begin(2);
  SayOf(workers[0], 1, "", "the sums wait");
  EXPECT_FALSE(h.Last<CopyState>(newcomer).end);  // once more, from another one
  EXPECT_EQ(h.Last<CopyState>(newcomer).source, workers[1]);
  Say(1, "", "peer closed the connection");
  ASSERT_THAT(h.Sent<StateSync>(), SizeIs(2));
  h.Synced(h.Last<StateSync>(newcomer).source, Harness::DigestOf(0));
  h.Synced(newcomer, Harness::DigestOf(0));
  h.RunWindow(All(), 1);
  EXPECT_THAT(h.commits, SizeIs(2));
}

TEST_F(Copying, AlwaysTooLate_OneSealWaits) {
  Begin(1);
  // Windows are so short that what it holds is of the window before, each time.
  int64_t window = 1;
  for (; window <= 8; ++window) {
    h.RunWindow(workers, window);
    Say(window, Harness::DigestOf(window - 1));
  }
  h.Compute(workers[0], window);
  EXPECT_THAT(h.Sent<Seal>(), IsEmpty());
  Say(window, Harness::DigestOf(window - 1));
  h.SendComputed(newcomer, window);
  EXPECT_THAT(h.Sent<Seal>().at(newcomer).members, ElementsAre(workers[0], newcomer));
}

TEST_F(Copying, AwaitedAndSilent_CopiesWhileTheSealWaits) {
  Begin(1);
  int64_t window = 1;
  for (; window <= 8; ++window) {
    h.RunWindow(workers, window);
    Say(window, Harness::DigestOf(window - 1));
  }
  h.Compute(workers[0], window);
  for (int second = 0; second < 11; ++second) h.Wait(1'000'000'000);
  EXPECT_EQ(h.Last<StateSync>(newcomer).source, workers[0]);
}

TEST_F(Copying, MoreNewcomersThanMembers_OneSourceEach) {
  Begin(1);
  const Incarnation second = h.Join();
  h.Load(second);
  EXPECT_THAT(h.Sent<CopyState>(), IsEmpty());  // the only member sends already
  Say(1, Harness::DigestOf(0));
  EXPECT_EQ(h.Sent<CopyState>().at(second).receiver, second);
}

TEST_F(Copying, FastAccumulation_CopiesWhileTheSealWaits) {
  JobConfig job = SmallJob();
  job.exact = false;
  h.Submit(job);
  workers.push_back(h.Join());
  h.Load(workers[0]);
  newcomer = h.Join();
  h.Load(newcomer);
  EXPECT_THAT(h.Sent<CopyState>(), IsEmpty());
  EXPECT_THAT(h.Sent<StateSync>(), SizeIs(2));
}

TEST_F(Copying, AllMembersLeave_TheStateIsHandedOverAtOnce) {
  Begin(1);
  h.Leave(workers[0]);
  h.RunWindow(workers, 1);
  EXPECT_EQ(h.Last<StateSync>(newcomer).source, workers[0]);
  EXPECT_THAT(h.Sent<Release>(), IsEmpty());
}

TEST_F(Copying, AllMembersLeaveAndOneDies_ANewcomerCopiesFromOneThatLeaves) {
  h.Submit(SmallJob());
  workers = h.Start(2);
  h.RunWindow(workers, 0);
  for (Incarnation worker : workers) h.Leave(worker);
  h.Gone(workers[1]);
  newcomer = h.Join();
  h.Load(newcomer);
  EXPECT_EQ(h.Last<CopyState>(newcomer).source, workers[0]);
  Say(1, Harness::DigestOf(0));
  EXPECT_THAT(h.Sent<Plan>(), testing::Contains(testing::Key(newcomer)));
}

TEST_F(Copying, JobIsCancelled_NothingIsLeft) {
  Begin(2);
  h.Apply(JobCancelled{"job", "enough"});
  EXPECT_TRUE(h.View().state == JobState::kCancelled);
  EXPECT_THAT(h.Effects<GiveUpCommunicator>(), SizeIs(2));
  Say(1, Harness::DigestOf(0));
  EXPECT_THAT(h.effects(), IsEmpty());
}

}  // namespace
}  // namespace accrue::core
