// What ends a worker whose collective operation was aborted and goes on all the same: one that hangs in a driver or in
// the kernel cannot be stopped from inside, and its process is of no use to anybody. Whoever supervises the process
// starts it again; it comes back as a new incarnation.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace accrue {

// Thread-safe; no call blocks.
class AbortDeadline {
 public:
  virtual ~AbortDeadline() = default;
  // The operation `what` was aborted: it has until the deadline to return. No effect while one is counted.
  virtual void Start(const std::string& what) = 0;
  // It has returned.
  virtual void Stop() = 0;
};

// Counts on a thread of its own, and calls `end` there, with what hangs, when the deadline has passed.
class AbortDeadlineTimer : public AbortDeadline {
 public:
  AbortDeadlineTimer(absl::Duration deadline, std::function<void(const std::string& what)> end);
  ~AbortDeadlineTimer() override;

  void Start(const std::string& what) override;
  void Stop() override;

 private:
  void Run();

  const absl::Duration deadline_;
  const std::function<void(const std::string&)> end_;
  absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<std::string> counted_ ABSL_GUARDED_BY(mutex_);
  int64_t count_ ABSL_GUARDED_BY(mutex_) = 0;  // of Starts
  std::thread thread_;
};

}  // namespace accrue
