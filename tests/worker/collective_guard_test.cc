#include "worker/core/collective_guard.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "worker/core/abort_deadline.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Counts aborts; what it does then is the test's choice.
class FakeCommunicator : public Communicator {
 public:
  int aborts = 0;
  std::function<void()> on_abort;

  int rank() const override { return 0; }
  int size() const override { return 2; }
  absl::Status Meet() override { return absl::OkStatus(); }
  absl::Status AllReduce(const int64_t*, int64_t*, int64_t) override { return absl::UnimplementedError("fake"); }
  absl::Status AllReduce(const float*, float*, int64_t) override { return absl::UnimplementedError("fake"); }
  absl::Status Broadcast(void*, size_t, int) override { return absl::UnimplementedError("fake"); }
  void Abort() override {
    ++aborts;
    if (on_abort) on_abort();
  }
};

class FakeDeadline : public AbortDeadline {
 public:
  std::vector<std::string> calls;
  void Start(const std::string& what) override { calls.push_back("start: " + what); }
  void Stop() override { calls.push_back("stop"); }
};

constexpr auto kReduce = CollectiveGuard::Kind::kReduce;
constexpr auto kStateSync = CollectiveGuard::Kind::kStateSync;

v1::Key KeyOf(int64_t epoch, int64_t window = 5, int64_t attempt = 0) {
  v1::Key key;
  key.set_job_id("tiny-1");
  key.set_epoch(epoch);
  key.set_window(window);
  key.set_attempt(attempt);
  return key;
}

v1::CoordinatorMessage AbortOf(const v1::Key& key) {
  v1::CoordinatorMessage message;
  *message.mutable_abort()->mutable_key() = key;
  message.mutable_abort()->set_reason("worker 3 is gone");
  return message;
}

class CollectiveGuardTest : public testing::Test {
 protected:
  CollectiveGuardTest() {
    v1::CoordinatorMessage assignment;
    assignment.mutable_assign_job();
    guard_.Observe(assignment);
    guard_.BeginJob();
  }

  FakeDeadline deadline_;
  CollectiveGuard guard_{&deadline_};
  FakeCommunicator communicator_;
};

TEST_F(CollectiveGuardTest, Abort_OfTheReduceUnderWay_StopsIt) {
  ASSERT_TRUE(guard_.Enter(kReduce, KeyOf(3), "c", communicator_).ok());
  guard_.Observe(AbortOf(KeyOf(3)));
  EXPECT_EQ(communicator_.aborts, 1);
}

TEST_F(CollectiveGuardTest, Abort_BeforeTheReduceBegins_ItNeverBegins) {
  guard_.Observe(AbortOf(KeyOf(3)));
  const absl::Status status = guard_.Enter(kReduce, KeyOf(3), "c", communicator_);
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("worker 3 is gone"));
  EXPECT_EQ(communicator_.aborts, 0);
}

TEST_F(CollectiveGuardTest, Abort_OfAnOlderEpoch_LeavesTheNextSealOfTheAttemptAlone) {
  guard_.Observe(AbortOf(KeyOf(3)));
  ASSERT_TRUE(guard_.Enter(kReduce, KeyOf(4), "c", communicator_).ok());
  guard_.Observe(AbortOf(KeyOf(3)));
  EXPECT_EQ(communicator_.aborts, 0);
  guard_.Observe(AbortOf(KeyOf(4)));
  EXPECT_EQ(communicator_.aborts, 1);
}

TEST_F(CollectiveGuardTest, Abort_OfAnotherWindowOrAttempt_LeavesTheReduceAlone) {
  ASSERT_TRUE(guard_.Enter(kReduce, KeyOf(3), "c", communicator_).ok());
  guard_.Observe(AbortOf(KeyOf(3, 4)));
  guard_.Observe(AbortOf(KeyOf(3, 5, 1)));
  EXPECT_EQ(communicator_.aborts, 0);
}

TEST_F(CollectiveGuardTest, WatchCommits_TellsOfEachUntilItIsTakenBack) {
  std::vector<int64_t> windows;
  guard_.WatchCommits([&](int64_t window) { windows.push_back(window); });
  v1::CoordinatorMessage commit;
  *commit.mutable_commit()->mutable_key() = KeyOf(3, 8);
  guard_.Observe(commit);
  guard_.WatchCommits(nullptr);
  guard_.Observe(commit);
  EXPECT_THAT(windows, ElementsAre(8));
}

TEST_F(CollectiveGuardTest, StateSync_ReplacedByANewerOne_Stopped) {
  v1::CoordinatorMessage sync;
  sync.mutable_state_sync()->set_communicator("sync-1");
  guard_.Observe(sync);
  ASSERT_TRUE(guard_.Enter(kStateSync, KeyOf(3), "sync-1", communicator_).ok());
  sync.mutable_state_sync()->set_communicator("sync-2");
  guard_.Observe(sync);
  EXPECT_EQ(communicator_.aborts, 1);
}

