// Files, behind an interface so that a test can fill the disk or tear a write.
//
// Thread-safe. Paths are plain strings. Every error names the path and what the system said.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace accrue {

// An open file that is appended to. Not thread-safe.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  // RESOURCE_EXHAUSTED when the disk is full, INTERNAL otherwise.
  virtual absl::Status Append(const void* data, size_t size_bytes) = 0;
  // Bytes and size are on the disk when this returns.
  virtual absl::Status Sync() = 0;
  virtual absl::Status Close() = 0;
};

// Read-only pages of a file, valid while the object lives.
class MappedFile {
 public:
  virtual ~MappedFile() = default;
  virtual const uint8_t* data() const = 0;
  virtual size_t size_bytes() const = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // Truncates what is there.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) = 0;
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) = 0;
  // NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT (not a regular file).
  virtual absl::StatusOr<std::unique_ptr<MappedFile>> Map(const std::string& path) = 0;
  // RESOURCE_EXHAUSTED when the file is larger than limit_bytes.
  virtual absl::StatusOr<std::string> ReadAll(const std::string& path, size_t limit_bytes) = 0;
  virtual absl::StatusOr<uint64_t> SizeBytes(const std::string& path) = 0;
  virtual bool Exists(const std::string& path) = 0;
  virtual bool IsDirectory(const std::string& path) = 0;
  // False where nothing is known of links.
  virtual bool IsSymbolicLink(const std::string& path) { return false; }
  // Names in a folder, without "." and "..", sorted by byte.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& directory) = 0;
  virtual absl::Status CreateDirectories(const std::string& path) = 0;
  // Atomic within one file system; replaces a file at `to`.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  // Removes a file, or a folder and all in it. OK when there is none.
  virtual absl::Status RemoveAll(const std::string& path) = 0;
  // Makes creations and renames in the folder durable.
  virtual absl::Status SyncDirectory(const std::string& directory) = 0;

  // Writes to a temporary name beside path, syncs, renames over path and syncs the folder.
  // before_rename: called once the temporary file is durable; an error of it is returned.
  absl::Status WriteAtomically(const std::string& path, absl::string_view contents,
                               const std::function<absl::Status()>& before_rename = nullptr);

  // The process-wide real file system.
  static FileSystem& Real();
};

// "a/b" and "c" make "a/b/c"; an absolute second part stands alone.
std::string JoinPath(absl::string_view directory, absl::string_view name);
// The part before the last slash: "." when there is none.
std::string DirectoryOf(absl::string_view path);
// The part after the last slash.
std::string BaseName(absl::string_view path);
// Files that match a pattern with * and ? in its last component, sorted by byte; a pattern without them stands for
// itself. NOT_FOUND when nothing matches.
absl::StatusOr<std::vector<std::string>> Glob(FileSystem& file_system, const std::string& pattern);

}  // namespace accrue
