#include "worker/collective/reachability.h"

#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/collective/collective.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr int64_t kTimeoutMs = 20'000;

TEST(Unreachable, PortsThatAreOpenAndClosed_TheClosedOnes) {
  auto first = *Doorbell::Listen("127.0.0.1"), second = *Doorbell::Listen("localhost");
  auto gone = *Doorbell::Listen("127.0.0.1");
  const std::string closed = gone->address();
  gone.reset();
  EXPECT_THAT(Unreachable({first->address(), second->address()}, kTimeoutMs), IsEmpty());
  EXPECT_THAT(Unreachable({closed, first->address(), closed, second->address()}, kTimeoutMs), ElementsAre(0, 2));
  EXPECT_THAT(Unreachable({}, kTimeoutMs), IsEmpty());
}

TEST(Unreachable, NoAddresses_Unreachable) {
  EXPECT_THAT(Unreachable({"", std::string(8, '\0'), std::string(1000, 'x')}, kTimeoutMs), ElementsAre(0, 1, 2));
}

// Of a network for documentation, which nobody answers in: not reachable at once, or silent.
TEST(Unreachable, NobodyAnswers_AfterTheTimeOut) {
  auto bell = *Doorbell::Listen("127.0.0.1");
  std::string silent = bell->address();  // sockaddr_in: family, port, address
  silent.replace(4, 4, std::string("\xC0\x00\x02\x01", 4));
  EXPECT_THAT(Unreachable({bell->address(), silent}, 50), ElementsAre(1));
}

TEST(Doorbell, RungOften_StillReachable) {
  auto bell = *Doorbell::Listen("127.0.0.1");
  for (int round = 0; round < 3; ++round) {
    const std::vector<std::string> many(300, bell->address());
    EXPECT_THAT(Unreachable(many, kTimeoutMs), IsEmpty());
    bell->Drain();
  }
}

TEST(Doorbell, ForeignAddress_InvalidArgument) {
  EXPECT_EQ(Doorbell::Listen("192.0.2.1").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Doorbell::Listen("no such host").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(UnreachableRanks, SetOnAStatus_ReadBack) {
  absl::Status status = absl::UnavailableError("x");
  EXPECT_THAT(UnreachableRanks(status), IsEmpty());
  SetUnreachableRanks({}, status);
  EXPECT_EQ(status, absl::UnavailableError("x"));
  SetUnreachableRanks({0, 17}, status);
  EXPECT_THAT(UnreachableRanks(status), ElementsAre(0, 17));
  EXPECT_EQ(status.message(), "x");
}

}  // namespace
}  // namespace accrue
