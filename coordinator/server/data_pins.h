// A job's data at submit: which files its patterns mean, and what they hold right now.
//
// Thread-safe: the functions share nothing but the journal's cache of hashes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "accrue/v1/job.pb.h"
#include "accrue/v1/worker.pb.h"
#include "common/data/dataset.h"
#include "common/file_system.h"
#include "coordinator/journal/journal.h"

namespace accrue {

// Where a job's paths may lead.
struct PathRules {
  std::string base_directory;           // what relative paths are relative to; any path is allowed when it is set
  std::vector<std::string> data_roots;  // else: paths are under one of these
};

// The path, or the pattern, made absolute. INVALID_ARGUMENT when nothing says what a relative path is relative to,
// PERMISSION_DENIED outside of the data roots (symbolic links are followed first).
absl::StatusOr<std::string> ResolvePath(FileSystem& file_system, const PathRules& rules, const std::string& path);

struct PinnedData {
  std::vector<v1::ShardPin> train, validation;
  std::unique_ptr<Dataset> train_data;
  int64_t validation_sequences = 0;
  std::string tokenizer_directory;  // of the manifest beside the first shard, or empty
  std::vector<std::string> warnings;
};

// Requires a spec with defaults. Codes of ResolvePath; NOT_FOUND for a pattern without a file; INVALID_ARGUMENT for a
// file that is no shard, a token beyond the vocabulary, or less data than one window takes (with both numbers);
// FAILED_PRECONDITION for a shard that its manifest contradicts.
absl::StatusOr<PinnedData> PinData(FileSystem& file_system, Journal& journal, const PathRules& rules,
                                   const v1::JobSpec& spec);

// The training data of a job pinned before; its hashes are for the workers to check.
absl::StatusOr<std::unique_ptr<Dataset>> OpenPinned(FileSystem& file_system, const v1::ResolvedJob& job);

// FAILED_PRECONDITION, with the path and both hashes, for the first shard or mask that is not what was pinned; the codes
// of HashFile. Files are read again only where size or time of change is another than before.
absl::Status CheckPins(FileSystem& file_system, Journal& journal, const v1::ResolvedJob& job);

// The tokens of units of a window, in order: the first of them is number window * batch.sequences +
// unit * batch.micro_batch of what the job draws (docs/numerics.md, section 10).
std::vector<v1::SequenceRange> SequencesOf(const Dataset& data, const v1::JobSpec& spec, Window window,
                                           const std::vector<core::UnitRange>& units);

}  // namespace accrue
