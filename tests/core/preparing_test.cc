// The communicator of a membership to come, formed beside the members' work.
#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/copying_fixture.h"

namespace accrue::core {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;
using testing::Not;
using testing::SizeIs;

class Preparing : public CopyingFixture {
 protected:
  Preparing() { h.answer_prepares = false; }

  // Members that have committed window 0, and a newcomer that holds its state.
  void BeginLevel(int members) {
    Begin(members);
    Say(1, Harness::DigestOf(0));
  }
  // Answers the last order of each.
  void Prepared(const std::vector<Incarnation>& from, const std::string& error = "") {
    for (Incarnation worker : from) {
      const Prepare order = h.Last<Prepare>(worker);
      h.Apply(CommunicatorPrepared{worker, order.key, order.communicator, error});
    }
  }
  std::string NameTold(Incarnation worker) const { return h.Last<Prepare>(worker).communicator; }
  std::string LastEpochEntry() const {
    for (auto entry = h.ledger.rbegin(); entry != h.ledger.rend(); ++entry) {
      if (entry->kind == "epoch") return entry->reason;
    }
    return "";
  }
};

TEST_F(Preparing, NewcomerIsLevel_AllAreToldOfOneCommunicator) {
  BeginLevel(2);
  const auto orders = h.Sent<Prepare>();
  ASSERT_THAT(orders, SizeIs(3));
  for (Incarnation worker : All()) {
    EXPECT_EQ(orders.at(worker).members, All());
    EXPECT_EQ(orders.at(worker).communicator, orders.at(newcomer).communicator);
    EXPECT_EQ(orders.at(worker).key.incarnation, worker);
  }
  EXPECT_THAT(h.Sent<Plan>(), Not(Contains(Key(newcomer))));
}

TEST_F(Preparing, AllHaveFormedIt_TheNewcomersFirstSealNamesIt) {
  BeginLevel(2);
  const std::string before = h.Last<Seal>(workers[0]).communicator;
  const std::string name = NameTold(newcomer);
  Prepared(workers);
  EXPECT_THAT(h.Sent<Plan>(), IsEmpty());
  Prepared({newcomer});
  EXPECT_THAT(h.Sent<Plan>(), Contains(Key(newcomer)));
  EXPECT_TRUE(h.Sent<CopyState>().at(newcomer).end);
  h.RunWindow(All(), 1);
  EXPECT_EQ(h.Last<Seal>(workers[0]).communicator, name);
  EXPECT_THAT(h.Last<Seal>(newcomer).members, ElementsAre(workers[0], workers[1], newcomer));
  EXPECT_NE(name, before);
  h.RunWindow(All(), 2);
  EXPECT_EQ(h.Last<Seal>(workers[0]).communicator, name);
  EXPECT_THAT(h.commits, SizeIs(3));
}

TEST_F(Preparing, WhileItGoesOn_WindowsCommitWithoutTheNewcomer) {
  BeginLevel(2);
  h.RunWindow(workers, 1);
  EXPECT_THAT(h.Last<Seal>(workers[0]).members, SizeIs(2));
  Prepared(All());
  EXPECT_THAT(h.Sent<Plan>(), Not(Contains(Key(newcomer))));  // it holds the window before
  Say(2, Harness::DigestOf(1));
  EXPECT_THAT(h.Sent<Plan>(), Contains(Key(newcomer)));
  EXPECT_THAT(h.Sent<Prepare>(), IsEmpty());
  h.RunWindow(All(), 2);
  EXPECT_EQ(h.Last<Seal>(newcomer).communicator, NameTold(newcomer));
}

TEST_F(Preparing, WhileItGoesOn_StatesHeldTooLateAreNotCounted) {
  BeginLevel(1);
  int64_t window = 1;
  for (; window <= 8; ++window) {
    h.RunWindow(workers, window);
    Say(window, Harness::DigestOf(window - 1));
  }
  h.Compute(workers[0], window);
  EXPECT_THAT(h.Sent<Seal>(), Contains(Key(workers[0])));
}

TEST_F(Preparing, OneCannot_TheNewcomerEntersAndTheSealFormsAnother) {
  BeginLevel(2);
  const std::string name = NameTold(newcomer);
  Prepared({workers[1]}, "no such device");
  EXPECT_THAT(h.Effects<GiveUpCommunicator>(),
              Contains(testing::Field(&GiveUpCommunicator::communicator, name)));
  EXPECT_THAT(h.Sent<Plan>(), Contains(Key(newcomer)));
  EXPECT_THAT(h.Sent<Prepare>(), IsEmpty());
  h.RunWindow(All(), 1);
  EXPECT_NE(h.Last<Seal>(newcomer).communicator, name);
}

TEST_F(Preparing, OneIsSilent_TheNewcomerEntersAfterATime) {
  BeginLevel(2);
  Prepared({workers[0], newcomer});
  h.Wait(4'900'000'000);
  EXPECT_THAT(LastEpochEntry(), Not(HasSubstr("copied the state")));
  h.Wait(200'000'000);
  EXPECT_THAT(LastEpochEntry(), HasSubstr("copied the state"));
  const auto late = std::find_if(h.ledger.begin(), h.ledger.end(), [](const LedgerEntry& entry) {
    return entry.reason.find("was not done in time") != std::string::npos;
  });
  ASSERT_NE(late, h.ledger.end());
  EXPECT_THAT(late->reason, HasSubstr("worker-2"));
  h.RunWindow(All(), 1);
  EXPECT_THAT(h.Last<Seal>(newcomer).members, SizeIs(3));
}

TEST_F(Preparing, AMemberDies_AnotherIsFormedWithoutIt) {
  BeginLevel(3);
  const std::string name = NameTold(newcomer);
  Prepared(workers);
  const Prepare old = h.Last<Prepare>(newcomer);
  h.Gone(workers[2]);
  EXPECT_THAT(h.Effects<GiveUpCommunicator>(),
              Contains(testing::Field(&GiveUpCommunicator::communicator, name)));
  ASSERT_THAT(h.Sent<Prepare>(), SizeIs(3));
  EXPECT_NE(NameTold(newcomer), name);
  h.Apply(CommunicatorPrepared{newcomer, old.key, old.communicator, ""});  // of the one before
  EXPECT_THAT(h.Sent<Plan>(), IsEmpty());
  workers.pop_back();
  Prepared(All());
  h.RunWindow(All(), 1);
  EXPECT_EQ(h.Last<Seal>(newcomer).communicator, NameTold(newcomer));
}

TEST_F(Preparing, AReduceFailsMeanwhile_ItIsFormedAgain) {
  BeginLevel(2);
  const std::string name = NameTold(newcomer);
  for (Incarnation worker : workers) h.Compute(worker, 1);
  Prepared(All());
  for (Incarnation worker : workers) h.Fail(worker);  // and a fresh communicator of the two is named
  for (Incarnation worker : All()) EXPECT_NE(h.Last<Prepare>(worker).communicator, name);
  h.Wait(200'000'000);
  for (Incarnation worker : workers) h.Step(worker, 1, "d1");
  EXPECT_THAT(h.commits, SizeIs(2));
  EXPECT_THAT(h.Last<Seal>(workers[0]).communicator, Not(HasSubstr(name)));
}

TEST_F(Preparing, NewcomerDies_NoSealNamesWhatWasFormedWithIt) {
  BeginLevel(2);
  const std::string name = NameTold(newcomer);
  Prepared(workers);
  h.Gone(newcomer);
  EXPECT_THAT(h.Effects<GiveUpCommunicator>(),
              Contains(testing::Field(&GiveUpCommunicator::communicator, name)));
  h.RunWindow(workers, 1);
  EXPECT_NE(h.Last<Seal>(workers[0]).communicator, name);
  EXPECT_THAT(h.Last<Seal>(workers[0]).members, SizeIs(2));
}

TEST_F(Preparing, AnotherNewcomerBeforeTheFirstSeal_Waits) {
  BeginLevel(2);
  const Incarnation second = h.Join();
  h.Load(second);
  Prepared(All());
  const std::string name = NameTold(newcomer);
  SayOf(second, 1, Harness::DigestOf(0));
  EXPECT_THAT(h.Sent<Prepare>(), IsEmpty());  // a worker keeps one
  h.RunWindow(All(), 1);
  EXPECT_EQ(h.Last<Seal>(newcomer).communicator, name);
  SayOf(second, 2, Harness::DigestOf(1));
  EXPECT_THAT(h.Sent<Prepare>(), SizeIs(4));
}

TEST_F(Preparing, SkippedWindow_KeepsItForTheNextOne) {
  BeginLevel(1);
  Prepared(All());
  const std::string name = NameTold(newcomer);
  const Incarnation second = h.Join();
  h.Load(second);
  for (int64_t unit = 0; unit < 4; ++unit) {
    UnitReport report = h.UnitOf(1, unit);
    report.valid_tokens = 0;
    h.special[{1, unit}] = report;
  }
  h.RunWindow(All(), 1);
  ASSERT_EQ(h.Last<Seal>(newcomer).verdict, Verdict::kSkip);
  SayOf(second, 2, Harness::DigestOf(1));
  EXPECT_THAT(h.Sent<Prepare>(), IsEmpty());
  h.RunWindow(All(), 2);
  EXPECT_EQ(h.Last<Seal>(newcomer).communicator, name);
}

TEST_F(Preparing, JobIsCancelled_ItIsGivenUp) {
  BeginLevel(2);
  h.Apply(JobCancelled{"job", "enough"});
  EXPECT_THAT(h.Effects<GiveUpCommunicator>(),
              Contains(testing::Field(&GiveUpCommunicator::communicator, NameTold(newcomer))));
  Prepared({newcomer});
  EXPECT_THAT(h.effects(), IsEmpty());
}

}  // namespace
}  // namespace accrue::core
