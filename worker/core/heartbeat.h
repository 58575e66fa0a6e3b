// Signs of life, on a thread of their own, so that a worker deep in a unit or in loading is not given up.
//
// The link must outlive it.
#pragma once

#include <cstdint>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "worker/core/link.h"

namespace accrue {

class Heartbeat {
 public:
  Heartbeat(CoordinatorLink& link, int64_t interval_ms);
  ~Heartbeat();

 private:
  void Run();

  CoordinatorLink& link_;
  const int64_t interval_ms_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace accrue
