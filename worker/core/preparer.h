// Forms the communicator of a membership to come, on a thread of its own beside the work, so that the first
// reduce with a newcomer need not wait for its members to meet. One at a time: an order takes the place of
// the one before.
//
// Thread-safe. The collectives must outlive it; `answer` is called on its thread, until Stop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "accrue/v1/worker.pb.h"
#include "worker/collective/collective.h"
#include "worker/core/abort_deadline.h"

namespace accrue {

class Preparer {
 public:
  using Answer = std::function<void(v1::WorkerMessage)>;

  // deadline_ms as CollectiveFactory::Create's. abort_deadline: for a meeting that was aborted to return;
  // null: it is waited for.
  Preparer(CollectiveFactory& collectives, int64_t deadline_ms, AbortDeadline* abort_deadline, Answer answer)
      : collectives_(collectives),
        deadline_ms_(deadline_ms),
        abort_deadline_(abort_deadline),
        answer_(std::move(answer)) {}
  ~Preparer() { Stop(); }

  // Begins to form it and returns; Prepared follows, with an error if it is not formed, unless another order
  // or GiveUp came first.
  void Prepare(const v1::Prepare& order);
  // The communicator of this name, rank and size, formed; null if it is not here. Another one stays: a later
  // seal may name it.
  std::unique_ptr<Communicator> Take(const std::string& name, int rank, int size);
  void GiveUp();
  // Gives up and ends the thread; orders are not heard any more.
  void Stop();

 private:
  void Run();
  absl::StatusOr<std::unique_ptr<Communicator>> Form(const v1::Prepare& order);
  // Of what is ordered, if there is anything; what is to be destroyed is given to the caller, to be so
  // without the lock.
  std::unique_ptr<Communicator> GiveUpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  CollectiveFactory& collectives_;
  const int64_t deadline_ms_;
  AbortDeadline* const abort_deadline_;
  const Answer answer_;

  absl::Mutex mutex_;
  std::optional<v1::Prepare> order_ ABSL_GUARDED_BY(mutex_);  // not taken up yet
  std::string name_ ABSL_GUARDED_BY(mutex_);                  // being formed, or formed; empty: neither
  Communicator* meeting_ ABSL_GUARDED_BY(mutex_) = nullptr;   // being formed, by the thread that owns it
  std::unique_ptr<Communicator> formed_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_ ABSL_GUARDED_BY(mutex_);  // from the first order on
};

}  // namespace accrue
