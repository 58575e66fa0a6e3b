// What a person means by a checkpoint: a checkpoint's folder, a run's folder, a Hugging Face folder, or a
// job's name.
//
// Thread-safe: the functions share nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/commands.h"
#include "common/checkpoint/manifest.h"
#include "common/file_system.h"
#include "common/tokenizer/tokenizer.h"
#include "worker/engine/layout.h"
#include "worker/model/config.h"
#include "worker/model/huggingface.h"

namespace accrue {

// Whether `source` means a folder rather than a job: a path with a slash, or a folder that holds a checkpoint or a run.
// A folder that merely has a job's name ("docs") does not stand in the job's way.
bool NamesFolder(FileSystem& file_system, const std::string& source);

// Where checkpoints of a run lie: the folder itself, DIR/checkpoints, or the output folder of a job that the
// coordinator knows. NOT_FOUND when `source` is none of these, or holds no checkpoint.
absl::StatusOr<std::vector<CheckpointEntry>> FindCheckpoints(CommandContext& context,
                                                             const std::string& source);

// Trained weights that can be read tensor by tensor.
struct WeightSource {
  std::string description;  // "window 500 of runs/headers/checkpoints/window-00000500"
  int64_t window = 0;
  ModelConfig model;
  ParameterLayout layout;
  std::string tokenizer_directory;  // empty: unknown
  TensorReader read;
};

// The newest checkpoint of `source`, or the one at `window`; or, where `source` is a Hugging Face folder, its
// weights. A checkpoint's files are checked against its manifest first. NOT_FOUND; DATA_LOSS for a damaged
// one.
absl::StatusOr<WeightSource> OpenWeights(CommandContext& context, const std::string& source,
                                         std::optional<int64_t> window);

}  // namespace accrue
