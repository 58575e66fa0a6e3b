// The key-value store through which a communicator's members find each other. In memory: what is in it means nothing
// after the coordinator's end.
//
// Thread-safe. A waiter is called back exactly once, outside of the lock, on the thread that made it ready: Set, GiveUp,
// Expire or ShutDown. Bounded in communicators, keys, bytes and waiters.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace accrue {

class RendezvousStore {
 public:
  struct Limits {
    size_t communicators = 256;
    size_t keys_per_communicator = 1 << 17;
    size_t bytes_per_communicator = size_t{64} << 20;
    size_t waiters = 1 << 16;
  };
  using Answer = std::function<void(absl::StatusOr<std::vector<std::string>>)>;

  RendezvousStore() : RendezvousStore(Limits{}) {}
  explicit RendezvousStore(const Limits& limits) : limits_(limits) {}

  // CANCELLED when the communicator was given up, RESOURCE_EXHAUSTED beyond a limit, INVALID_ARGUMENT without a name.
  absl::Status Set(const std::string& communicator, const std::string& name, std::string value);

  // Answers with the values, in the order of `names`, once all are there. DEADLINE_EXCEEDED (naming what is missing)
  // when Expire is called at or after deadline_ns, CANCELLED when the communicator is given up, RESOURCE_EXHAUSTED,
  // UNAVAILABLE after ShutDown.
  void Get(const std::string& communicator, std::vector<std::string> names, int64_t deadline_ns, Answer answer);

  // Forgets its keys and cancels who waits for them; from now on its name is refused. No effect on an unknown name but
  // that.
  void GiveUp(const std::string& communicator);
  void Expire(int64_t now_ns);
  void ShutDown();

 private:
  struct Waiter {
    std::vector<std::string> names;
    int64_t deadline_ns;
    Answer answer;
  };
  struct Communicator {
    absl::flat_hash_map<std::string, std::string> values;
    size_t size_bytes = 0;
    std::vector<Waiter> waiters;
  };
  using Ready = std::vector<std::pair<Answer, absl::StatusOr<std::vector<std::string>>>>;

  absl::StatusOr<Communicator*> Find(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Run(Ready ready);

  const Limits limits_;
  std::mutex mutex_;
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;
  size_t waiters_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Communicator> communicators_ ABSL_GUARDED_BY(mutex_);
  // Names given up, oldest first; as many as there may be communicators.
  std::deque<std::string> given_up_order_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<std::string> given_up_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace accrue
