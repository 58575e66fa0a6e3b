// A newcomer that copies the state of a member beside its work.
#include <atomic>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "tests/worker/runner_testing.h"
#include "worker/collective/gloo_collective.h"
#include "worker/collective/testing/memory_rendezvous.h"

namespace accrue {
namespace {

using testing::HasSubstr;
using worker_testing::kUnits;
using worker_testing::MakeJob;
using worker_testing::Member;
using worker_testing::SealOf;
using worker_testing::TellSeal;

constexpr int kNever = 1 << 30;

// What happens to the broadcasts of a copy, by their number from 0.
struct Wire {
  std::atomic<int> held_at = kNever;  // the source's waits for `open` before this one
  absl::Notification reached, open;
  std::atomic<int> garbled_at = kNever;  // what the newcomer gets of this one has a wrong bit, a high one
};

class WiredCommunicator : public Communicator {
 public:
  WiredCommunicator(std::unique_ptr<Communicator> inner, Wire& wire) : inner_(std::move(inner)), wire_(wire) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  absl::Status Meet() override { return inner_->Meet(); }
  absl::Status AllReduce(const int64_t* in, int64_t* out, int64_t elements) override {
    return inner_->AllReduce(in, out, elements);
  }
  absl::Status AllReduce(const float* in, float* out, int64_t elements) override {
    return inner_->AllReduce(in, out, elements);
  }
  absl::Status Broadcast(void* data, size_t size_bytes, int root) override {
    const int number = broadcasts_++;
    if (rank() == root && number == wire_.held_at) {
      wire_.reached.Notify();
      wire_.open.WaitForNotification();
    }
    const absl::Status status = inner_->Broadcast(data, size_bytes, root);
    if (status.ok() && rank() != root && number == wire_.garbled_at) static_cast<char*>(data)[size_bytes / 2 + 6] ^= 4;
    return status;
  }
  void Abort() override { inner_->Abort(); }

 private:
  const std::unique_ptr<Communicator> inner_;
  Wire& wire_;
  int broadcasts_ = 0;
};

class WiredFactory : public CollectiveFactory {
 public:
  WiredFactory(CollectiveFactory& inner, Wire& wire) : inner_(inner), wire_(wire) {}
  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string& name, int rank, int size,
                                                       int64_t deadline_ms) override {
    absl::StatusOr<std::unique_ptr<Communicator>> inner = inner_.Create(name, rank, size, deadline_ms);
    if (!inner.ok() || name.find("copy") == std::string::npos) return inner;
    return std::make_unique<WiredCommunicator>(*std::move(inner), wire_);
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string& name, int rank, int size,
                                                            int64_t deadline_ms) override {
    return inner_.CreateAhead(name, rank, size, deadline_ms);
  }

 private:
  CollectiveFactory& inner_;
  Wire& wire_;
};

class StateCopyTest : public testing::Test {
 protected:
  StateCopyTest() : gloo_(*CreateGlooFactory({}, &store_)), collectives_(*gloo_, wire_) {
    source_ = Add(1, true);
    exponents_ = Probe();
    Run(0);
  }
  ~StateCopyTest() override {
    if (!wire_.open.HasBeenNotified()) wire_.open.Notify();
  }

  std::unique_ptr<Member> Add(int64_t incarnation, bool holds_state) {
    // 18 runs in two buckets; one tensor lies in both.
    const std::vector<TensorShape> shapes = {{"a", {3000}}, {"b.weight", {2100, 2000}}};
    return std::make_unique<Member>(
        incarnation, collectives_, MakeJob(holds_state, AccumulationMode::kExact, OptimizerKind::kAdamW, shapes));
  }

  std::vector<int> Probe() {
    v1::CoordinatorMessage message;
    *message.mutable_probe()->mutable_key() = source_->Key(0);
    source_->Tell(message);
    const v1::UnitReport report = source_->link.Take().unit_reports().reports(0);
    return NextExponents(kUnits, {report.max_exponents().begin(), report.max_exponents().end()});
  }

