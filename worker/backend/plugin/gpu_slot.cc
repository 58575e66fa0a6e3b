#include "worker/backend/plugin/gpu_slot.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace accrue {
namespace {

constexpr int kMostSlots = 1024;

absl::Status CannotLock(const std::string& path, int error) {
  return absl::InternalError(absl::StrCat("cannot lock ", path, ": ", std::strerror(error)));
}

int OpenLock(const std::string& path) { return open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600); }

// A file's lock, waited for; whoever cannot have it goes without.
class WholeLock {
 public:
  explicit WholeLock(const std::string& path) : descriptor_(OpenLock(path)) {
    if (descriptor_ >= 0) flock(descriptor_, LOCK_EX);
  }
  ~WholeLock() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  WholeLock(const WholeLock&) = delete;
  WholeLock& operator=(const WholeLock&) = delete;

 private:
  const int descriptor_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GpuSlot>> GpuSlot::TakeLeastUsed(const std::string& folder,
                                                                const std::vector<std::string>& gpus) {
  // Processes that start together look one after the other.
  const WholeLock whole(absl::StrCat(folder, "/accrue-gpus.lock"));
  for (int number = 0; number < kMostSlots; ++number) {
    for (size_t gpu = 0; gpu < gpus.size(); ++gpu) {
      const std::string path = absl::StrCat(folder, "/accrue-gpu-", gpus[gpu], "-", number, ".lock");
      const int descriptor = OpenLock(path);
      if (descriptor >= 0 && flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
        return std::unique_ptr<GpuSlot>(new GpuSlot(static_cast<int>(gpu), number, descriptor));
      }
      const int error = errno;
      if (descriptor >= 0) close(descriptor);
      // Another process has it, or another user's.
      if (error != EWOULDBLOCK && error != EACCES) return CannotLock(path, error);
    }
  }
  return absl::InternalError(absl::StrCat("cannot lock a file for a GPU in ", folder, ": ", kMostSlots, " are taken"));
}

GpuSlot::~GpuSlot() { close(descriptor_); }

}  // namespace accrue
