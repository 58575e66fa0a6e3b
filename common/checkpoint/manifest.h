// Native checkpoints: folders of safetensors shards and a manifest that is written last.
//
//   window-00000500/
//     state-00001-of-00002.safetensors   arrays "NAME|p", "NAME|m", "NAME|v", each in exactly one shard
//     manifest.json                      window, steps, exponents, digest, spec hash, and every file's size
//     and hash
//
// A folder without a manifest is not a checkpoint. The coordinator writes the manifest once every worker has
// reported its shard, written and verified. The manifest holds a hash of itself. Thread-safe: the functions
// share nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file_system.h"
#include "common/loss_scale.h"

namespace accrue {

struct CheckpointFileInfo {
  std::string name;  // within the folder
  uint64_t size_bytes = 0;
  std::string xxh3_128;
};

struct CheckpointManifest {
  int format_version = 1;
  std::string job_name;
  std::string spec_hash;  // XXH3-128 of the resolved spec's canonical JSON
  std::string spec_json;
  int64_t timeline = 0;
  int64_t window = 0;  // windows applied
  int64_t steps = 0;
  std::string optimizer;  // adamw | sgd
  std::string digest;
  std::vector<int> exponents;  // per tensor, of the next window; empty in fast mode
  std::optional<LossScale> loss_scale;  // of the next window, in fp16
  std::vector<std::string> tensors;
  std::vector<CheckpointFileInfo> files;
  std::string loss_json;  // the window's record, for people
  std::string numeric_class;  // that the state was computed in; empty: not known
  std::string mixed;          // why not in that one alone; empty: it was
};

// Atomically and durably. INVALID_ARGUMENT for a manifest that contradicts itself; the file system's errors.
absl::Status WriteManifest(FileSystem& file_system, const std::string& directory,
                           const CheckpointManifest& manifest);
// NOT_FOUND without a manifest; DATA_LOSS for one that cannot be read, is damaged or contradicts itself.
absl::StatusOr<CheckpointManifest> ReadManifest(FileSystem& file_system, const std::string& directory);
// Every file has its size and hash. DATA_LOSS names the first that has not.
absl::Status VerifyFiles(FileSystem& file_system, const std::string& directory,
                         const CheckpointManifest& manifest);

struct CheckpointEntry {
  int64_t window = 0;
  std::string directory;
};
// Folders under `root` that hold a manifest, oldest first; none when there is no `root`. Manifests are not
// opened.
absl::StatusOr<std::vector<CheckpointEntry>> ListCheckpoints(FileSystem& file_system,
                                                             const std::string& root);
// root/window-00000500
std::string CheckpointDirectory(const std::string& root, int64_t window);
// state-00001-of-00002.safetensors for shard 0 of 2
std::string ShardFileName(int shard, int shards);
inline constexpr char kManifestName[] = "manifest.json";
// A manifest that could not be used: without its name the folder is no checkpoint.
inline constexpr char kDamagedManifestName[] = "manifest.json.damaged";

}  // namespace accrue
