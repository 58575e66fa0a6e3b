// Streams of a worker, as a test that plays the coordinator sees them; and jobs of the small engine.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/check.h"
#include "tests/worker/runner_testing.h"
#include "worker/core/job.h"
#include "worker/core/link.h"

namespace accrue::worker_testing {

struct Stream {
  LinkReceiver* receiver = nullptr;
  v1::Hello hello;
  FakeLink link;        // all but heartbeats
  FakeLink heartbeats;

  // Only while the worker has not given the stream up.
  void Tell(const v1::CoordinatorMessage& message) const { receiver->OnMessage(message); }
  void Break() const { receiver->OnLost(absl::UnavailableError("the stream broke")); }
};

// Hands each new stream to the test.
class FakeLinks : public LinkFactory {
 public:
  std::unique_ptr<CoordinatorLink> Connect(LinkReceiver* receiver) override {
    auto stream = std::make_shared<Stream>();
    stream->receiver = receiver;
    absl::MutexLock lock(&mutex_);
    streams_.push_back(stream);
    return std::make_unique<Forwarder>(stream);
  }
  // The next stream, once the worker has opened it and said Hello.
  std::shared_ptr<Stream> Next() {
    std::shared_ptr<Stream> stream;
    {
      absl::MutexLock lock(&mutex_);
      auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !streams_.empty(); };
      ACCRUE_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&ready), absl::Seconds(30)));
      stream = streams_.front();
      streams_.pop_front();
    }
    const v1::WorkerMessage first = stream->link.Take();
    EXPECT_TRUE(first.has_hello());
    stream->hello = first.hello();
    return stream;
  }

 private:
  // The worker owns and destroys its link; the test goes on looking at the stream.
  class Forwarder : public CoordinatorLink {
   public:
    explicit Forwarder(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {}
    void Send(v1::WorkerMessage message) override {
      (message.has_heartbeat() ? stream_->heartbeats : stream_->link).Send(std::move(message));
    }
    void Close() override { stream_->link.Close(); }

   private:
    std::shared_ptr<Stream> stream_;
  };

  absl::Mutex mutex_;
  std::deque<std::shared_ptr<Stream>> streams_ ABSL_GUARDED_BY(mutex_);
};

class FakeJobs : public JobFactory {
 public:
  absl::StatusOr<std::unique_ptr<Job>> Load(const v1::AssignJob& assignment) override {
    if (!status.ok()) return status;
    std::unique_ptr<Job> job = MakeJob(/*holds_state=*/true);
    if (on_load) on_load(static_cast<QuadraticEngine&>(*job->engine));
    return job;
  }
  absl::Status status;
  std::function<void(QuadraticEngine& engine)> on_load;
};

}  // namespace accrue::worker_testing
