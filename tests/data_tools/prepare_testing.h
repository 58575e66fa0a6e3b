// What tests of `data prepare` share: a corpus, its options, and a file system that stops working.
#pragma once

#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/data_tools/prepare.h"
#include "tests/data/data_testing.h"

namespace accrue::data_testing {

// The text of document i: its own words, so that it is found again.
inline std::string DocumentText(int i) {
  std::mt19937 random(static_cast<unsigned>(i));
  std::string text = absl::StrCat("document ", i, "\n");
  for (unsigned line = 0, lines = random() % 12; line < lines; ++line) {
    for (unsigned word = 0, words = 1 + random() % 8; word < words; ++word) {
      absl::StrAppend(&text, word == 0 ? "" : " ",
                      std::string(1 + random() % 3, static_cast<char>('a' + random() % 8)));
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

inline void WriteTextCorpus(const TemporaryFolder& folder, int documents) {
  for (int i = 0; i < documents; ++i)
    folder.Write(absl::StrCat("in/d", i % 3, "/f", i, ".txt"), DocumentText(i));
}

inline void WriteExamples(const TemporaryFolder& folder, int examples) {
  std::string lines;
  for (int i = 0; i < examples; ++i) {
    absl::StrAppend(&lines, "{\"prompt\": \"question ", i, "\", \"completion\": \"",
                    std::string(1 + i % 5, 'x'), "\"}\n", i % 4 == 0 ? "\n" : "");
  }
  folder.Write("in/examples.jsonl", lines);
}

inline PrepareOptions OptionsFor(const TemporaryFolder& folder, const std::string& output) {
  PrepareOptions options;
  options.inputs = {folder / "in"};
  options.output = folder / output;
  options.shard_tokens = 500;
  options.validation_fraction = 0.2;
  options.vocabulary = 330;
  options.threads = 2;
  return options;
}

// Every file of a folder, by name.
inline std::map<std::string, std::string> FilesOf(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    files[std::filesystem::relative(entry.path(), directory).string()] =
        FileSystem::Real().ReadAll(entry.path().string(), 1 << 30).value();
  }
  return files;
}

// Passes calls on until it has changed something `changes` times, then refuses to change anything: as a
// process that is killed, or a disk that is full. What it has begun to write stays, torn.
class FailingFileSystem : public FileSystem {
 public:
  FailingFileSystem(int changes, absl::Status error) : left_(changes), error_(std::move(error)) {}
  bool failed() const { return left_ < 0; }

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    if (!Spend()) return error_;
    auto file = real_.Create(path);
    if (!file.ok()) return file.status();
    return std::unique_ptr<WritableFile>(std::make_unique<File>(this, *std::move(file)));
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override {
    if (!Spend()) return error_;
    return real_.OpenForAppend(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return Spend() ? real_.Rename(from, to) : error_;
  }
  absl::Status RemoveAll(const std::string& path) override {
    return failed() ? error_ : real_.RemoveAll(path);
  }
  absl::Status CreateDirectories(const std::string& path) override {
    return failed() ? error_ : real_.CreateDirectories(path);
  }
  absl::Status SyncDirectory(const std::string&) override { return failed() ? error_ : absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<MappedFile>> Map(const std::string& path) override {
    return real_.Map(path);
  }
  absl::StatusOr<std::string> ReadAll(const std::string& path, size_t limit) override {
    return real_.ReadAll(path, limit);
  }
  absl::StatusOr<uint64_t> SizeBytes(const std::string& path) override { return real_.SizeBytes(path); }
  bool Exists(const std::string& path) override { return real_.Exists(path); }
  bool IsDirectory(const std::string& path) override { return real_.IsDirectory(path); }
  bool IsSymbolicLink(const std::string& path) override { return real_.IsSymbolicLink(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override { return real_.List(path); }

 private:
  class File : public WritableFile {
   public:
    File(FailingFileSystem* owner, std::unique_ptr<WritableFile> file)
        : owner_(owner), file_(std::move(file)) {}
    absl::Status Append(const void* data, size_t size_bytes) override {
      if (owner_->Spend()) return file_->Append(data, size_bytes);
      file_->Append(data, size_bytes / 2).IgnoreError();
      return owner_->error_;
    }
    absl::Status Sync() override {
      return owner_->failed() ? owner_->error_ : absl::OkStatus();
    }  // tests need no disk
    absl::Status Close() override { return file_->Close(); }

   private:
    FailingFileSystem* const owner_;
    const std::unique_ptr<WritableFile> file_;
  };

  bool Spend() { return left_ < 0 ? false : --left_ >= 0; }

  FileSystem& real_ = FileSystem::Real();
  int left_;  // changes that are still passed on; -1: it has failed
  const absl::Status error_;
};

}  // namespace accrue::data_testing
