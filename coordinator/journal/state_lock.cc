#include "coordinator/journal/state_lock.h"

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

absl::StatusOr<std::unique_ptr<StateLock>> StateLock::Acquire(const std::string& directory) {
  ACCRUE_RETURN_IF_ERROR(FileSystem::Real().CreateDirectories(directory));
  const std::string path = JoinPath(directory, "lock");
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) {
    const auto code = errno == EACCES || errno == EROFS ? absl::StatusCode::kPermissionDenied
                                                        : absl::StatusCode::kInternal;
    return absl::Status(code, absl::StrCat("cannot create ", path, ": ", std::strerror(errno)));
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    char holder[32] = {};
    const ssize_t got = ::pread(fd, holder, sizeof(holder) - 1, 0);
    ::close(fd);
    const absl::string_view process = absl::StripAsciiWhitespace(absl::string_view(holder, got > 0 ? got : 0));
    return absl::FailedPreconditionError(absl::StrCat(
        "state folder ", directory, " is in use by another accrued (process ", process.empty() ? "unknown" : process,
        "); stop that one, or give this one another folder with --state"));
  }
  // For the message above only: the lock does not depend on what the file holds.
  const std::string process = absl::StrCat(::getpid(), "\n");
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, process.data(), process.size(), 0) < 0) {
    // A full disk: the next holder's message says "unknown".
  }
  return std::unique_ptr<StateLock>(new StateLock(fd));
}

StateLock::~StateLock() { ::close(fd_); }

}  // namespace accrue
