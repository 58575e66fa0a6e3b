// `accrue data inspect`: what shards hold, and whether they are what their manifest says.
//
// Reads only; thread-safe. A shard that is damaged is reported, not an error of the call.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/data/data_manifest.h"
#include "common/data/dataset.h"
#include "common/file_system.h"

namespace accrue {

struct ShardReport {
  ShardInfo info;
  std::string error;         // not empty: the shard or its mask cannot be read, and nothing below is known
  std::string split;         // from the manifest, as is documents
  int64_t documents = -1;    // -1: not known
  int32_t lowest_token = 0;  // of no tokens: 0
  int32_t highest_token = 0;
  std::string xxh3_128;
  std::string hash_check;  // ok | differs from the manifest | no manifest
  int64_t examples = -1;   // -1: no mask
  int64_t targets = 0;     // tokens that the mask leaves as targets
  std::vector<int32_t> first_tokens;
  std::string first_text;  // decoded, when there is a tokenizer
};

struct DataReport {
  std::string directory;
  bool has_manifest = false;
  DataManifest manifest;
  std::vector<ShardReport> shards;
  // Every shard is readable, within the vocabulary, and what the manifest says.
  bool ok = true;
};

// path: a shard, a folder, or its manifest.json. NOT_FOUND when there is nothing to inspect.
absl::StatusOr<DataReport> InspectData(FileSystem& file_system, const std::string& path,
                                       int64_t first_tokens);

std::string DataReportToJson(const DataReport& report);
std::string DataReportToText(const DataReport& report);

}  // namespace accrue