  // A window of the source, and of the newcomer once it is a member; returns the digest, which is both's.
  std::string Run(int64_t window, bool both = false) {
    std::vector<v1::UnitReport> reports;
    std::vector<Member*> members = {source_.get()};
    if (both) members.push_back(newcomer_.get());
    std::vector<int64_t> incarnations = both ? std::vector<int64_t>{1, 2} : std::vector<int64_t>{1};
    for (Member* member : members) {
      const bool first = member == source_.get();
      if (both) {
        member->Plan(window, {first ? std::pair<int64_t, int64_t>{0, 4} : std::pair<int64_t, int64_t>{4, 2}});
      } else {
        member->Plan(window, {{0, kUnits}}, window == 0 ? exponents_ : std::vector<int>());
      }
    }
    for (Member* member : members) member->TakeComputed(&reports);
    v1::Seal seal = SealOf(reports, incarnations, both ? "both" : "solo");
    seal.mutable_next_loss_scale()->set_exponent(static_cast<int>(10 - window));  // of another one each
    seal.mutable_next_loss_scale()->set_good_windows(window);
    for (Member* member : members) TellSeal(*member, seal, window);
    std::string digest;
    for (Member* member : members) {
      const std::string own = member->TakeStepped().digest();
      if (digest.empty()) digest = own;
      EXPECT_EQ(own, digest);
    }
    for (Member* member : members) member->Commit(window, digest);
    return digest;
  }

  void Order(int64_t window, bool end = false) {
    if (newcomer_ == nullptr) newcomer_ = Add(2, false);
    for (Member* member : {source_.get(), newcomer_.get()}) {
      v1::CoordinatorMessage message;
      v1::CopyState& order = *message.mutable_copy_state();
      *order.mutable_key() = member->Key(window);
      order.set_communicator("copy-1");
      order.set_source(1);
      order.set_receiver(2);
      order.set_end(end);
      member->Tell(message);
    }
  }

  // The newcomer's words up to those of this window; the digest of that.
  std::string LevelAt(int64_t window) {
    while (true) {
      const v1::WorkerMessage message = newcomer_->link.Take();
      EXPECT_TRUE(message.has_state_copied()) << message.DebugString();
      EXPECT_EQ(message.state_copied().error(), "");
      if (message.state_copied().error() != "" || !message.has_state_copied()) return "";
      if (message.state_copied().key().window() == window) return message.state_copied().digest();
    }
  }

  static std::string ErrorOf(Member& member) {
    const v1::WorkerMessage message = member.link.Take();
    EXPECT_TRUE(message.has_state_copied()) << message.DebugString();
    return message.state_copied().error();
  }

