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
#include "worker/optimizer/training_state.h"

namespace accrue {

// A host copy of the arrays that fall to one shard of a checkpoint, taken at a window's boundary; written behind.
struct CheckpointSnapshot {
  int shard = 0, shards = 1;
  std::vector<StateArray> arrays;
  std::vector<std::vector<float>> values;
};

// The arrays are dealt to shards by size, largest first, to the shard that has least: a pure function of the layout.
CheckpointSnapshot TakeSnapshot(const TrainingState& state, int shard, int shards);

// Writes and syncs the shard under a temporary name, reads it back, compares, renames. RESOURCE_EXHAUSTED for a full
// disk; nothing of the shard is left then.
absl::StatusOr<CheckpointFileInfo> WriteSnapshot(FileSystem& file_system, const std::string& directory,
                                                 const CheckpointSnapshot& snapshot);

// Fills a state of the same layout and checks the digest. DATA_LOSS when files, shapes or digest differ.
absl::Status LoadCheckpoint(FileSystem& file_system, const std::string& directory, TrainingState& state);

}  // namespace accrue
