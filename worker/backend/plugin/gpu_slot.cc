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

}  // namespace

absl::StatusOr<std::unique_ptr<GpuSlot>> GpuSlot::Take(const std::string& folder, const std::string& gpu) {
  std::string last;
  for (int number = 0; number < kMostSlots; ++number) {
    const std::string path = absl::StrCat(folder, "/accrue-gpu-", gpu, "-", number, ".lock");
    const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (descriptor >= 0 && flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
      return std::unique_ptr<GpuSlot>(new GpuSlot(number, descriptor));
    }
    const int error = errno;
    if (descriptor >= 0) close(descriptor);
    // Another process has it, or another user's.
    if (error != EWOULDBLOCK && error != EACCES) {
      return absl::InternalError(absl::StrCat("cannot lock ", path, ": ", std::strerror(error)));
    }
    last = absl::StrCat(path, ": ", std::strerror(error));
  }
  return absl::InternalError(absl::StrCat("cannot lock one of ", kMostSlots, " files for a GPU, the last being ", last));
}

GpuSlot::~GpuSlot() { close(descriptor_); }

}  // namespace accrue
