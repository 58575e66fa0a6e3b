// What tests of the data code share: a folder that goes away, and writers of shards, good and bad.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/data/shard.h"
#include "common/file_system.h"

namespace accrue::data_testing {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "accrue-data-XXXXXX").string();
    ACCRUE_CHECK(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  // Writes a file, folders included, and returns its path.
  std::string Write(const std::string& name, const std::string& contents) const {
    const std::string path = *this / name;
    ACCRUE_CHECK(FileSystem::Real().CreateDirectories(DirectoryOf(path)).ok());
    std::ofstream(path, std::ios::binary) << contents;  // no sync: tests write many files
    return path;
  }
  std::string Read(const std::string& name) const {
    auto contents = FileSystem::Real().ReadAll(*this / name, size_t{1} << 30);
    ACCRUE_CHECK(contents.ok());
    return *contents;
  }

 private:
  std::string path_;
};

template <typename T>
void Append(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
void Patch(std::string* bytes, size_t offset, T value) {
  ACCRUE_CHECK(offset + sizeof(value) <= bytes->size());
  std::memcpy(bytes->data() + offset, &value, sizeof(value));
}

inline std::string LlmcBytes(const std::vector<uint32_t>& tokens, int token_bytes = 2) {
  std::string bytes = LlmcHeader(static_cast<int64_t>(tokens.size()), token_bytes);
  for (const uint32_t token : tokens) {
    if (token_bytes == 2) {
      Append(&bytes, static_cast<uint16_t>(token));
    } else {
      Append(&bytes, token);
    }
  }
  return bytes;
}

// The .idx of sequences of the given lengths; type 4 is int32, 8 uint16.
inline std::string MegatronIndexBytes(const std::vector<int32_t>& lengths, uint8_t type) {
  std::string bytes("MMIDIDX\0\0", 9);
  Append<uint64_t>(&bytes, 1);
  Append<uint8_t>(&bytes, type);
  Append<uint64_t>(&bytes, lengths.size());
  Append<uint64_t>(&bytes, 2);
  int64_t offset = 0;
  for (const int32_t length : lengths) Append(&bytes, length);
  for (const int32_t length : lengths) {
    Append(&bytes, offset);
    offset += int64_t{length} * (type == 4 ? 4 : 2);
  }
  Append<int64_t>(&bytes, 0);
  Append<int64_t>(&bytes, static_cast<int64_t>(lengths.size()));
  return bytes;
}

}  // namespace accrue::data_testing
