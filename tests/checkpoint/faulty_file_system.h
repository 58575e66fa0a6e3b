// A file system that fails on purpose, over a real one.
//
// `operations_left` counts the writing operations (creations, appends, syncs, closes, renames, folders) that
// still succeed; after them everything that writes fails with RESOURCE_EXHAUSTED, an append after half of its
// bytes. Removing always works, as on a full disk. `flip_in`: appends to files whose path holds this text
// store one bit flipped, and say nothing. Thread-safe only in as far as one thread writes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/file_system.h"

namespace accrue {

class FaultyFileSystem : public FileSystem {
 public:
  explicit FaultyFileSystem(FileSystem& base) : base_(base) {}

  int64_t operations_left = INT64_MAX;
  std::string flip_in;

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    if (!Take()) return Full(path);
    return Wrap(path, base_.Create(path));
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override {
    if (!Take()) return Full(path);
    return Wrap(path, base_.OpenForAppend(path));
  }
  absl::StatusOr<std::unique_ptr<MappedFile>> Map(const std::string& path) override {
    return base_.Map(path);
  }
  absl::StatusOr<std::string> ReadAll(const std::string& path, size_t limit_bytes) override {
    return base_.ReadAll(path, limit_bytes);
  }
  absl::StatusOr<uint64_t> SizeBytes(const std::string& path) override { return base_.SizeBytes(path); }
  bool Exists(const std::string& path) override { return base_.Exists(path); }
  bool IsDirectory(const std::string& path) override { return base_.IsDirectory(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override {
    return base_.List(directory);
  }
  absl::Status CreateDirectories(const std::string& path) override {
    return Take() ? base_.CreateDirectories(path) : Full(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return Take() ? base_.Rename(from, to) : Full(to);
  }
  absl::Status RemoveAll(const std::string& path) override { return base_.RemoveAll(path); }
  absl::Status SyncDirectory(const std::string& directory) override {
    return Take() ? base_.SyncDirectory(directory) : Full(directory);
  }

 private:
  class File : public WritableFile {
   public:
    File(FaultyFileSystem& owner, std::string path, std::unique_ptr<WritableFile> file)
        : owner_(owner), path_(std::move(path)), file_(std::move(file)) {}

    absl::Status Append(const void* data, size_t size_bytes) override {
      if (!owner_.Take()) {
        file_->Append(data, size_bytes / 2).IgnoreError();
        return Full(path_);
      }
      std::string bytes(static_cast<const char*>(data), size_bytes);
      if (!owner_.flip_in.empty() && path_.find(owner_.flip_in) != std::string::npos && !bytes.empty()) {
        bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
      }
      return file_->Append(bytes.data(), bytes.size());
    }
    absl::Status Sync() override { return owner_.Take() ? file_->Sync() : Full(path_); }
    absl::Status Close() override {
      const absl::Status status = file_->Close();
      return owner_.Take() ? status : Full(path_);
    }

   private:
    FaultyFileSystem& owner_;
    const std::string path_;
    const std::unique_ptr<WritableFile> file_;
  };

  bool Take() { return operations_left-- > 0; }
  static absl::Status Full(const std::string& path) {
    return absl::ResourceExhaustedError("cannot write " + path + ": No space left on device");
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> Wrap(const std::string& path,
                                                     absl::StatusOr<std::unique_ptr<WritableFile>> file) {
    if (!file.ok()) return file;
    return std::make_unique<File>(*this, path, *std::move(file));
  }

  FileSystem& base_;
};

}  // namespace accrue
