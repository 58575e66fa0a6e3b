#include "worker/collective/nccl/nccl_collective.h"

#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "tests/collective/nccl/fake_nccl.h"
#include "worker/collective/device_and_host.h"
#include "worker/collective/testing/memory_rendezvous.h"

namespace accrue::nccl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kDeadlineMs = 20'000;

// One member: its calls and its factory.
struct Member {
  Member(World& world, RendezvousStore& store, const Clock& clock = Clock::Real())
      : calls(world), factory(*CreateNcclFactory({}, calls, clock, &store)) {}
  FakeCalls calls;
  std::unique_ptr<CollectiveFactory> factory;
};

// Runs body(communicator, calls) as every rank of a communicator, a thread each.
template <typename Body>
void AsRanks(int size, Body body) {
  World world;
  MemoryRendezvous store;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      Member member(world, store);
      auto communicator = member.factory->Form("c", rank, size, kDeadlineMs);
      ASSERT_TRUE(communicator.ok()) << communicator.status();
      body(**communicator, member.calls);
      communicator->reset();
      EXPECT_TRUE(member.calls.always_followed);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

class NcclAllReduce : public testing::TestWithParam<std::tuple<int, int64_t>> {};

TEST_P(NcclAllReduce, AllRanks_SumsAndLeavesInput) {
  const auto [size, elements] = GetParam();
  AsRanks(size, [size = size, elements = elements](Communicator& communicator, FakeCalls&) {
    std::vector<int64_t> in(elements), out(elements, -1), expected(elements);
    std::vector<float> floats(elements), float_out(elements, -1), float_expected(elements);
    for (int64_t i = 0; i < elements; ++i) {
      in[i] = (i * 7919 + 13) * (communicator.rank() + 1);
      expected[i] = (i * 7919 + 13) * (size * (size + 1) / 2);
      floats[i] = static_cast<float>(i * (communicator.rank() + 1));
      float_expected[i] = static_cast<float>(i * (size * (size + 1) / 2));
    }
    const std::vector<int64_t> before = in;
    for (int repeat = 0; repeat < 2; ++repeat) {
      ASSERT_TRUE(communicator.AllReduce(in.data(), out.data(), elements).ok());
      EXPECT_TRUE(out == expected);
      EXPECT_TRUE(in == before);
    }
    ASSERT_TRUE(communicator.AllReduce(floats.data(), float_out.data(), elements).ok());
    EXPECT_TRUE(float_out == float_expected);
  });
}

INSTANTIATE_TEST_SUITE_P(RanksAndElements, NcclAllReduce,
                         testing::Combine(testing::Values(1, 2, 3, 5), testing::Values<int64_t>(0, 1, 1001)));

TEST(NcclCollective, Broadcast_EachRoot_ReachesAll) {
  for (int size : {1, 2, 3}) {
    AsRanks(size, [size](Communicator& communicator, FakeCalls&) {
      for (int root = 0; root < size; ++root) {
        std::string data(1003, communicator.rank() == root ? 'a' + root : '-');
        ASSERT_TRUE(communicator.Broadcast(data.data(), data.size(), root).ok());
        EXPECT_TRUE(data == std::string(1003, 'a' + root));
      }
      EXPECT_TRUE(communicator.Broadcast(nullptr, 0, 0).ok());
    });
  }
}

// The fake's device memory for it is 64 bytes.
TEST(NcclCollective, BroadcastHost_OfAnySize_GoesThroughTheDevice) {
  AsRanks(3, [](Communicator& communicator, FakeCalls& calls) {
    for (size_t size_bytes : {0, 1, 63, 64, 65, 200}) {
      std::string data(size_bytes, communicator.rank() == 1 ? 'x' : '-');
      const int before = calls.followed;
      ASSERT_TRUE(communicator.BroadcastHost(data.data(), size_bytes, 1).ok());
      EXPECT_EQ(data, std::string(size_bytes, 'x'));
      EXPECT_EQ(calls.followed - before, static_cast<int>((size_bytes + 63) / 64));
    }
  });
}

// Rank 0 of two whose peer has done its part of the meeting and nothing else: by a clock that nobody else advances.
struct Alone {
  // first: what the peer gives to the sum that counts members.
  explicit Alone(int64_t deadline_ms, int64_t first = 1) : one(first) {
    UniqueId id{};
    const int number = 1;
    std::memcpy(id.data(), &number, sizeof(number));
    EXPECT_TRUE(store.Set("c", "nccl/1", "no address").ok());
    world.Join(id);
    world.Post(id, 2, 0, 1, {&one, &sum}, {});
    communicator = *member.factory->Create("c", 0, 2, deadline_ms);
    met = communicator->Meet();
  }
  World world;
  MemoryRendezvous store;
  FakeClock clock;
  int64_t one, sum = 0;  // of the peer
  absl::Status met;
  Member member{world, store, clock};
  std::unique_ptr<Communicator> communicator;
};

TEST(NcclCollective, Meet_FirstSumIsWrong_Unavailable) {
  Alone alone(1000, /*first=*/5);
  EXPECT_EQ(alone.met.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(alone.met.message()), HasSubstr("the first sum over 2 members is 6"));
  EXPECT_EQ(alone.member.calls.aborted, 1);
}

TEST(NcclCollective, End_PeersMayTakeWhatWasSent) {
  for (int result : {kSuccess, kInProgress}) {
    Alone alone(1000);
    alone.member.calls.finalize_result = result;
    alone.communicator.reset();
    EXPECT_EQ(alone.member.calls.finalized, 1);
    EXPECT_EQ(alone.member.calls.destroyed, 1);
    EXPECT_EQ(alone.member.calls.aborted, 0);
  }
}

TEST(NcclCollective, End_ThatFailsOrNeverIs_Aborts) {
  for (int result : {3, kInProgress}) {
    Alone alone(1000);
    alone.member.calls.finalize_result = result;
    alone.member.calls.async_error = result;
    const int64_t begin_ns = alone.clock.SteadyNowNs();
    alone.communicator.reset();
    EXPECT_LT(alone.clock.SteadyNowNs() - begin_ns, 2'100'000'000);
    EXPECT_EQ(alone.member.calls.finalized, 1);
    EXPECT_EQ(alone.member.calls.destroyed, 0);
    EXPECT_EQ(alone.member.calls.aborted, 1);
  }
}

// ---- what fails ----

// Rank 0 of two, met; the other has gone after the meeting. `clock` counts for rank 0's operations.
class WithoutPeer : public testing::Test {
 protected:
  void SetUp() override {
    std::thread other([&] {
      Member peer(world_, store_);
      auto communicator = peer.factory->Form("c", 1, 2, kDeadlineMs);
      EXPECT_TRUE(communicator.ok()) << communicator.status();
      met_.Notify();
      end_.WaitForNotification();
    });
    other_ = std::move(other);
    communicator_ = *member_.factory->Form("c", 0, 2, kDeadlineMs);
    met_.WaitForNotification();
    ASSERT_EQ(member_.calls.aborted, 0);
  }
  void TearDown() override {
    end_.Notify();
    other_.join();
  }
  absl::Status AllReduce() {
    const int64_t in = 1;
    int64_t out = 0;
    return communicator_->AllReduce(&in, &out, 1);
  }
  // The communicator is given up, once, and says the same from now on.
  void ExpectOver(absl::StatusCode code) {
    EXPECT_EQ(member_.calls.aborted, 1);
    EXPECT_EQ(AllReduce().code(), code);
    int64_t data = 0;
    EXPECT_EQ(communicator_->Broadcast(&data, 8, 0).code(), code);
    EXPECT_EQ(communicator_->BroadcastHost(&data, 8, 0).code(), code);
    communicator_.reset();
    EXPECT_EQ(member_.calls.aborted, 1);
    EXPECT_EQ(member_.calls.finalized, 0);
  }

  World world_;
  MemoryRendezvous store_;
  absl::Notification met_, end_;
  std::thread other_;
  Member member_{world_, store_};
  std::unique_ptr<Communicator> communicator_;
};

TEST_F(WithoutPeer, Abort_InAnOperation_Aborted) {
  absl::Notification is_waiting;
  member_.calls.while_idle_is_asked = [&] {
    if (!is_waiting.HasBeenNotified()) is_waiting.Notify();
  };
  std::thread aborter([&] {
    is_waiting.WaitForNotification();
    communicator_->Abort();
  });
  EXPECT_EQ(AllReduce().code(), absl::StatusCode::kAborted);
  aborter.join();
  ExpectOver(absl::StatusCode::kAborted);
}

TEST_F(WithoutPeer, Abort_BetweenOperations_Aborted) {
  communicator_->Abort();
  EXPECT_EQ(AllReduce().code(), absl::StatusCode::kAborted);
  ExpectOver(absl::StatusCode::kAborted);
}

TEST_F(WithoutPeer, AsynchronousError_InAnOperation_UnavailableWithItsWords) {
  int looks = 0;
  member_.calls.while_idle_is_asked = [&] {
    if (++looks == 3) member_.calls.async_error = 6;
  };
  const absl::Status status = AllReduce();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("communicator \"c\", rank 0 of 2: 8 bytes: all-reduce: NCCL: fake result 6"));
  EXPECT_THAT(UnreachableRanks(status), IsEmpty());  // the network to it is whole
  ExpectOver(absl::StatusCode::kUnavailable);
}

TEST_F(WithoutPeer, Refused_WhenItIsQueued_UnavailableWithItsWords) {
  member_.calls.queue_result = 4;
  const absl::Status status = AllReduce();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("fake result 4"));
  ExpectOver(absl::StatusCode::kUnavailable);
}

