// The mask sidecar of a shard: which tokens are targets, and where its examples begin. docs/data.md has the
// layout:
//
//   8 bytes "ACCRMASK" | u32 version 1 | u32 zero | u64 tokens | u64 examples
//   u64 offsets[examples + 1]   strictly ascending, from 0 to tokens
//   u8  mask[tokens]            1: a target, 0: not
//
// Immutable after Open; thread-safe. Little-endian.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/file_system.h"

namespace accrue {

class MaskSidecar {
 public:
  // Maps and checks the file. NOT_FOUND; INVALID_ARGUMENT where it contradicts itself or a shard of
  // shard_tokens.
  static absl::StatusOr<std::unique_ptr<MaskSidecar>> Open(FileSystem& file_system, const std::string& path,
                                                           int64_t shard_tokens);

  // Bytes of a sidecar. Requires offsets as the layout says and mask.size() == offsets.back().
  static std::string Encode(absl::Span<const uint64_t> offsets, absl::Span<const uint8_t> mask);

  const MappedFile& file() const { return *file_; }
  int64_t examples() const { return examples_; }
  // The first token of an example; offset(examples()) is the shard's number of tokens.
  int64_t offset(int64_t example) const;
  bool is_target(int64_t token) const { return mask_[token] != 0; }

 private:
  MaskSidecar() = default;

  std::unique_ptr<MappedFile> file_;
  int64_t examples_ = 0;
  const uint8_t* offsets_ = nullptr;  // into file_, unaligned
  const uint8_t* mask_ = nullptr;     // into file_
};

}  // namespace accrue
