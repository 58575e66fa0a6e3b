#include "common/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/file_system.h"
#include "common/status.h"

namespace accrue {
namespace {

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

// What the holder wrote: "process 4711 on host-1".
std::string HolderOf(int fd) {
  char text[512] = {};
  const ssize_t got = ::pread(fd, text, sizeof(text) - 1, 0);
  const absl::string_view holder = absl::StripAsciiWhitespace(absl::string_view(text, got > 0 ? got : 0));
  return holder.empty() ? "an unknown process" : std::string(holder);
}

}  // namespace

absl::StatusOr<std::unique_ptr<FolderLock>> FolderLock::Acquire(const std::string& directory) {
  ACCRUE_RETURN_IF_ERROR(FileSystem::Real().CreateDirectories(directory));
  const std::string path = JoinPath(directory, "lock");
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) {
    const auto code = errno == EACCES || errno == EROFS ? absl::StatusCode::kPermissionDenied
                                                        : absl::StatusCode::kInternal;
    return absl::Status(code, absl::StrCat("cannot create ", path, ": ", std::strerror(errno)));
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    const std::string holder = HolderOf(fd);
    ::close(fd);
    return absl::FailedPreconditionError(absl::StrCat(directory, " is in use by ", holder));
  }
  // For the message above only: the lock does not depend on what the file holds.
  const std::string holder = absl::StrCat("process ", ::getpid(), " on ", HostName(), "\n");
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, holder.data(), holder.size(), 0) < 0) {
    // A full disk: the message says "unknown".
  }
  return std::unique_ptr<FolderLock>(new FolderLock(fd));
}

FolderLock::~FolderLock() { ::close(fd_); }

}  // namespace accrue
