#include "worker/core/preparer.h"

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/check.h"
#include "tests/worker/runner_testing.h"
#include "worker/collective/gloo_collective.h"
#include "worker/collective/testing/memory_rendezvous.h"

namespace accrue {
namespace {

using testing::HasSubstr;
using testing::IsNull;
using testing::NotNull;

// What a worker would send.
class Answers {
 public:
  Preparer::Answer Taker() {
    return [this](v1::WorkerMessage message) {
      absl::MutexLock lock(&mutex_);
      answers_.push_back(message.prepared());
    };
  }
  v1::Prepared Next() {
    absl::MutexLock lock(&mutex_);
    auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !answers_.empty(); };
    ACCRUE_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&ready), absl::Seconds(30)));
    v1::Prepared answer = answers_.front();
    answers_.pop_front();
    return answer;
  }
  bool empty() {
    absl::MutexLock lock(&mutex_);
    return answers_.empty();
  }

 private:
  absl::Mutex mutex_;
  std::deque<v1::Prepared> answers_ ABSL_GUARDED_BY(mutex_);
};

v1::Prepare Order(const std::string& name, int64_t incarnation, const std::vector<int64_t>& members) {
  v1::Prepare order;
  order.mutable_key()->set_incarnation(incarnation);
  order.mutable_key()->set_window(4);
  order.set_communicator(name);
  order.mutable_members()->Assign(members.begin(), members.end());
  return order;
}

class PreparerTest : public testing::Test {
 protected:
  PreparerTest() : collectives_(*CreateGlooFactory({}, &store_)) {}

  std::unique_ptr<Preparer> Make(Answers& answers) {
    return std::make_unique<Preparer>(*collectives_, 20'000, nullptr, answers.Taker());
  }

  MemoryRendezvous store_;
  std::unique_ptr<CollectiveFactory> collectives_;
  Answers first_answers_, second_answers_;
};

TEST_F(PreparerTest, Prepare_AllMembers_TheyHoldACommunicatorThatSums) {
  const auto first = Make(first_answers_), second = Make(second_answers_);
  first->Prepare(Order("ahead", 5, {5, 8}));
  second->Prepare(Order("ahead", 8, {5, 8}));
  const v1::Prepared answer = first_answers_.Next();
  EXPECT_EQ(answer.error(), "");
  EXPECT_EQ(answer.communicator(), "ahead");
  EXPECT_EQ(answer.key().window(), 4);
  EXPECT_EQ(second_answers_.Next().error(), "");
  const std::unique_ptr<Communicator> a = first->Take("ahead", 0, 2), b = second->Take("ahead", 1, 2);
  ASSERT_THAT(a, NotNull());
  ASSERT_THAT(b, NotNull());
  int64_t own = 3, sum = 0, other = 4, other_sum = 0;
  std::thread peer([&] { EXPECT_TRUE(b->AllReduce(&other, &other_sum, 1).ok()); });
  EXPECT_TRUE(a->AllReduce(&own, &sum, 1).ok());
  peer.join();
  EXPECT_EQ(sum, 7);
  EXPECT_THAT(first->Take("ahead", 0, 2), IsNull());  // it was taken
}

TEST_F(PreparerTest, Take_AnotherNameRankOrSize_LeavesItThere) {
  const auto preparer = Make(first_answers_);
  preparer->Prepare(Order("ahead", 5, {5}));
  first_answers_.Next();
  EXPECT_THAT(preparer->Take("now", 0, 1), IsNull());
  EXPECT_THAT(preparer->Take("ahead", 1, 1), IsNull());
  EXPECT_THAT(preparer->Take("ahead", 0, 2), IsNull());
  EXPECT_THAT(preparer->Take("ahead", 0, 1), NotNull());
}

TEST_F(PreparerTest, Prepare_WhileAnotherIsBeingFormed_TakesItsPlace) {
  const auto preparer = Make(first_answers_);
  preparer->Prepare(Order("nobody comes", 5, {5, 8}));
  preparer->Prepare(Order("ahead", 5, {5}));
  EXPECT_EQ(first_answers_.Next().communicator(), "ahead");
  EXPECT_THAT(preparer->Take("ahead", 0, 1), NotNull());
  preparer->Stop();
  EXPECT_TRUE(first_answers_.empty());  // of the former nothing is said
}

// Meets nobody: its Meet is under way until it is aborted, which it notes.
class LonelyFactory : public CollectiveFactory {
 public:
  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string&, int, int, int64_t) override {
    return absl::InternalError("not ahead");
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string&, int rank, int size, int64_t) override {
    return std::make_unique<Lonely>(*this, rank, size);
  }
  absl::Notification meets, aborted;

