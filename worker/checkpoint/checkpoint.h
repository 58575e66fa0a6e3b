// A worker's part of a native checkpoint (common/checkpoint/manifest.h): snapshot, write behind, load.
//
// Thread-safe: the functions share nothing; a snapshot is a plain value.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/checkpoint/manifest.h"
#include "common/file_system.h"
#include "common/hash.h"
#include "worker/optimizer/training_state.h"

namespace accrue {

// A host copy of the arrays that fall to one shard of a checkpoint, taken at a window's boundary; written
// behind.
struct CheckpointSnapshot {
  int shard = 0, shards = 1;
  std::vector<StateArray> arrays;
  std::vector<std::vector<float>> values;
};

// The arrays are dealt to shards by size, largest first, to the shard that has least: a pure function of the
// layout.
CheckpointSnapshot TakeSnapshot(const TrainingState& state, int shard, int shards);

// Creates the folder, writes and syncs the shard under a temporary name, reads it back, compares, renames.
// RESOURCE_EXHAUSTED for a full disk, DATA_LOSS when what is read back differs; nothing of the shard is left
// then.
absl::StatusOr<CheckpointFileInfo> WriteSnapshot(FileSystem& file_system, const std::string& directory,
                                                 const CheckpointSnapshot& snapshot);

// Fills a state of the same layout, optimizer and accumulation mode, and checks the files' hashes and the
// digest. DATA_LOSS, with what differs, when they do not fit; the state must then be started or loaded anew.
// NOT_FOUND without a manifest.
absl::Status LoadCheckpoint(FileSystem& file_system, const std::string& directory, TrainingState& state);

// The digest (docs/numerics.md, section 9) of what a checkpoint's files hold, computed from the files alone.
// DATA_LOSS when they cannot be read, or an array is missing, repeated or of another shape than the rest of
// its tensor.
absl::StatusOr<Hash128> ComputeCheckpointDigest(FileSystem& file_system, const std::string& directory);

}  // namespace accrue
