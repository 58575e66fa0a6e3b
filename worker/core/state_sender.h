// A member's side of a copy of its state to a newcomer, on a thread of its own (state_copy.h).
//
// The compute thread goes on. It lets its steps pass through here, and waits there for the copying of one run at most;
// the sums that a step has used are taken out of the accumulator, which gets another buffer, so that nothing is copied.
//
// Step and Skip are of the compute thread, which alone changes the state, and nowhere else while this exists.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "worker/backend/backend.h"
#include "worker/collective/collective.h"
#include "worker/core/job.h"
#include "worker/core/state_copy.h"

namespace accrue {

class StateSender {
 public:
  // Called once, by the sender's thread, if the copy breaks before its end: RESOURCE_EXHAUSTED if windows end faster than
  // their sums are sent, else as the communicator says.
  using OnBroken = std::function<void(const absl::Status&)>;

  // job must outlive the sender. idle_ms: how often the receiver hears from a source that has nothing to send.
  StateSender(std::unique_ptr<Communicator> communicator, Job& job, int64_t idle_ms, OnBroken on_broken);
  // Ends the copy, wherever it is: as soon as the communicator heeds its Abort.
  ~StateSender();

  // Both run the step, or skip, and have it followed.
  StepOutcome Step(const StepInput& input, const std::function<StepOutcome()>& step);
  StepOutcome Skip(const std::function<StepOutcome()>& skip);
  // From a window's seal to its commit, or failure, nothing is sent but signs of life, once what is on the way is sent: the
  // reduce and the members' steps have network and memory for themselves, and what is sent of a window has committed.
  // GoOn is of any thread.
  void Hold(int64_t window);
  void GoOn(int64_t window);

 private:
  // A window that ended.
  struct Followed {
    CopyHeader header;
    std::vector<int> exponents, next_exponents;
    std::unique_ptr<DeviceBuffer> sums;  // null for a skip
  };

  void Run();
  absl::Status Copy();
  absl::Status SendBegin();
  absl::Status SendNext();
  absl::Status SendFollowed(Followed& followed);
  absl::Status SendExponents(std::vector<int>& exponents);
  absl::Status Send(void* data, size_t size_bytes) { return communicator_->Broadcast(data, size_bytes, 0); }
  CopyHeader HeaderOf(CopyHeader::Kind kind) const;  // with the state's progress

  const std::unique_ptr<Communicator> communicator_;
  Job& job_;
  const int64_t idle_ms_;
  const OnBroken on_broken_;
  const std::vector<StateRun> runs_;

  // Of the sender's thread.
  size_t next_run_ = 0;
  std::vector<float> values_;
  std::vector<int64_t> sums_;

  absl::Mutex mutex_;  // held while the state changes, and while a run of it is read
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool following_ ABSL_GUARDED_BY(mutex_) = false;  // from the begin on: what ends is to be sent
  std::optional<int64_t> held_ ABSL_GUARDED_BY(mutex_);  // the window that is sealed and has not committed
  bool behind_ ABSL_GUARDED_BY(mutex_) = false;     // a window's sums had no place
  std::deque<Followed> followed_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<DeviceBuffer>> spares_ ABSL_GUARDED_BY(mutex_);  // for the accumulator

  std::thread thread_;  // last: everything is there when it starts
};

}  // namespace accrue
