// manifest.json of a folder of prepared data: what `accrue data prepare` made, and from what. docs/data.md
// lists its fields.
//
// Thread-safe: the functions share nothing. The file is hostile input: types and file names are checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/file_system.h"

namespace accrue {

struct DataManifestShard {
  std::string name;   // within the folder: a plain file name
  std::string split;  // "train" or "validation"
  uint64_t size_bytes = 0;
  int64_t tokens = 0;
  int64_t documents = 0;
  std::string xxh3_128;
  std::string mask_name;  // empty: no mask
  std::string mask_xxh3_128;
};

struct DataManifest {
  int format_version = 1;
  std::string tokenizer;            // bytes | sentencepiece | gpt2
  std::string tokenizer_directory;  // within the folder, or empty
  int64_t vocabulary = 0;
  int64_t end_of_document = -1;
  std::vector<DataManifestShard> shards;  // train, then validation, each in order
  std::string options_json = "{}";        // what it was made with, for people
};

inline constexpr char kDataManifestName[] = "manifest.json";

std::string DataManifestToJson(const DataManifest& manifest);
// INVALID_ARGUMENT names `place` and the field.
absl::StatusOr<DataManifest> DataManifestFromJson(const std::string& json, const std::string& place);
// NOT_FOUND without one.
absl::StatusOr<DataManifest> ReadDataManifest(FileSystem& file_system, const std::string& directory);

// The tokenizer's folder for a shard, from the manifest beside it; empty when there is none.
std::string TokenizerDirectoryOf(FileSystem& file_system, const std::string& shard_path);

}  // namespace accrue
