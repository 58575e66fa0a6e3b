// A worker that outlives its coordinator, as the coordinators see it.
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "tests/worker/fake_links.h"
#include "tests/worker/runner_testing.h"
#include "worker/collective/gloo_collective.h"
#include "worker/collective/testing/memory_rendezvous.h"
#include "worker/core/worker.h"

namespace accrue {
namespace {

using worker_testing::FakeCheckpoints;
using worker_testing::FakeJobs;
using worker_testing::FakeLinks;
using worker_testing::QuadraticEngine;
using worker_testing::Stream;

constexpr int64_t kKeepMs = 60'000;

class WorkerReconnectTest : public testing::Test {
 protected:
  WorkerReconnectTest()
      : collectives_(*CreateGlooFactory({}, &store_)),
        worker_({.session = {.first_pause_ms = 1, .keep_ms = kKeepMs}, .collective_deadline_ms = 300'000},
                {links_, jobs_, *collectives_,
                 [](CoordinatorLink&) -> std::unique_ptr<CheckpointSink> { return std::make_unique<FakeCheckpoints>(); },
                 clock_}) {
    jobs_.on_load = [this](QuadraticEngine& engine) {
      engine.before_unit = [this](int64_t unit) {
        if (unit != blocked_unit_) return;
        blocked_unit_ = -1;
        blocked_.Notify();
        go_on_.WaitForNotification();
      };
      engine.after_all = [this] {
        if (!job_gone_.HasBeenNotified()) job_gone_.Notify();
      };
    };
    thread_ = std::thread([this] { result_ = worker_.Run(); });
  }
  ~WorkerReconnectTest() override {
    if (!go_on_.HasBeenNotified()) go_on_.Notify();
    worker_.LeaveAtOnce("end of test");
    thread_.join();
  }

  static v1::Key KeyOfTerm(int64_t term, int64_t incarnation = 7) {
    v1::Key key;
    key.set_term(term);
    key.set_job_id(worker_testing::kJobId);
    key.set_incarnation(incarnation);
    return key;
  }
  static v1::CoordinatorMessage Welcome(int64_t term, bool resumed, int64_t incarnation = 7, int64_t heartbeat_ms = 60'000) {
    v1::CoordinatorMessage message;
    message.mutable_welcome()->set_term(term);
    message.mutable_welcome()->set_incarnation(incarnation);
    message.mutable_welcome()->set_resumed(resumed);
    message.mutable_welcome()->set_heartbeat_interval_ms(heartbeat_ms);
    return message;
  }
  static v1::CoordinatorMessage Assign(int64_t term, int64_t incarnation = 7) {
    v1::CoordinatorMessage message;
    *message.mutable_assign_job()->mutable_key() = KeyOfTerm(term, incarnation);
    return message;
  }
  static v1::CoordinatorMessage Plan(int64_t term, int64_t first, int64_t count, int64_t incarnation = 7) {
    v1::CoordinatorMessage message;
    *message.mutable_plan()->mutable_key() = KeyOfTerm(term, incarnation);
    message.mutable_plan()->add_units()->set_first(first);
    message.mutable_plan()->mutable_units(0)->set_count(count);
    message.mutable_plan()->mutable_exponents()->Resize(3, 20);
    return message;
  }
  static v1::CoordinatorMessage Refused(bool rejoin) {
    v1::CoordinatorMessage message;
    message.mutable_refused()->set_reason("as the test says");
    message.mutable_refused()->set_rejoin(rejoin);
    return message;
  }
  // The first stream, with a job loaded.
  std::shared_ptr<Stream> LoadJob() {
    std::shared_ptr<Stream> stream = links_.Next();
    stream->Tell(Welcome(1, false));
    stream->Tell(Assign(1));
    EXPECT_TRUE(stream->link.Take().has_job_loaded());
    return stream;
  }
  // Up to WindowComputed.
  static std::vector<v1::UnitReport> TakeReports(Stream& stream) {
    std::vector<v1::UnitReport> reports;
    while (true) {
      const v1::WorkerMessage message = stream.link.Take();
      if (!message.has_unit_reports()) {
        EXPECT_TRUE(message.has_window_computed()) << message.DebugString();
        return reports;
      }
      reports.insert(reports.end(), message.unit_reports().reports().begin(), message.unit_reports().reports().end());
    }
  }

  FakeClock clock_;
  MemoryRendezvous store_;
  std::unique_ptr<CollectiveFactory> collectives_;
  FakeLinks links_;
  FakeJobs jobs_;
  int64_t blocked_unit_ = -1;  // of the compute thread once a plan is told
  absl::Notification blocked_, go_on_, job_gone_;
  Worker worker_;
  absl::Status result_;
  std::thread thread_;
};

TEST_F(WorkerReconnectTest, Resumed_TellsWhatItHoldsFirstAndGoesOn) {
  auto first = LoadJob();
  first->Tell(Plan(1, 0, 3));
  TakeReports(*first);
  first->Break();
  auto second = links_.Next();
  EXPECT_EQ(second->hello.incarnation(), 7);
  second->Tell(Welcome(2, true));
  const v1::WorkerMessage message = second->link.Take();
  ASSERT_TRUE(message.has_holding()) << message.DebugString();
  EXPECT_EQ(message.holding().key().term(), 2);
  EXPECT_EQ(message.holding().reports_size(), 3);
  second->Tell(Plan(2, 3, 3));
  EXPECT_EQ(second->link.Take().unit_reports().key().term(), 2);
}

TEST_F(WorkerReconnectTest, BusyWhileItReconnects_NothingOfTheOldTermIsSentOrDone) {
  blocked_unit_ = 1;
  auto first = LoadJob();
  first->Tell(Plan(1, 0, 2));
  blocked_.WaitForNotification();
  first->Tell(Plan(1, 2, 4));  // stays in the inbox
  first->Break();
  auto second = links_.Next();
  second->Tell(Welcome(2, true));
  go_on_.Notify();
  const v1::WorkerMessage message = second->link.Take();
  ASSERT_TRUE(message.has_holding()) << message.DebugString();
  EXPECT_EQ(message.holding().reports_size(), 2);
  second->Tell(Plan(2, 5, 1));
  v1::WorkerMessage computed = second->link.Take();
  while (computed.has_unit_reports()) computed = second->link.Take();
  ASSERT_EQ(computed.window_computed().buckets(0).units_size(), 2);  // 0 to 1, and 5
  EXPECT_EQ(computed.window_computed().buckets(0).units(1).first(), 5);
}

TEST_F(WorkerReconnectTest, NoCoordinatorForAWhile_TriesAgainWithTheSameIncarnation) {
  LoadJob()->Break();
  for (int i = 0; i < 5; ++i) {
    auto stream = links_.Next();
    EXPECT_EQ(stream->hello.incarnation(), 7);
    stream->Break();
  }
  clock_.AdvanceNs((kKeepMs - 1) * 1'000'000);
  auto stream = links_.Next();
  EXPECT_EQ(stream->hello.incarnation(), 7);
  stream->Break();
}

TEST_F(WorkerReconnectTest, NoCoordinatorForTooLong_GivesUpWhatItHolds) {
  LoadJob()->Break();
  auto stream = links_.Next();
  clock_.AdvanceNs(kKeepMs * 1'000'000);
  stream->Break();
  auto anew = links_.Next();
  EXPECT_EQ(anew->hello.incarnation(), 0);
  anew->Tell(Welcome(2, false, 8));
  anew->Tell(Assign(2, 8));
  EXPECT_TRUE(anew->link.Take().has_job_loaded());
}

TEST_F(WorkerReconnectTest, RefusedOnReturn_BeginsANewLife) {
  blocked_unit_ = 0;
  auto first = LoadJob();
  first->Tell(Plan(1, 0, 6));
  blocked_.WaitForNotification();
  first->Break();
  links_.Next()->Tell(Refused(/*rejoin=*/true));
  auto anew = links_.Next();
  EXPECT_EQ(anew->hello.incarnation(), 0);
  anew->Tell(Welcome(2, false, 8));
  anew->Tell(Assign(2, 8));
  go_on_.Notify();  // what the former life still computes is told to nobody
  const v1::WorkerMessage message = anew->link.Take();
  ASSERT_TRUE(message.has_job_loaded()) << message.DebugString();
  EXPECT_EQ(message.job_loaded().key().incarnation(), 8);
  anew->Tell(Plan(2, 0, 1, 8));
  EXPECT_EQ(anew->link.Take().unit_reports().reports(0).unit(), 0);
}

TEST_F(WorkerReconnectTest, RefusedInMidJob_BeginsANewLife) {
  auto first = LoadJob();
  first->Tell(Refused(/*rejoin=*/true));
  EXPECT_EQ(links_.Next()->hello.incarnation(), 0);
}

TEST_F(WorkerReconnectTest, WelcomedAsNew_BeginsANewLifeOnThatStream) {
  LoadJob()->Break();
  auto second = links_.Next();
  EXPECT_EQ(second->hello.incarnation(), 7);
  second->Tell(Welcome(2, false, 8));
  EXPECT_TRUE(job_gone_.WaitForNotificationWithTimeout(absl::Seconds(30))) << "what was held is kept";
  second->Tell(Assign(2, 8));
  const v1::WorkerMessage message = second->link.Take();
  ASSERT_TRUE(message.has_job_loaded()) << message.DebugString();
  EXPECT_EQ(message.job_loaded().key().incarnation(), 8);
}

TEST_F(WorkerReconnectTest, RefusedForGoodOnReturn_Ends) {
  LoadJob()->Break();
  links_.Next()->Tell(Refused(/*rejoin=*/false));
  thread_.join();
  EXPECT_EQ(result_.code(), absl::StatusCode::kFailedPrecondition);
  thread_ = std::thread([] {});
}

TEST_F(WorkerReconnectTest, JobOverBeforeItReturns_BeginsANewLife) {
  blocked_unit_ = 0;
  auto first = LoadJob();
  first->Tell(Plan(1, 0, 1));
  blocked_.WaitForNotification();
  v1::CoordinatorMessage release;
  *release.mutable_release()->mutable_key() = KeyOfTerm(1);
  first->Tell(release);
  first->Break();
  auto second = links_.Next();  // the release is not yet seen
  EXPECT_EQ(second->hello.incarnation(), 7);
  go_on_.Notify();
  job_gone_.WaitForNotification();
  second->Tell(Welcome(2, true));
  EXPECT_EQ(links_.Next()->hello.incarnation(), 0);
}

TEST_F(WorkerReconnectTest, ReleaseUnseenBeforeTheLoss_StopsNoLaterReduce) {
  blocked_unit_ = 0;
  auto first = LoadJob();
  first->Tell(Plan(1, 0, 6));
  blocked_.WaitForNotification();
  v1::CoordinatorMessage release;
  *release.mutable_release()->mutable_key() = KeyOfTerm(1);
  first->Tell(release);
  first->Tell(Assign(1));
  first->Break();
  auto second = links_.Next();
  second->Tell(Welcome(2, true));
  go_on_.Notify();
  EXPECT_TRUE(second->link.Take().has_holding());
  second->Tell(Plan(2, 1, 5));
  // The report of unit 0 went to nobody; it is what the worker's own checksums say, so the seal is of one member.
  std::vector<v1::UnitReport> reports = TakeReports(*second);
  EXPECT_EQ(reports.size(), 5u);
  v1::CoordinatorMessage seal;
  *seal.mutable_seal() = worker_testing::SealOf(reports, {7}, "alone");
  *seal.mutable_seal()->mutable_key() = KeyOfTerm(2);
  second->Tell(seal);
  // Its checksums lack unit 0's: a reduce that was let begin says so.
  EXPECT_THAT(second->link.Take().reduce_failed().reason(), testing::HasSubstr("checksum"));
}

TEST_F(WorkerReconnectTest, Heartbeats_FollowTheNewLink) {
  LoadJob()->Break();
  auto second = links_.Next();
  second->Tell(Welcome(2, true, 7, /*heartbeat_ms=*/1));
  EXPECT_TRUE(second->heartbeats.Take().has_heartbeat());
}

// A worker blocked in the reduce of window 0, for which its peer has met it and stays silent.
class BlockedReduceTest : public WorkerReconnectTest {
 protected:
  void Block() {
    first_ = LoadJob();
    first_->Tell(Plan(1, 0, 6));
    const std::vector<v1::UnitReport> reports = TakeReports(*first_);
    v1::CoordinatorMessage seal;
    *seal.mutable_seal() = worker_testing::SealOf(reports, {7, 9}, "both");
    *seal.mutable_seal()->mutable_key() = KeyOfTerm(1);
    first_->Tell(seal);
    peers_ = *CreateGlooFactory({}, &store_);
    peer_ = *peers_->Form("both", 1, 2, 300'000);
  }
  std::shared_ptr<Stream> Replace() {
    first_->Break();
    auto second = links_.Next();
    second->Tell(Welcome(2, true));
    return second;
  }

  std::shared_ptr<Stream> first_;
  std::unique_ptr<CollectiveFactory> peers_;
  std::unique_ptr<Communicator> peer_;
};

TEST_F(BlockedReduceTest, CoordinatorReplaced_ReduceEndsWell) {
  Block();
  auto second = Replace();
  const std::unique_ptr<Job> job = worker_testing::MakeJob(true);
  for (const Bucket& bucket : job->engine->layout().buckets()) {
    std::vector<int64_t> zeros(static_cast<size_t>(bucket.elements)), sums(zeros.size());
    ASSERT_TRUE(peer_->AllReduce(zeros.data(), sums.data(), bucket.elements).ok());
  }
  const v1::WorkerMessage message = second->link.Take();
  ASSERT_TRUE(message.has_holding()) << message.DebugString();
  EXPECT_EQ(message.holding().key().window(), 1);
  EXPECT_EQ(message.holding().stepped().digest(), message.holding().digest());
}

TEST_F(BlockedReduceTest, AbortFromTheNewCoordinator_EndsIt) {
  Block();
  auto second = Replace();
  v1::CoordinatorMessage abort;
  *abort.mutable_abort()->mutable_key() = KeyOfTerm(2);
  abort.mutable_abort()->mutable_key()->set_epoch(3);
  second->Tell(abort);
  const v1::WorkerMessage message = second->link.Take();
  ASSERT_TRUE(message.has_holding()) << message.DebugString();
  EXPECT_EQ(message.holding().reports_size(), 6);
  EXPECT_FALSE(message.holding().has_stepped());
}

TEST_F(BlockedReduceTest, RefusedOnReturn_EndsIt) {
  Block();
  first_->Break();
  links_.Next()->Tell(Refused(/*rejoin=*/true));
  auto anew = links_.Next();
  anew->Tell(Welcome(2, false, 8));
  anew->Tell(Assign(2, 8));
  EXPECT_EQ(anew->link.Take().job_loaded().key().incarnation(), 8);
}

TEST_F(WorkerReconnectTest, LeaveAtOnce_DeepInAUnit_HandsBackAndEndsTheStream) {
  blocked_unit_ = 0;
  auto stream = LoadJob();
  stream->Tell(Plan(1, 0, 6));
  blocked_.WaitForNotification();
  worker_.Drain("signal 15");
  worker_.LeaveAtOnce("signal 15 again");
  const v1::WorkerMessage message = stream->link.Take();
  EXPECT_TRUE(message.leaving().at_once());
  EXPECT_TRUE(stream->link.closed());
}

}  // namespace
}  // namespace accrue
