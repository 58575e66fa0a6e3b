// What `accrue data prepare` has finished in a folder, so that it goes on after an interruption:
// `.prepare.json`.
//
// The file is replaced after every shard. A shard counts as finished when it is named here and its file still
// has the size and hash. Thread-safe: the functions share nothing.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/data/data_manifest.h"
#include "common/data_tools/split_writer.h"
#include "common/file_system.h"

namespace accrue {

inline constexpr char kPrepareStateName[] = ".prepare.json";

struct PrepareState {
  std::string fingerprint;          // of inputs and options
  std::string tokenizer_hash;       // of the tokenizer's files
  bool complete = false;            // the manifest is written
  DataManifest manifest;            // of the shards that are finished: train, then validation, each in order
  std::vector<SplitPosition> ends;  // of each shard
};

absl::Status WritePrepareState(FileSystem& file_system, const std::string& directory,
                               const PrepareState& state);
// NOT_FOUND without one; INVALID_ARGUMENT for a damaged one.
absl::StatusOr<PrepareState> ReadPrepareState(FileSystem& file_system, const std::string& directory);

// Puts a shard after those of its split.
void AddShard(PrepareState* state, const DataManifestShard& shard, SplitPosition end);

// Drops shards whose files are missing or changed, and those of the same split after them. Returns how many.
size_t DropUnverified(FileSystem& file_system, const std::string& directory, PrepareState* state);

// Whether a file's name is one that prepare gives to shards and masks.
bool IsShardFileName(absl::string_view name);

}  // namespace accrue
