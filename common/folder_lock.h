// Keeps a second process out of a folder: DIR/lock, held through the kernel, so that it goes with the process however
// that ends, and nothing stale is ever left. The file says who holds it, for people.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace accrue {

class FolderLock {
 public:
  // Creates the folder if need be. FAILED_PRECONDITION, with the holder's process and host, when somebody has it;
  // PERMISSION_DENIED or INTERNAL when the folder cannot be used. Where the file system knows no locks, the folder is
  // used without one.
  static absl::StatusOr<std::unique_ptr<FolderLock>> Acquire(const std::string& directory);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace accrue
