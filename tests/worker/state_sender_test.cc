#include "worker/core/state_sender.h"

#include <cstring>
#include <deque>
#include <memory>
#include <utility>

#include <gtest/gtest.h>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/check.h"
#include "tests/worker/runner_testing.h"

namespace accrue {
namespace {

// The kinds of what is sent, in order.
class Kinds {
 public:
  void Add(int64_t kind) {
    absl::MutexLock lock(&mutex_);
    kinds_.push_back(kind);
  }
  int64_t Next() {
    absl::MutexLock lock(&mutex_);
    auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !kinds_.empty(); };
    ACCRUE_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&ready), absl::Seconds(30)));
    const int64_t kind = kinds_.front();
    kinds_.pop_front();
    return kind;
  }
  int64_t NextOtherThan(int64_t kind) {
    int64_t next = Next();
    while (next == kind) next = Next();
    return next;
  }

 private:
  absl::Mutex mutex_;
  std::deque<int64_t> kinds_ ABSL_GUARDED_BY(mutex_);
};

// A receiver that takes everything at once.
class Sink : public Communicator {
 public:
  explicit Sink(Kinds& kinds) : kinds_(kinds) {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  absl::Status Meet() override { return absl::OkStatus(); }
  absl::Status AllReduce(const int64_t*, int64_t*, int64_t) override { return absl::InternalError("not of a copy"); }
  absl::Status AllReduce(const float*, float*, int64_t) override { return absl::InternalError("not of a copy"); }
  absl::Status Broadcast(void* data, size_t size_bytes, int) override {
    if (size_bytes != sizeof(CopyHeader)) return absl::OkStatus();
    CopyHeader header;
    std::memcpy(&header, data, sizeof(header));
    kinds_.Add(header.kind);
    return absl::OkStatus();
  }
  void Abort() override {}

 private:
  Kinds& kinds_;
};

TEST(StateSender, Hold_AWindowEnds_NothingIsSentOfItBeforeGoOn) {
  Kinds kinds;
  const std::unique_ptr<Job> job = worker_testing::MakeJob(true, AccumulationMode::kExact);
  StateSender sender(std::make_unique<Sink>(kinds), *job, /*idle_ms=*/1, [](const absl::Status&) {});
  EXPECT_EQ(kinds.Next(), CopyHeader::kBegin);
  EXPECT_EQ(kinds.Next(), CopyHeader::kRun);
  EXPECT_EQ(kinds.NextOtherThan(CopyHeader::kRun), CopyHeader::kNothing);  // the state is sent
  sender.Hold(7);
  sender.Skip([&] { return job->state->Skip(); });
  sender.GoOn(6);  // a former window's commit
  for (int sign = 0; sign < 5; ++sign) EXPECT_EQ(kinds.Next(), CopyHeader::kNothing);
  sender.GoOn(7);
  EXPECT_EQ(kinds.NextOtherThan(CopyHeader::kNothing), CopyHeader::kSkip);
}

}  // namespace
}  // namespace accrue
