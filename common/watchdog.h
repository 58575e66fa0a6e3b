// What ends a process one of whose threads stands still, in a driver, a file system or a lock: other threads give signs of
// life for it, and whoever waits for it would wait for ever. Whoever supervises the process starts it again.
//
// Thread-safe. A process that was stopped, or that got no processor, is not taken for one that stands still: the watchdog
// counts its own looks, not the clock.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace accrue {

class Watchdog {
 public:
  using End = std::function<void(const std::string& what)>;

  // end: called on a thread of the watchdog's own, with what stands still.
  explicit Watchdog(End end);
  ~Watchdog();

  // The watched thread does `what`, and is heard of again within `limit` (and a fifth more). Replaces what was expected.
  void Expect(absl::Duration limit, absl::string_view what);
  // It waits for somebody: nothing is expected.
  void Rest();

 private:
  void Run();

  const End end_;
  absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool expecting_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration limit_ ABSL_GUARDED_BY(mutex_);
  std::string what_ ABSL_GUARDED_BY(mutex_);
  int64_t heard_ ABSL_GUARDED_BY(mutex_) = 0;  // calls of the watched thread
  std::thread thread_;                         // last: it uses all of the above
};

}  // namespace accrue
