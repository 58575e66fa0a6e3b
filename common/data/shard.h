// One token shard, memory-mapped: llm.c `.bin` (both variants), or Megatron `.bin` with its `.idx` beside it.
//
// Immutable after Open; thread-safe. The formats are hostile input: every length is checked against the
// file's size before anything is read. docs/data.md has the layouts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/data/dataset.h"
#include "common/file_system.h"

namespace accrue {

inline constexpr size_t kLlmcHeaderBytes = 1024;  // 256 int32: magic, version, count, zeros
inline constexpr int32_t kLlmcMagic16 = 20240520;
inline constexpr int32_t kLlmcVersion16 = 1;
inline constexpr int32_t kLlmcMagic32 = 20240801;
inline constexpr int32_t kLlmcVersion32 = 7;
// What the int32 count of an llm.c header can say.
inline constexpr int64_t kLlmcMaxTokens = INT32_MAX;

// The header that goes before `tokens` ids of 2 or 4 bytes. Requires 0 <= tokens <= kLlmcMaxTokens.
std::string LlmcHeader(int64_t tokens, int token_bytes);

class Shard {
 public:
  // Codes and messages of InspectShard.
  static absl::StatusOr<std::unique_ptr<Shard>> Open(FileSystem& file_system, const std::string& path);

  const ShardInfo& info() const { return info_; }
  int64_t tokens() const { return info_.tokens; }
  int token_bytes() const { return token_bytes_; }
  // The whole file, for hashing.
  const MappedFile& file() const { return *file_; }

  // Copies tokens [first, first + count). Requires 0 <= first, 0 <= count, first + count <= tokens().
  void Copy(int64_t first, int64_t count, int32_t* out) const;

  // INVALID_ARGUMENT names the first token that is at or above vocabulary, or that does not fit a
  // non-negative int32 (vocabulary 0: only that). Reads nothing where the type cannot hold such a token.
  absl::Status CheckTokens(int64_t vocabulary) const;

 private:
  Shard() = default;
  absl::Status ParseLlmc();
  absl::Status ParseMegatron(FileSystem& file_system);

  ShardInfo info_;
  std::unique_ptr<MappedFile> file_;
  int token_bytes_ = 2;
  const uint8_t* first_token_ = nullptr;  // into file_
};

}  // namespace accrue