  MemoryRendezvous store_;
  Wire wire_;
  std::unique_ptr<CollectiveFactory> gloo_;
  WiredFactory collectives_;
  std::vector<int> exponents_;
  std::unique_ptr<Member> source_, newcomer_;
};

TEST_F(StateCopyTest, NoWindowMeanwhile_DigestOfTheSource) {
  const std::string digest = Run(1);
  Order(2);
  EXPECT_EQ(LevelAt(2), digest);
}

TEST_F(StateCopyTest, WindowsEndInTheMiddle_SourceGoesOnAndNewcomerGetsLevel) {
  wire_.held_at = 12;  // begin, exponents, and five of the runs are through
  Order(1);
  wire_.reached.WaitForNotification();
  // Nothing of the copy moves now, and two windows end.
  Run(1);
  source_->engine().odd_window = 2;
  source_->engine().odd_factor = std::numeric_limits<float>::quiet_NaN();
  Run(2);  // skipped
  const std::string digest = Run(3);
  wire_.open.Notify();
  EXPECT_EQ(LevelAt(4), digest);
  const std::string next = Run(4);
  EXPECT_EQ(LevelAt(5), next);
  Order(5, /*end=*/true);
  Run(5, true);
  Run(6, true);
}

TEST_F(StateCopyTest, NewcomerAsMember_SameDigestsAsTheSourceAlone) {
  std::vector<std::string> alone;
  {
    auto other = Add(1, true);
    std::swap(other, source_);
    for (int64_t window = 0; window < 5; ++window) alone.push_back(Run(window));
  }
  source_ = Add(1, true);
  for (int64_t window = 0; window < 2; ++window) Run(window);
  Order(2);
  LevelAt(2);
  EXPECT_EQ(Run(2), alone[2]);
  EXPECT_EQ(LevelAt(3), alone[2]);
  Order(3, /*end=*/true);
  EXPECT_EQ(Run(3, true), alone[3]);
  EXPECT_EQ(Run(4, true), alone[4]);
}

TEST_F(StateCopyTest, WindowsFasterThanTheirSums_CopyBreaksAndWindowsGoOn) {
  wire_.held_at = 12;
  Order(1);
  wire_.reached.WaitForNotification();
  for (int64_t window = 1; window <= 4; ++window) Run(window);
  wire_.open.Notify();
  EXPECT_THAT(ErrorOf(*source_), HasSubstr("windows end faster"));
  Order(5, /*end=*/true);
  Run(5);
}

TEST_F(StateCopyTest, EndInTheMiddle_NewcomerHoldsNothingAndBothGoOn) {
  wire_.held_at = 12;
  Order(1);
  wire_.reached.WaitForNotification();
  Order(1, /*end=*/true);
  wire_.open.Notify();
  newcomer_->Release();
  EXPECT_FALSE(newcomer_->job->holds_state);
  Run(1);
}

TEST_F(StateCopyTest, NewcomerGone_SourceSaysSoAndGoesOn) {
  wire_.held_at = 12;
  Order(1);
  wire_.reached.WaitForNotification();
  newcomer_->Release();
  Run(1);
  wire_.open.Notify();
  EXPECT_NE(ErrorOf(*source_), "");
  Run(2);
}

TEST_F(StateCopyTest, NewcomerIsToLeave_LeavesInTheMiddle) {
  wire_.held_at = 12;
  Order(1);
  wire_.reached.WaitForNotification();
  newcomer_->inbox.Push(DrainRequested{"enough"});
  wire_.open.Notify();
  const v1::WorkerMessage message = newcomer_->link.Take();
  EXPECT_TRUE(message.has_leaving()) << message.DebugString();
  EXPECT_FALSE(newcomer_->job->holds_state);
  EXPECT_NE(ErrorOf(*source_), "");
  Run(1);
}

TEST_F(StateCopyTest, MemoryIsShort_SourceSaysSoAndGoesOn) {
  static_cast<HostBackend&>(*source_->job->backend).allocations_left = 1;
  Order(1);
  EXPECT_THAT(ErrorOf(*source_), HasSubstr("no memory"));
  Order(1, /*end=*/true);
  Run(1);
}

TEST_F(StateCopyTest, AnotherCoordinatorComes_SourceGivesTheCopyUp) {
  wire_.held_at = 12;
  Order(1);
  wire_.reached.WaitForNotification();
  source_->inbox.StartAnew(Joined{.term = 2, .incarnation = 1, .resumed = true});
  wire_.open.Notify();
  EXPECT_TRUE(source_->link.Take().has_holding());
  EXPECT_THAT(ErrorOf(*newcomer_), HasSubstr("copy-1"));  // the communicator's name: the source has closed it
}

// As a member by a record that was the coordinator's last act.
TEST_F(StateCopyTest, AnotherCoordinatorComes_NewcomerSaysWhatItHolds) {
  const std::string digest = Run(1);
  Order(2);
  LevelAt(2);
  newcomer_->guard.ForgetUnseen();
  newcomer_->inbox.StartAnew(Joined{.term = 2, .incarnation = 2, .resumed = true});
  const v1::WorkerMessage message = newcomer_->link.Take();
  ASSERT_TRUE(message.has_holding()) << message.DebugString();
  EXPECT_EQ(message.holding().key().window(), 2);
  EXPECT_EQ(message.holding().digest(), digest);
}

TEST_F(StateCopyTest, SumsGarbled_NewcomerSaysThatItDiffers) {
  // Begin, exponents and 18 runs in two parts each; then the step: header, two times exponents, sums.
  wire_.garbled_at = 2 + 2 * 18 + 3 + 4;
  Order(1);
  LevelAt(1);
  Run(1);
  EXPECT_THAT(ErrorOf(*newcomer_), HasSubstr("the copied state has digest"));
}

}  // namespace
}  // namespace accrue
