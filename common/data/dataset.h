// Token shards as a sequence of training examples. docs/numerics.md, section 10, fixes which is which.
//
// Immutable after Open; thread-safe. Shards are memory-mapped for the life of the object.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file_system.h"

namespace accrue {

// What a shard file is, from its header alone.
struct ShardInfo {
  std::string path;
  std::string format;  // "llm.c v1 uint16", "llm.c v7 uint32", "megatron uint16", "megatron int32"
  uint64_t size_bytes = 0;
  int64_t tokens = 0;
};

// A shard as a job pins it; empty hashes, and sizes of 0, are not checked. With a mask (common/data/mask.h)
// every sequence is one of the mask's examples; either all shards of a data set have one, or none.
struct ShardReference {
  std::string path;
  uint64_t size_bytes = 0;
  std::string xxh3_128;
  std::string mask_path;
  std::string mask_xxh3_128;
};

// NOT_FOUND; INVALID_ARGUMENT for a wrong magic or version, a length that the header contradicts, or an index
// and a .bin that disagree: each says the path, what was found and what was expected.
absl::StatusOr<ShardInfo> InspectShard(FileSystem& file_system, const std::string& path);

// XXH3-128 of a whole file as hexadecimal digits.
absl::StatusOr<std::string> HashFile(FileSystem& file_system, const std::string& path);

// A shard pinned as it is now, its mask too if the manifest.json beside it names one. Codes of InspectShard;
// FAILED_PRECONDITION when the manifest gives another size or hash.
absl::StatusOr<ShardReference> PinShard(FileSystem& file_system, const std::string& path);

enum class DataOrder { kSequential, kShuffled };

class Dataset {
 public:
  struct Options {
    int64_t sequence_length = 0;
    DataOrder order = DataOrder::kShuffled;
    uint64_t seed = 0;
    int64_t vocabulary = 0;  // tokens at or above it are refused; 0: not checked
  };

  // Maps the shards and checks them: FAILED_PRECONDITION for a shard that differs from its pin (with both
  // hashes), INVALID_ARGUMENT as InspectShard, for a token beyond the vocabulary (with its place), with too
  // little data for one sequence, or where only some shards have masks. Requires sequence_length >= 1.
  static absl::StatusOr<std::unique_ptr<Dataset>> Open(FileSystem& file_system,
                                                       const std::vector<ShardReference>& shards,
                                                       const Options& options);
  virtual ~Dataset() = default;

  virtual int64_t sequences() const = 0;  // N, in an epoch
  virtual int64_t tokens() const = 0;
  virtual bool masked() const = 0;

  // Which sequence of the data the number-th drawn is (number counts across epochs, from 0).
  virtual int64_t SequenceAt(int64_t number) const = 0;
  // The parts of a shard that a sequence is made of (more than one where it spans shards): its T inputs and
  // the last target; fewer for an example that is shorter. Requires 0 <= sequence < sequences(), as does
  // Read.
  struct Range {
    int32_t shard = 0;
    int64_t first_token = 0;
    int64_t count = 0;
  };
  virtual std::vector<Range> RangesOf(int64_t sequence) const = 0;

  // Writes the T inputs and T targets (-1: masked) of the sequence. An example is cut after T + 1 tokens;
  // past its end inputs are 0 and targets masked.
  virtual void Read(int64_t sequence, int32_t* tokens, int32_t* targets) const = 0;
};

}  // namespace accrue
