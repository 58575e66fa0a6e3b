// Keeps a second coordinator out of a state folder. The lock is the kernel's: it goes with the process, however that
// ends.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace accrue {

class StateLock {
 public:
  // Creates the folder if need be. FAILED_PRECONDITION, with the holder's process id, when another process has it;
  // PERMISSION_DENIED or INTERNAL when the folder cannot be used.
  static absl::StatusOr<std::unique_ptr<StateLock>> Acquire(const std::string& directory);
  ~StateLock();
  StateLock(const StateLock&) = delete;
  StateLock& operator=(const StateLock&) = delete;

 private:
  explicit StateLock(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace accrue