 private:
  class Lonely : public Communicator {
   public:
    Lonely(LonelyFactory& factory, int rank, int size) : factory_(factory), rank_(rank), size_(size) {}
    int rank() const override { return rank_; }
    int size() const override { return size_; }
    absl::Status Meet() override {
      if (size_ == 1) return absl::OkStatus();
      factory_.meets.Notify();
      EXPECT_TRUE(factory_.aborted.WaitForNotificationWithTimeout(absl::Seconds(10)));
      return absl::AbortedError("alone");
    }
    absl::Status AllReduce(const int64_t*, int64_t*, int64_t) override { return absl::OkStatus(); }
    absl::Status AllReduce(const float*, float*, int64_t) override { return absl::OkStatus(); }
    absl::Status Broadcast(void*, size_t, int) override { return absl::OkStatus(); }
    void Abort() override { factory_.aborted.Notify(); }

   private:
    LonelyFactory& factory_;
    const int rank_, size_;
  };
};

TEST(PreparerMeeting, AnotherOrder_EndsIt) {
  LonelyFactory factory;
  Answers answers;
  Preparer preparer(factory, 20'000, nullptr, answers.Taker());
  preparer.Prepare(Order("nobody comes", 5, {5, 8}));
  factory.meets.WaitForNotification();
  preparer.Prepare(Order("ahead", 5, {5}));
  EXPECT_EQ(answers.Next().communicator(), "ahead");
  preparer.Stop();
  EXPECT_TRUE(answers.empty());
}

TEST_F(PreparerTest, GiveUp_AfterItIsFormed_NothingIsThere) {
  const auto preparer = Make(first_answers_);
  preparer->Prepare(Order("ahead", 5, {5}));
  first_answers_.Next();
  preparer->GiveUp();
  EXPECT_THAT(preparer->Take("ahead", 0, 1), IsNull());
}

TEST_F(PreparerTest, Stop_WhileMembersMeet_ReturnsAndHearsNoOrders) {
  const auto preparer = Make(first_answers_);
  preparer->Prepare(Order("nobody comes", 5, {5, 8}));
  preparer->Stop();
  preparer->Prepare(Order("ahead", 5, {5}));
  EXPECT_THAT(preparer->Take("ahead", 0, 1), IsNull());
  EXPECT_TRUE(first_answers_.empty());
}

TEST_F(PreparerTest, Prepare_NotAMember_SaysSo) {
  const auto preparer = Make(first_answers_);
  preparer->Prepare(Order("ahead", 6, {5, 8}));
  EXPECT_THAT(first_answers_.Next().error(), HasSubstr("incarnation 6 is not among the 2 members"));
}

TEST_F(PreparerTest, Prepare_CommunicatorIsGivenUpByTheCoordinator_SaysSo) {
  const auto preparer = Make(first_answers_);
  store_.GiveUp("ahead");
  preparer->Prepare(Order("ahead", 5, {5, 8}));
  EXPECT_NE(first_answers_.Next().error(), "");
}

// Counts the communicators that are made.
class CountingFactory : public CollectiveFactory {
 public:
  explicit CountingFactory(CollectiveFactory& inner) : inner_(inner) {}
  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string& name, int rank, int size,
                                                       int64_t deadline_ms) override {
    ++made;
    return inner_.Create(name, rank, size, deadline_ms);
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string& name, int rank, int size,
                                                            int64_t deadline_ms) override {
    ++made;
    return inner_.CreateAhead(name, rank, size, deadline_ms);
  }
  std::atomic<int> made{0};

 private:
  CollectiveFactory& inner_;
};

TEST_F(PreparerTest, Seal_NamesWhatIsFormed_TheReduceMakesNone) {
  const auto run = [&](bool prepared, int& made) {
    CountingFactory factory(*collectives_);
    Preparer preparer(factory, 20'000, nullptr, first_answers_.Taker());
    if (prepared) {
      preparer.Prepare(Order("ahead", 1, {1}));
      EXPECT_EQ(first_answers_.Next().error(), "");
    }
    worker_testing::Member member(1, factory, worker_testing::MakeJob(true, AccumulationMode::kFast),
                                  Clock::Real(), nullptr, &preparer);
    std::vector<v1::UnitReport> reports;
    member.Plan(0, {{0, 6}});
    member.TakeComputed(&reports);
    made = -factory.made;
    worker_testing::TellSeal(member, worker_testing::SealOf(reports, {1}, "ahead", false), 0);
    const std::string digest = member.TakeStepped().digest();
    made += factory.made;
    return digest;
  };
  int made_with = -1, made_without = -1;
  const std::string with = run(true, made_with), without = run(false, made_without);
  EXPECT_EQ(made_with, 0);
  EXPECT_EQ(made_without, 1);
  EXPECT_EQ(with, without);
}

// As NCCL's.
class NotBeside : public CollectiveFactory {
 public:
  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string&, int, int, int64_t) override {
    return absl::InternalError("made on another thread");
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string&, int, int, int64_t) override {
    return absl::UnimplementedError("only the thread that computes");
  }
};

TEST(PreparerWithoutBackgroundMeetings, Prepare_IsRefused) {
  NotBeside collectives;
  Answers answers;
  Preparer preparer(collectives, 20'000, nullptr, answers.Taker());
  preparer.Prepare(Order("ahead", 5, {5}));
  EXPECT_THAT(answers.Next().error(), HasSubstr("the thread that computes"));
}

}  // namespace
}  // namespace accrue
