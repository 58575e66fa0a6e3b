// What waits for the compute thread: the coordinator's messages and the operator's wish, in the order of their coming.
//
// Thread-safe. Bounded: a coordinator that sends more than a worker can take is cut off.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "accrue/v1/worker.pb.h"

namespace accrue {

struct LinkLost {
  std::string reason;
};
struct DrainRequested {
  std::string reason;
};

using InboxEvent = std::variant<v1::CoordinatorMessage, LinkLost, DrainRequested>;

class Inbox {
 public:
  static constexpr size_t kCapacity = 4096;

  // False, and nothing is done, when the inbox is full. LinkLost and DrainRequested always fit.
  bool Push(InboxEvent event) {
    absl::MutexLock lock(&mutex_);
    if (events_.size() >= kCapacity && std::holds_alternative<v1::CoordinatorMessage>(event)) return false;
    events_.push_back(std::move(event));
    return true;
  }

  // All but a wish to drain: for the end of a link.
  void DiscardMessages() {
    absl::MutexLock lock(&mutex_);
    std::erase_if(events_, [](const InboxEvent& event) { return !std::holds_alternative<DrainRequested>(event); });
  }

  InboxEvent Pop() { return *PopFor(absl::InfiniteDuration()); }

  std::optional<InboxEvent> TryPop() { return PopFor(absl::ZeroDuration()); }

  // Nothing when the time is up.
  std::optional<InboxEvent> PopFor(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    auto has_event = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !events_.empty(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&has_event), timeout)) return std::nullopt;
    InboxEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  absl::Mutex mutex_;
  std::deque<InboxEvent> events_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace accrue
