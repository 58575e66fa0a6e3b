#include "worker/collective/gloo_collective.h"

#include <atomic>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "common/check.h"
#include "worker/collective/testing/memory_rendezvous.h"

namespace accrue {
namespace {

constexpr int64_t kDeadlineMs = 20'000;

// Runs body(communicator) as every rank of a communicator, a thread each.
template <typename Body>
void AsRanks(int size, Body body) {
  MemoryRendezvous store;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      auto factory = CreateGlooFactory({}, &store);
      ASSERT_TRUE(factory.ok()) << factory.status();
      auto communicator = (*factory)->Form("c", rank, size, kDeadlineMs);
      ASSERT_TRUE(communicator.ok()) << communicator.status();
      body(std::move(*communicator));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

class AllReduce : public testing::TestWithParam<std::tuple<int, int64_t>> {};

TEST_P(AllReduce, Int64_AllRanks_SumsAndLeavesInput) {
  const auto [size, elements] = GetParam();
  AsRanks(size, [&, size = size, elements = elements](std::unique_ptr<Communicator> communicator) {
    std::vector<int64_t> in(elements), out(elements, -1), expected(elements);
    for (int64_t i = 0; i < elements; ++i) {
      in[i] = (i * 7919 + 13) * (communicator->rank() + 1);
      expected[i] = (i * 7919 + 13) * (size * (size + 1) / 2);
    }
    const std::vector<int64_t> before = in;
    for (int repeat = 0; repeat < 2; ++repeat) {
      ASSERT_TRUE(communicator->AllReduce(in.data(), out.data(), elements).ok());
      EXPECT_TRUE(out == expected);
      EXPECT_TRUE(in == before);
    }
  });
}

TEST_P(AllReduce, Float_AllRanks_SumsAndLeavesInput) {
  const auto [size, elements] = GetParam();
  AsRanks(size, [&, size = size, elements = elements](std::unique_ptr<Communicator> communicator) {
    std::vector<float> in(elements), out(elements, -1), expected(elements);
    for (int64_t i = 0; i < elements; ++i) {
      in[i] = static_cast<float>((i % 1000) * (communicator->rank() + 1));
      expected[i] = static_cast<float>((i % 1000) * (size * (size + 1) / 2));
    }
    const std::vector<float> before = in;
    ASSERT_TRUE(communicator->AllReduce(in.data(), out.data(), elements).ok());
    EXPECT_TRUE(out == expected);
    EXPECT_TRUE(in == before);
  });
}

// The largest count has segments of more than 8 MiB with two members.
INSTANTIATE_TEST_SUITE_P(RanksAndElements, AllReduce,
                         testing::Combine(testing::Values(1, 2, 3, 4, 5),
                                          testing::Values<int64_t>(0, 1, 3, 1001, 2'400'001)));

TEST(GlooCollective, AllReduce_Overflow_Wraps) {
  AsRanks(3, [](std::unique_ptr<Communicator> communicator) {
    const int64_t in = std::numeric_limits<int64_t>::max();
    int64_t out = 0;
    ASSERT_TRUE(communicator->AllReduce(&in, &out, 1).ok());
    EXPECT_EQ(out, std::numeric_limits<int64_t>::max() - 2);
  });
}

TEST(GlooCollective, Broadcast_EachRoot_ReachesAll) {
  for (int size : {1, 2, 3, 5}) {
    AsRanks(size, [size](std::unique_ptr<Communicator> communicator) {
      for (int root = 0; root < size; ++root) {
        std::string data(100'003, communicator->rank() == root ? 'a' + root : '-');
        ASSERT_TRUE(communicator->Broadcast(data.data(), data.size(), root).ok());
        EXPECT_TRUE(data == std::string(100'003, 'a' + root));
      }
      EXPECT_TRUE(communicator->Broadcast(nullptr, 0, 0).ok());
    });
  }
}

TEST(GlooCollective, Abort_FromAnotherThread_ReturnsAborted) {
  for (int size : {2, 3}) {
    absl::Notification finished;
    AsRanks(size, [&](std::unique_ptr<Communicator> communicator) {
      if (communicator->rank() != 0) {
        finished.WaitForNotification();  // never joins the operation
        return;
      }
      std::thread aborter([&] { communicator->Abort(); });
      std::vector<int64_t> in(1000), out(1000);
      EXPECT_EQ(communicator->AllReduce(in.data(), out.data(), 1000).code(), absl::StatusCode::kAborted);
      aborter.join();
      EXPECT_EQ(communicator->AllReduce(in.data(), out.data(), 1000).code(), absl::StatusCode::kAborted);
      EXPECT_EQ(communicator->Broadcast(in.data(), 8, 0).code(), absl::StatusCode::kAborted);
      finished.Notify();
    });
  }
}

// Gloo wakes nobody who waits for a message of which a part had come when its connection broke.
TEST(GlooCollective, Abort_PeerLeftInTheMiddleOfAMessage_Returns) {
  constexpr int64_t kElements = 6'000'000, kUntouched = -1;
  for (int trial = 0; trial < 8; ++trial) {
    MemoryRendezvous store;
    absl::Notification gone;
    std::vector<std::thread> threads;
    std::vector<int64_t> in(kElements), out(kElements, kUntouched), other_out(kElements);
    for (int rank = 0; rank < 2; ++rank) {
      threads.emplace_back([&, rank] {
        auto factory = *CreateGlooFactory({}, &store);
        auto communicator = *factory->Form("c", rank, 2, /*deadline_ms=*/3'600'000);
        std::thread aborter([&] {
          if (rank == 0) {
            gone.WaitForNotification();
          } else {  // once messages flow
            auto is_untouched = [](int64_t& element) { return std::atomic_ref(element) == kUntouched; };
            while (is_untouched(out.front()) && is_untouched(out[kElements / 2])) std::this_thread::yield();
          }
          communicator->Abort();
        });
        const absl::Status status = communicator->AllReduce(in.data(), (rank == 0 ? out : other_out).data(), kElements);
        // Rank 0 may have seen the broken connection between two messages.
        EXPECT_THAT(status.code(), testing::AnyOf(absl::StatusCode::kAborted, absl::StatusCode::kUnavailable));
        if (rank == 1) gone.Notify();
        aborter.join();
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

TEST(GlooCollective, Abort_SizeOne_ReturnsAborted) {
  AsRanks(1, [](std::unique_ptr<Communicator> communicator) {
    communicator->Abort();
    int64_t in = 1, out = 0;
    EXPECT_EQ(communicator->AllReduce(&in, &out, 1).code(), absl::StatusCode::kAborted);
  });
}

TEST(GlooCollective, AllReduce_RankGoesAway_UnavailableForAllOthers) {
  for (int size : {2, 3, 5}) {
    AsRanks(size, [&](std::unique_ptr<Communicator> communicator) {
      std::vector<int64_t> in(3'000'000), out(3'000'000);
      ASSERT_TRUE(communicator->AllReduce(in.data(), out.data(), 100).ok());
      if (communicator->rank() == 1) return;  // destroyed here: its connections close
      EXPECT_EQ(communicator->AllReduce(in.data(), out.data(), 3'000'000).code(), absl::StatusCode::kUnavailable);
      EXPECT_EQ(communicator->AllReduce(in.data(), out.data(), 1).code(), absl::StatusCode::kUnavailable);
    });
  }
}

TEST(GlooCollective, AllReduce_SilentRank_DeadlineExceeded) {
  MemoryRendezvous store;
  absl::Notification finished;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      auto factory = CreateGlooFactory({}, &store);
      auto communicator = (*factory)->Form("c", rank, 2, 300);
      ASSERT_TRUE(communicator.ok()) << communicator.status();
      if (rank == 1) {
        finished.WaitForNotification();
        return;
      }
      int64_t in = 1, out = 0;
      const absl::Status status = (*communicator)->AllReduce(&in, &out, 1);
      EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
      EXPECT_THAT(UnreachableRanks(status), testing::IsEmpty());  // the network to it is whole
      finished.Notify();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(GlooCollective, Form_MemberMissing_DeadlineNamesIt) {
  MemoryRendezvous store;
  std::vector<std::thread> threads;
  for (int rank : {1, 2}) {
    threads.emplace_back([&, rank] {
      auto factory = CreateGlooFactory({}, &store);
      auto communicator = (*factory)->Form("epoch-7", rank, 4, 200);
      EXPECT_EQ(communicator.status().code(), absl::StatusCode::kDeadlineExceeded);
      EXPECT_NE(std::string(communicator.status().message()).find("rank 0, 3 of 4"), std::string::npos)
          << communicator.status();
      EXPECT_THAT(UnreachableRanks(communicator.status()), testing::ElementsAre(0, 3));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(GlooCollective, Form_GivenUp_Cancelled) {
  MemoryRendezvous store;
  auto factory = CreateGlooFactory({}, &store);
  std::thread giver([&] { store.GiveUp("c"); });
  EXPECT_EQ((*factory)->Form("c", 0, 2, kDeadlineMs).status().code(), absl::StatusCode::kCancelled);
  giver.join();
}

// Every survivor names the one that is gone, though it loses its connections to the other survivors too.
TEST(GlooCollective, AllReduce_ProcessIsGone_SurvivorsNameItAlone) {
  MemoryRendezvous store;
  std::atomic<int> left = 3;
  absl::Notification all_told;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 4; ++rank) {
    threads.emplace_back([&, rank] {
      auto factory = *CreateGlooFactory({}, &store);
      auto communicator = factory->Form("c", rank, 4, kDeadlineMs);
      ASSERT_TRUE(communicator.ok()) << communicator.status();
      if (rank == 2) {
        factory.reset();  // what its host answers with ends before its connections do
        return;
      }
      std::vector<int64_t> in(3'000'000), out(3'000'000);
      const absl::Status status = (*communicator)->AllReduce(in.data(), out.data(), 3'000'000);
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      EXPECT_THAT(UnreachableRanks(status), testing::ElementsAre(2)) << status;
      if (--left == 0) all_told.Notify();
      all_told.WaitForNotification();  // a survivor that ended here would be gone as well
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Stands for a member that has published its addresses and does not go on; `fetched` when another one knows them.
class DyingStore : public RendezvousStore {
 public:
  explicit DyingStore(RendezvousStore& store) : store_(store) {}
  absl::Status Set(const std::string& communicator, const std::string& name, const std::string& value) override {
    return store_.Set(communicator, name, value);
  }
  absl::StatusOr<std::vector<std::string>> Get(const std::string&, const std::vector<std::string>&, int64_t) override {
    return absl::UnavailableError("dead");
  }

 private:
  RendezvousStore& store_;
};

class NotifyingStore : public RendezvousStore {
 public:
  explicit NotifyingStore(RendezvousStore& store) : store_(store) {}
  absl::Notification asked, fetched;
  absl::Status Set(const std::string& communicator, const std::string& name, const std::string& value) override {
    return store_.Set(communicator, name, value);
  }
  absl::StatusOr<std::vector<std::string>> Get(const std::string& communicator, const std::vector<std::string>& names,
                                               int64_t timeout_ms) override {
    if (!asked.HasBeenNotified()) asked.Notify();
    auto values = store_.Get(communicator, names, timeout_ms);
    if (values.ok()) fetched.Notify();
    return values;
  }

 private:
  RendezvousStore& store_;
};

TEST(GlooCollective, Abort_WhileItWaitsForMembers_ReturnsAborted) {
  MemoryRendezvous memory;
  NotifyingStore store(memory);
  auto factory = *CreateGlooFactory({}, &store);
  auto communicator = *factory->Create("c", 0, 2, /*deadline_ms=*/3'600'000);
  std::thread aborter([&] {
    store.asked.WaitForNotification();
    communicator->Abort();
  });
  EXPECT_EQ(communicator->Meet().code(), absl::StatusCode::kAborted);
  aborter.join();
}

// Whichever of the two is to open the connection: that follows from their ports, so it is tried often.
TEST(GlooCollective, Abort_WhileItConnects_ReturnsAborted) {
  for (int trial = 0; trial < 8; ++trial) {
    MemoryRendezvous memory;
    DyingStore dying(memory);
    NotifyingStore store(memory);
    auto factory = *CreateGlooFactory({}, &store), other_factory = *CreateGlooFactory({}, &dying);
    auto other = *other_factory->Create("c", 1, 2, kDeadlineMs);
    EXPECT_EQ(other->Meet().code(), absl::StatusCode::kUnavailable);
    auto communicator = *factory->Create("c", 0, 2, /*deadline_ms=*/3'600'000);
    std::thread aborter([&] {
      store.fetched.WaitForNotification();
      communicator->Abort();
    });
    EXPECT_EQ(communicator->Meet().code(), absl::StatusCode::kAborted);
    aborter.join();
  }
}

TEST(GlooCollective, Abort_BeforeMeet_ReturnsAborted) {
  MemoryRendezvous store;
  auto factory = *CreateGlooFactory({}, &store);
  for (int size : {1, 2}) {
    auto communicator = *factory->Create("c", 0, size, kDeadlineMs);
    communicator->Abort();
    EXPECT_EQ(communicator->Meet().code(), absl::StatusCode::kAborted);
  }
}

TEST(GlooCollective, Form_NewName_WorksAfterFailure) {
  MemoryRendezvous store;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      auto factory = CreateGlooFactory({}, &store);
      auto first = (*factory)->Form("epoch-1", rank, 3, kDeadlineMs);
      ASSERT_TRUE(first.ok()) << first.status();
      if (rank == 2) return;
      int64_t in = 1, out = 0;
      EXPECT_FALSE((*first)->AllReduce(&in, &out, 1).ok());
      auto second = (*factory)->Form("epoch-2", rank, 2, kDeadlineMs);
      ASSERT_TRUE(second.ok()) << second.status();
      ASSERT_TRUE((*second)->AllReduce(&in, &out, 1).ok());
      EXPECT_EQ(out, 2);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(CreateGlooFactory, ForeignAddress_InvalidArgument) {
  MemoryRendezvous store;
  auto factory = CreateGlooFactory({.bind_address = "192.0.2.1"}, &store);
  EXPECT_EQ(factory.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace accrue
