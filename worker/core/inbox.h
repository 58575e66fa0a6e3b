// What waits for the compute thread: the coordinator's messages, what became of the connection, and the operator's wish,
// in the order of their coming.
//
// Thread-safe. Bounded: a coordinator that sends more than a worker can take is cut off.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "accrue/v1/worker.pb.h"
#include "worker/core/collective_guard.h"

namespace accrue {

// A coordinator has taken this worker up.
struct Joined {
  int64_t term = 0;
  int64_t incarnation = 0;
  bool resumed = false;  // the incarnation from before goes on; else a new one begins, and what was held is void
  std::shared_ptr<CollectiveGuard> guard;  // of this incarnation
};
// The stream is over; another is being opened. What was sent from here on is not received.
struct LinkLost {
  std::string reason;
};
// The incarnation is over: nothing that it holds counts any more. A new one begins with the next Joined.
struct LifeOver {
  std::string reason;
  bool for_good = false;  // no coordinator will take this worker up
};
struct DrainRequested {
  std::string reason;
};

using InboxEvent = std::variant<v1::CoordinatorMessage, Joined, LinkLost, LifeOver, DrainRequested>;

class Inbox {
 public:
  static constexpr size_t kCapacity = 4096;

  // False, and nothing is done, when the inbox is full. What is no message of the coordinator always fits.
  bool Push(InboxEvent event) {
    absl::MutexLock lock(&mutex_);
    if (events_.size() >= kCapacity && std::holds_alternative<v1::CoordinatorMessage>(event)) return false;
    events_.push_back(std::move(event));
    return true;
  }

  // What came over streams from before, and nobody looked at, is void: it makes room for `joined`.
  void StartAnew(Joined joined) {
    absl::MutexLock lock(&mutex_);
    std::erase_if(events_, [](const InboxEvent& event) { return !std::holds_alternative<DrainRequested>(event); });
    events_.push_back(std::move(joined));
  }

  InboxEvent Pop() {
    absl::MutexLock lock(&mutex_);
    auto has_event = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !events_.empty(); };
    mutex_.Await(absl::Condition(&has_event));
    return TakeFirst();
  }

  // Whether the operator's wish is among what waits.
  bool HasDrain() {
    absl::MutexLock lock(&mutex_);
    return std::any_of(events_.begin(), events_.end(),
                       [](const InboxEvent& event) { return std::holds_alternative<DrainRequested>(event); });
  }

  std::optional<InboxEvent> TryPop() {
    absl::MutexLock lock(&mutex_);
    if (events_.empty()) return std::nullopt;
    return TakeFirst();
  }

 private:
  InboxEvent TakeFirst() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    InboxEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

  absl::Mutex mutex_;
  std::deque<InboxEvent> events_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace accrue
