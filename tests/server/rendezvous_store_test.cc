#include "coordinator/server/rendezvous_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Result = absl::StatusOr<std::vector<std::string>>;

// Notes the one answer.
struct Caller {
  std::optional<Result> result;
  RendezvousStore::Answer Answer() {
    return [this](Result answer) {
      EXPECT_FALSE(result.has_value()) << "answered twice";
      result = std::move(answer);
    };
  }
};

TEST(RendezvousStoreTest, Get_AllSet_AnswersAtOnceInTheOrderOfNames) {
  RendezvousStore store;
  ASSERT_TRUE(store.Set("c", "a", "1").ok());
  ASSERT_TRUE(store.Set("c", "b", std::string("\0x", 2)).ok());
  Caller caller;
  store.Get("c", {"b", "a"}, 100, caller.Answer());
  EXPECT_THAT(**caller.result, ElementsAre(std::string("\0x", 2), "1"));
}

TEST(RendezvousStoreTest, Get_OneMissing_WaitsForIt) {
  RendezvousStore store;
  ASSERT_TRUE(store.Set("c", "a", "1").ok());
  Caller caller;
  store.Get("c", {"a", "b"}, 100, caller.Answer());
  store.Expire(99);
  ASSERT_TRUE(store.Set("other", "b", "wrong one").ok());
  EXPECT_FALSE(caller.result.has_value());
  ASSERT_TRUE(store.Set("c", "b", "2").ok());
  EXPECT_THAT(**caller.result, ElementsAre("1", "2"));
  store.Expire(1000);
}

TEST(RendezvousStoreTest, Expire_AtTheDeadline_NamesWhatIsMissing) {
  RendezvousStore store;
  Caller caller;
  store.Get("c", {"b"}, 100, caller.Answer());
  store.Expire(100);
  EXPECT_TRUE(absl::IsDeadlineExceeded(caller.result->status()));
  EXPECT_THAT(caller.result->status().message(), HasSubstr("nobody set b"));
}

TEST(RendezvousStoreTest, GiveUp_CancelsThoseWhoWaitAndThoseWhoCome) {
  RendezvousStore store;
  Caller waiting, late;
  ASSERT_TRUE(store.Set("c", "a", "1").ok());
  store.Get("c", {"b"}, 100, waiting.Answer());
  store.GiveUp("c");
  EXPECT_TRUE(absl::IsCancelled(waiting.result->status()));
  store.Get("c", {"a"}, 100, late.Answer());
  EXPECT_TRUE(absl::IsCancelled(late.result->status()));
  EXPECT_TRUE(absl::IsCancelled(store.Set("c", "b", "2")));
  EXPECT_TRUE(store.Set("d", "b", "2").ok());
}

TEST(RendezvousStoreTest, Set_BeyondALimit_IsRefused) {
  RendezvousStore::Limits limits;
  limits.communicators = 1;
  limits.keys_per_communicator = 2;
  limits.bytes_per_communicator = 10;
  limits.waiters = 1;
  RendezvousStore store(limits);
  ASSERT_TRUE(store.Set("c", "a", "123").ok());
  EXPECT_TRUE(absl::IsResourceExhausted(store.Set("d", "a", "1")));
  EXPECT_TRUE(absl::IsResourceExhausted(store.Set("c", "b", "123456")));
  EXPECT_TRUE(store.Set("c", "a", "123456789").ok()) << "a value is replaced, not added";
  EXPECT_TRUE(store.Set("c", "a", "1").ok());
  EXPECT_TRUE(store.Set("c", "b", "1").ok());
  EXPECT_TRUE(absl::IsResourceExhausted(store.Set("c", "c", "1")));
  Caller first, second;
  store.Get("c", {"x"}, 100, first.Answer());
  store.Get("c", {"x"}, 100, second.Answer());
  EXPECT_FALSE(first.result.has_value());
  EXPECT_TRUE(absl::IsResourceExhausted(second.result->status()));
  store.GiveUp("c");
  EXPECT_TRUE(store.Set("d", "a", "1").ok()) << "room again";
}

TEST(RendezvousStoreTest, ShutDown_AnswersEverybody) {
  RendezvousStore store;
  Caller waiting, late;
  store.Get("c", {"b"}, 100, waiting.Answer());
  store.ShutDown();
  EXPECT_TRUE(absl::IsUnavailable(waiting.result->status()));
  store.Get("c", {"b"}, 100, late.Answer());
  EXPECT_TRUE(absl::IsUnavailable(late.result->status()));
}

}  // namespace
}  // namespace accrue
