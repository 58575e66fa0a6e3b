// Cuts one split's tokens into shards of a fixed number of tokens and writes each whole: the file appears
// under its name when it is complete and durable, its mask before it.
//
// Where shards end depends on the tokens alone. A shard with masks holds whole examples. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/data/data_manifest.h"
#include "common/data_tools/documents.h"
#include "common/data_tools/tokenize.h"
#include "common/file_system.h"

namespace accrue {

// After how many items, and tokens of the next one, a shard ended: where a later run goes on.
struct SplitPosition {
  int64_t item = 0;
  int64_t tokens = 0;
};

class SplitWriter {
 public:
  struct Options {
    std::string directory;
    Split split = Split::kTrain;
    int token_bytes = 2;
    bool masked = false;
    int64_t shard_tokens = 1;  // in [1, kLlmcMaxTokens]
    int next_shard = 0;
    SplitPosition start;  // what comes before is written already
  };
  // Called once a shard is durable.
  using OnShard = std::function<absl::Status(const DataManifestShard&, SplitPosition end)>;

  SplitWriter(FileSystem& file_system, Options options, OnShard on_shard);

  // Items come in order; those before the start are passed over.
  absl::Status Add(int64_t ordinal, const TokenRun& run);
  // Writes what is left; `items` is how many there were.
  absl::Status Finish(int64_t items);

  int64_t tokens() const { return tokens_; }  // added by this writer

 private:
  void Append(const TokenRun& run, int64_t from, int64_t to);
  absl::Status AddExamples(int64_t ordinal, const TokenRun& run, int64_t skip);
  absl::Status Flush(SplitPosition end);
  void Clear();

  FileSystem& file_system_;
  const Options options_;
  const OnShard on_shard_;
  int next_shard_;
  int64_t tokens_ = 0;
  // The shard that is being filled:
  std::string bytes_;  // room for the header, then the tokens
  int64_t in_shard_ = 0;
  int64_t documents_ = 0;
  std::vector<uint8_t> mask_;
  std::vector<uint64_t> offsets_;
};

}  // namespace accrue
