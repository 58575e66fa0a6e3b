#include "common/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace accrue {
namespace {

absl::Status PosixError(absl::string_view what, const std::string& path, int error) {
  absl::StatusCode code = absl::StatusCode::kInternal;
  if (error == ENOENT) code = absl::StatusCode::kNotFound;
  if (error == EACCES || error == EPERM || error == EROFS) code = absl::StatusCode::kPermissionDenied;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) code = absl::StatusCode::kResourceExhausted;
  if (error == EISDIR || error == ENOTDIR) code = absl::StatusCode::kInvalidArgument;
  return absl::Status(code, absl::StrCat("cannot ", what, " ", path, ": ", std::strerror(error)));
}

class PosixWritableFile : public WritableFile {
 public:
  PosixWritableFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PosixWritableFile() override {
    if (fd_ >= 0) ::close(fd_);
  }

  absl::Status Append(const void* data, size_t size_bytes) override {
    const char* next = static_cast<const char*>(data);
    while (size_bytes > 0) {
      const ssize_t written = ::write(fd_, next, std::min(size_bytes, size_t{1} << 30));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return PosixError("write", path_, errno);
      next += written;
      size_bytes -= static_cast<size_t>(written);
    }
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    if (::fsync(fd_) != 0) return PosixError("sync", path_, errno);
    return absl::OkStatus();
  }

  absl::Status Close() override {
    const int fd = std::exchange(fd_, -1);
    if (fd >= 0 && ::close(fd) != 0) return PosixError("close", path_, errno);
    return absl::OkStatus();
  }

 private:
  int fd_;
  const std::string path_;
};

class PosixMappedFile : public MappedFile {
 public:
  PosixMappedFile(void* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  ~PosixMappedFile() override {
    if (data_ != nullptr) ::munmap(data_, size_bytes_);
  }
  const uint8_t* data() const override { return static_cast<const uint8_t*>(data_); }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  void* const data_;
  const size_t size_bytes_;
};

// Closes what it holds.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

class PosixFileSystem : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    return OpenForWriting(path, O_TRUNC);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override {
    return OpenForWriting(path, O_APPEND);
  }

  absl::StatusOr<std::unique_ptr<MappedFile>> Map(const std::string& path) override {
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return PosixError("open", path, errno);
    struct stat info;
    if (::fstat(file.get(), &info) != 0) return PosixError("stat", path, errno);
    if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
    const size_t size_bytes = static_cast<size_t>(info.st_size);
    if (size_bytes == 0) return std::unique_ptr<MappedFile>(std::make_unique<PosixMappedFile>(nullptr, 0));
    void* data = ::mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, file.get(), 0);
    if (data == MAP_FAILED) return PosixError("map", path, errno);
    return std::unique_ptr<MappedFile>(std::make_unique<PosixMappedFile>(data, size_bytes));
  }

  absl::StatusOr<std::string> ReadAll(const std::string& path, size_t limit_bytes) override {
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return PosixError("open", path, errno);
    std::string contents;
    char block[65536];
    while (true) {
      const ssize_t got = ::read(file.get(), block, sizeof(block));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return PosixError("read", path, errno);
      if (got == 0) return contents;
      contents.append(block, static_cast<size_t>(got));
      if (contents.size() > limit_bytes) {
        return absl::ResourceExhaustedError(absl::StrCat(path, " is larger than ", limit_bytes, " bytes"));
      }
    }
  }

  absl::StatusOr<uint64_t> SizeBytes(const std::string& path) override {
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) return PosixError("stat", path, errno);
    return static_cast<uint64_t>(info.st_size);
  }
  bool Exists(const std::string& path) override { return ::access(path.c_str(), F_OK) == 0; }
  bool IsDirectory(const std::string& path) override {
    struct stat info;
    return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
  }
  bool IsSymbolicLink(const std::string& path) override {
    struct stat info;
    return ::lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode);
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override {
    std::error_code error;
    std::vector<std::string> names;
    for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
      names.push_back(it->path().filename().string());
    }
    if (error) return PosixError("list", directory, error.value());
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::Status CreateDirectories(const std::string& path) override {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) return PosixError("create folder", path, error.value());
    return absl::OkStatus();
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return PosixError("rename", absl::StrCat(from, " to ", to), errno);
    return absl::OkStatus();
  }
  absl::Status RemoveAll(const std::string& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) return PosixError("remove", path, error.value());
    return absl::OkStatus();
  }
  absl::Status SyncDirectory(const std::string& directory) override {
    const FileDescriptor file(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (file.get() < 0) return PosixError("open", directory, errno);
    if (::fsync(file.get()) != 0) return PosixError("sync", directory, errno);
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path, int flag) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flag, 0644);
    if (fd < 0) return PosixError("create", path, errno);
    return std::unique_ptr<WritableFile>(std::make_unique<PosixWritableFile>(fd, path));
  }
};

// Shell-style match of * (any run) and ? (any one) within one path component.
bool Matches(absl::string_view pattern, absl::string_view name) {
  size_t p = 0, n = 0, star = absl::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n]) && pattern[p] != '*') {
      ++p, ++n;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (star != absl::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace

FileSystem& FileSystem::Real() {
  static PosixFileSystem* const file_system = new PosixFileSystem;
  return *file_system;
}

absl::Status FileSystem::WriteAtomically(const std::string& path, absl::string_view contents,
                                         const std::function<absl::Status()>& before_rename) {
  const std::string temporary = absl::StrCat(path, ".partial");
  const auto write = [&]() -> absl::Status {
    ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, Create(temporary));
    ACCRUE_RETURN_IF_ERROR(file->Append(contents.data(), contents.size()));
    ACCRUE_RETURN_IF_ERROR(file->Sync());
    ACCRUE_RETURN_IF_ERROR(file->Close());
    if (before_rename) ACCRUE_RETURN_IF_ERROR(before_rename());
    ACCRUE_RETURN_IF_ERROR(Rename(temporary, path));
    return SyncDirectory(DirectoryOf(path));
  };
  absl::Status status = write();
  if (!status.ok()) RemoveAll(temporary).IgnoreError();
  return status;
}

std::string JoinPath(absl::string_view directory, absl::string_view name) {
  if (directory.empty() || (!name.empty() && name.front() == '/')) return std::string(name);
  return absl::StrCat(directory, directory.back() == '/' ? "" : "/", name);
}

std::string DirectoryOf(absl::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) return ".";
  return slash == 0 ? "/" : std::string(path.substr(0, slash));
}

std::string BaseName(absl::string_view path) {
  const size_t slash = path.rfind('/');
  return std::string(slash == absl::string_view::npos ? path : path.substr(slash + 1));
}

absl::StatusOr<std::vector<std::string>> Glob(FileSystem& file_system, const std::string& pattern) {
  const std::string last = BaseName(pattern);
  if (last.find_first_of("*?") == std::string::npos) {
    if (!file_system.Exists(pattern)) return absl::NotFoundError(absl::StrCat("no file ", pattern));
    return std::vector<std::string>{pattern};
  }
  const std::string directory = DirectoryOf(pattern);
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<std::string> names, file_system.List(directory));
  std::vector<std::string> matches;
  for (const std::string& name : names) {
    if (Matches(last, name)) {
      matches.push_back(pattern.find('/') == std::string::npos ? name : JoinPath(directory, name));
    }
  }
  if (matches.empty()) return absl::NotFoundError(absl::StrCat("no file matches ", pattern));
  return matches;
}

}  // namespace accrue