TEST_F(CollectiveGuardTest, CopyState_EndedReplacedOrUnknownToTheCoordinator_Stopped) {
  const auto copy = [](const std::string& name, bool end) {
    v1::CoordinatorMessage message;
    v1::CopyState& order = *message.mutable_copy_state();
    order.set_communicator(name);
    order.mutable_key()->set_incarnation(7);
    order.set_receiver(7);
    order.set_end(end);
    return message;
  };
  const auto begin = [&](const std::string& name) {
    return guard_.Enter(CollectiveGuard::Kind::kStateCopy, KeyOf(3), name, communicator_);
  };
  guard_.Observe(copy("one", false));
  ASSERT_TRUE(begin("one").ok());
  guard_.Observe(AbortOf(KeyOf(4)));  // a reduce's
  EXPECT_EQ(communicator_.aborts, 0);
  guard_.Observe(copy("two", false));
  EXPECT_EQ(communicator_.aborts, 1);
  guard_.Leave();
  EXPECT_THAT(begin("one").message(), HasSubstr("has ended"));
  ASSERT_TRUE(begin("two").ok());
  EXPECT_FALSE(guard_.CopyHasEnded("two"));
  guard_.Observe(copy("two", true));
  EXPECT_EQ(communicator_.aborts, 2);
  EXPECT_TRUE(guard_.CopyHasEnded("two"));
  guard_.Leave();
  guard_.Observe(copy("three", false));
  ASSERT_TRUE(begin("three").ok());
  guard_.ForgetUnseen();
  EXPECT_EQ(communicator_.aborts, 3);
  guard_.Leave();
}

TEST_F(CollectiveGuardTest, CopyState_ThisWorkerSends_ItsEndIsNoted) {
  v1::CoordinatorMessage message;
  v1::CopyState& order = *message.mutable_copy_state();
  order.set_communicator("one");
  order.mutable_key()->set_incarnation(7);
  order.set_receiver(8);
  guard_.Observe(message);
  EXPECT_FALSE(guard_.CopyHasEnded("one"));
  order.set_end(true);
  guard_.Observe(message);
  EXPECT_TRUE(guard_.CopyHasEnded("one"));
}

TEST_F(CollectiveGuardTest, Finish_TheDeadlineCounts) {
  guard_.Finish("the sending", [&] { deadline_.calls.push_back("ending"); });
  EXPECT_THAT(deadline_.calls, ElementsAre("start: the sending", "ending", "stop"));
}

TEST_F(CollectiveGuardTest, AbortDeadline_CountsFromTheAbortToLeave) {
  ASSERT_TRUE(guard_.Enter(kReduce, KeyOf(3), "job/0/3", communicator_).ok());
  EXPECT_THAT(deadline_.calls, IsEmpty());
  communicator_.on_abort = [this] { EXPECT_EQ(deadline_.calls.size(), 1u); };  // an Abort may hang itself
  guard_.Observe(AbortOf(KeyOf(3)));
  ASSERT_EQ(communicator_.aborts, 1);
  EXPECT_THAT(deadline_.calls[0], testing::AllOf(HasSubstr("the reduce of"), HasSubstr("window 5"),
                                                 HasSubstr("\"job/0/3\""), HasSubstr("worker 3 is gone")));
  guard_.Leave();
  EXPECT_EQ(deadline_.calls.back(), "stop");
}

// The whole of it: an operation that no abort ends ends the process.
TEST(AbortDeadlineTimer, OperationThatNeverReturns_ProcessIsEnded) {
  absl::Notification entered, ended;
  std::string hangs;
  AbortDeadlineTimer deadline(absl::ZeroDuration(), [&](const std::string& what) {
    hangs = what;
    ended.Notify();
  });
  CollectiveGuard guard(&deadline);
  v1::CoordinatorMessage assignment;
  assignment.mutable_assign_job();
  guard.Observe(assignment);
  guard.BeginJob();
  FakeCommunicator communicator;
  std::thread compute([&] {
    ASSERT_TRUE(guard.Enter(kReduce, KeyOf(3), "c", communicator).ok());
    entered.Notify();
    ended.WaitForNotification();  // it never leaves before
    guard.Leave();
  });
  entered.WaitForNotification();
  guard.Observe(AbortOf(KeyOf(3)));
  compute.join();
  EXPECT_EQ(communicator.aborts, 1);
  EXPECT_THAT(hangs, HasSubstr("the reduce of"));
}

TEST(AbortDeadlineTimer, StoppedInTime_NothingEnds) {
  int ends = 0;
  {
    AbortDeadlineTimer deadline(absl::Hours(1), [&](const std::string&) { ++ends; });
    deadline.Start("first");
    deadline.Stop();
    deadline.Start("second");
  }
  EXPECT_EQ(ends, 0);
}

}  // namespace
}  // namespace accrue
