// What a data set is made from: the files, what is in them, and which documents are held out.
//
// A text file is one document, a JSONL line is one document. A document is held out when the hash of (seed,
// its name) falls below a bound, so that neither its neighbours nor the number of threads matter, and files
// that are added later do not move those that are there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/data_tools/records.h"
#include "common/file_system.h"
#include "common/hash.h"

namespace accrue {

enum class InputKind { kText, kJsonl };

struct InputFile {
  std::string path;
  std::string name;  // relative to the folder that was given: what a document is called in hashes
  InputKind kind = InputKind::kText;
  uint64_t size_bytes = 0;
  Hash128 hash;
};

struct InputPlan {
  std::vector<InputFile> files;  // none empty
  RecordKind record_kind = RecordKind::kText;
  uint64_t total_bytes = 0;
  int64_t documents = 0;
  int64_t held_out = 0;
  int64_t skipped_binary = 0;  // files of folders that are not text
  uint64_t seed = 0;
  // Documents whose hash is below this are held out.
  uint64_t held_out_below = 0;
  // A single text document cannot be held out whole: what follows this byte of it is. 0: not so.
  uint64_t cut_at_byte = 0;
};

struct InputOptions {
  std::vector<std::string> inputs;  // files and folders
  std::vector<std::string>
      include;  // patterns with * and ?, for names of files in folders; none: every text file
  std::string exclude_directory;  // not walked into: where the output goes
  double validation_fraction = 0.05;
  uint64_t seed = 0;
  int threads = 1;
};

// In folders, hidden entries and symbolic links are skipped, and files with a zero byte in their first 8 KiB.
// NOT_FOUND and PERMISSION_DENIED name the path; INVALID_ARGUMENT for a bad first JSONL record, for text
// mixed with prompts and completions, and where nothing is left to read.
absl::StatusOr<InputPlan> PlanInputs(FileSystem& file_system, const InputOptions& options);

// The hash by which a document is held out; line is 0 for a text file.
uint64_t DocumentHash(uint64_t seed, absl::string_view name, int64_t line);

// Where text may be cut near `position`, without changing how any tokenizer splits it: before a line feed
// that follows a printable ASCII character. Looks ahead for at most `reach` bytes; else the next UTF-8
// boundary back.
uint64_t CutNear(absl::string_view text, uint64_t position, uint64_t reach);

}  // namespace accrue