// The device is done, since an error ended the operation.
TEST(NcclCollective, AllReduce_EndedByAnError_Unavailable) {
  Alone alone(1000);
  UniqueId id{};
  const int number = 1;
  std::memcpy(id.data(), &number, sizeof(number));
  alone.world.Post(id, 2, 1, 1, {&alone.one, &alone.sum}, {});
  alone.member.calls.queue_result = kSuccess;
  alone.member.calls.async_error = 2;
  const int64_t in = 1;
  int64_t out = 0;
  EXPECT_EQ(alone.communicator->AllReduce(&in, &out, 1).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(alone.member.calls.aborted, 1);
}

TEST(NcclCollective, AllReduce_SilentPeer_DeadlineExceeded) {
  Alone alone(700);
  const int64_t in = 1, begin_ns = alone.clock.SteadyNowNs();
  int64_t out = 0;
  const absl::Status status = alone.communicator->AllReduce(&in, &out, 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("all-reduce: not done within 700 ms"));
  EXPECT_THAT(UnreachableRanks(status), ElementsAre(1));  // what it gave is no address
  EXPECT_GE(alone.clock.SteadyNowNs() - begin_ns, 700'000'000);
  EXPECT_LT(alone.clock.SteadyNowNs() - begin_ns, 710'000'000);
  EXPECT_EQ(alone.member.calls.aborted, 1);
}

TEST(NcclCollective, Meet_MemberMissing_DeadlineNamesIt) {
  World world;
  MemoryRendezvous store;
  std::vector<std::thread> threads;
  for (int rank : {1, 2}) {
    threads.emplace_back([&, rank] {
      Member member(world, store);
      const absl::Status status = member.factory->Form("epoch-7", rank, 4, 200).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
      EXPECT_THAT(std::string(status.message()), HasSubstr("rank 0, 3 of 4 did not come within 200 ms"));
      EXPECT_THAT(UnreachableRanks(status), ElementsAre(0, 3));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(NcclCollective, Meet_GivenUp_Cancelled) {
  World world;
  MemoryRendezvous store;
  Member member(world, store);
  std::thread giver([&] { store.GiveUp("c"); });
  EXPECT_EQ(member.factory->Form("c", 0, 2, kDeadlineMs).status().code(), absl::StatusCode::kCancelled);
  giver.join();
}

// The others have come to the store, not to NCCL.
TEST(NcclCollective, Abort_WhileNcclConnects_Aborted) {
  World world;
  MemoryRendezvous store;
  ASSERT_TRUE(store.Set("c", "nccl/1", "").ok());
  Member member(world, store);
  auto communicator = *member.factory->Create("c", 0, 2, kDeadlineMs);
  absl::Notification connects;
  member.calls.while_init_is_asked = [&] {
    if (!connects.HasBeenNotified()) connects.Notify();
  };
  std::thread aborter([&] {
    connects.WaitForNotification();
    communicator->Abort();
  });
  EXPECT_EQ(communicator->Meet().code(), absl::StatusCode::kAborted);
  aborter.join();
  EXPECT_EQ(member.calls.aborted, 1);
}

TEST(NcclCollective, Abort_BeforeMeet_Aborted) {
  World world;
  MemoryRendezvous store;
  Member member(world, store);
  for (int size : {1, 2}) {
    auto communicator = *member.factory->Create("c", 0, size, kDeadlineMs);
    communicator->Abort();
    EXPECT_EQ(communicator->Meet().code(), absl::StatusCode::kAborted);
  }
}

TEST(NcclCollective, Meet_NcclRefuses_UnavailableWithItsWords) {
  for (bool gives_nothing : {false, true}) {
    World world;
    MemoryRendezvous store;
    ASSERT_TRUE(store.Set("c", "nccl/1", "").ok());
    Member member(world, store);
    member.calls.init_result = 3;
    member.calls.init_gives_nothing = gives_nothing;
    const absl::Status status = member.factory->Form("c", 0, 2, kDeadlineMs).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(gives_nothing ? "ncclCommInitRankConfig: NCCL: fake result 5" : "fake result 3"));
    EXPECT_EQ(member.calls.aborted, gives_nothing ? 0 : 1);
  }
}

TEST(NcclCollective, Meet_IdOfAnotherSize_Internal) {
  World world;
  MemoryRendezvous store;
  ASSERT_TRUE(store.Set("c", "nccl/0", "").ok());
  ASSERT_TRUE(store.Set("c", "nccl-id", "short").ok());
  Member member(world, store);
  const absl::Status status = member.factory->Form("c", 1, 2, kDeadlineMs).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the last of 5 bytes; expected 3, the last of 128 bytes"));
}

TEST(NcclCollective, Form_NewName_WorksAfterFailure) {
  World world;
  MemoryRendezvous store;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      Member member(world, store);
      auto first = member.factory->Form("epoch-1", rank, 3, kDeadlineMs);
      ASSERT_TRUE(first.ok()) << first.status();
      if (rank == 2) return;
      int64_t in = 1, out = 0;
      member.calls.async_error = 6;
      EXPECT_EQ((*first)->AllReduce(&in, &out, 1).code(), absl::StatusCode::kUnavailable);
      member.calls.async_error = kSuccess;
      auto second = member.factory->Form("epoch-2", rank, 2, kDeadlineMs);
      ASSERT_TRUE(second.ok()) << second.status();
      ASSERT_TRUE((*second)->AllReduce(&in, &out, 1).ok());
      EXPECT_EQ(out, 2);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Gives nothing but an error of its own.
class NamedFactory : public CollectiveFactory {
 public:
  explicit NamedFactory(const std::string& name) : name_(name) {}
  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string&, int, int, int64_t) override {
    return absl::UnimplementedError(name_);
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string&, int, int, int64_t) override {
    return absl::UnimplementedError(name_ + " ahead");
  }

 private:
  const std::string name_;
};

TEST(DeviceAndHostCollectives, Create_EachFromItsOwn) {
  DeviceAndHostCollectives both(std::make_unique<NamedFactory>("device"), std::make_unique<NamedFactory>("host"));
  EXPECT_EQ(both.Create("c", 0, 2, 1).status().message(), "device");
  EXPECT_EQ(both.CreateForHost("c", 0, 2, 1).status().message(), "host");
  EXPECT_EQ(both.CreateAhead("c", 0, 2, 1).status().message(), "device ahead");
  EXPECT_EQ(NamedFactory("one").CreateForHost("c", 0, 2, 1).status().message(), "one");
}

// One stream and one pair of host buffers serve all communicators: they are the compute thread's.
TEST(CreateNcclFactory, CreateAhead_Unimplemented) {
  World world;
  MemoryRendezvous store;
  FakeCalls calls(world);
  auto factory = CreateNcclFactory({}, calls, Clock::Real(), &store);
  ASSERT_TRUE(factory.ok()) << factory.status();
  EXPECT_EQ((*factory)->CreateAhead("c", 0, 2, 1).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(CreateNcclFactory, ForeignAddress_InvalidArgument) {
  World world;
  MemoryRendezvous store;
  FakeCalls calls(world);
  EXPECT_EQ(CreateNcclFactory({.bind_address = "192.0.2.1"}, calls, Clock::Real(), &store).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace accrue::nccl
