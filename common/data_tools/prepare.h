// `accrue data prepare`: text to token shards, a manifest and a tokenizer. docs/data.md describes what it
// leaves.
//
// The bytes it writes depend on inputs and options alone: not on threads, nor on where it was interrupted.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/data/data_manifest.h"
#include "common/file_system.h"

namespace accrue {

struct PrepareOptions {
  std::vector<std::string> inputs;
  std::vector<std::string> include;
  std::string tokenizer = "bytes";  // bytes | sentencepiece | gpt2
  // sentencepiece: a model file, empty to train one. gpt2: the folder of vocab.json and merges.txt (or
  // encoder.json and vocab.bpe).
  std::string model;
  int64_t vocabulary = 8192;        // of a model that is trained
  uint64_t sample_bytes = 8 << 20;  // of text that it is trained on
  std::string output;
  double validation_fraction = 0.05;  // in [0, 0.5]; 0: no validation part
  uint64_t seed = 0;
  int64_t shard_tokens = int64_t{1} << 25;  // a shard is built in memory
  int threads = 0;                          // 0: one for each core
};

struct PrepareProgress {
  std::string stage;  // reading | training the tokenizer | tokenizing
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;
  int64_t tokens = 0;  // written or about to be, in this run
};

struct PrepareHooks {
  std::function<void(const PrepareProgress&)> progress = [](const PrepareProgress&) {};
  std::function<void(const std::string&)> message = [](const std::string&) {};  // a line for people
};

struct PrepareReport {
  DataManifest manifest;
  int64_t train_tokens = 0;
  int64_t validation_tokens = 0;
  int64_t train_documents = 0;
  int64_t validation_documents = 0;
  bool was_complete = false;  // nothing was left to do
};

// INVALID_ARGUMENT for options and inputs that cannot be; FAILED_PRECONDITION when the output holds data that
// this did not make, or an input changed meanwhile; RESOURCE_EXHAUSTED when the disk is full: run again, it
// goes on.
absl::StatusOr<PrepareReport> PrepareData(FileSystem& file_system, const PrepareOptions& options,
                                          const PrepareHooks& hooks);

}  // namespace accrue
