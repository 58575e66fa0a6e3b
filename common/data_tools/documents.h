// The text of a data set in pieces of bounded size, in an order and with cuts that the inputs alone decide.
//
// An item is a piece of a text file, or a run of whole lines of a JSONL file. Items are numbered from 0 over
// the whole data set: a number names the same bytes in every run, which is what resuming stands on. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/data_tools/inputs.h"
#include "common/file_system.h"

namespace accrue {

enum class Split { kTrain = 0, kValidation = 1 };
inline constexpr int kSplits = 2;
absl::string_view SplitName(Split split);

struct Item {
  int64_t ordinal = 0;
  const InputFile* file = nullptr;
  std::shared_ptr<const MappedFile> mapped;  // keeps text alive
  absl::string_view text;
  uint64_t end_in_data = 0;  // bytes of the data set up to the end of text
  // Of a text file's piece:
  Split split = Split::kTrain;
  bool begins_document = false;
  bool ends_document = false;
  // Of a run of JSONL lines: the number of its first line, from 1.
  int64_t first_line = 0;
};

class DocumentSource {
 public:
  // Items before first_ordinal are passed over. plan must outlive the source and its items.
  DocumentSource(FileSystem& file_system, const InputPlan& plan, int64_t first_ordinal)
      : file_system_(file_system), plan_(plan), first_ordinal_(first_ordinal) {}

  // Items of about kBatchBytes together; none at the end. FAILED_PRECONDITION when a file has another size
  // than when it was planned.
  absl::StatusOr<std::vector<Item>> NextBatch();

  // Text is cut at about this size.
  static constexpr uint64_t kBatchBytes = 256 << 10;

 private:
  absl::StatusOr<Item> NextItem();

  FileSystem& file_system_;
  const InputPlan& plan_;
  const int64_t first_ordinal_;
  size_t file_ = 0;        // the file that the next item is in
  uint64_t position_ = 0;  // and its first byte there
  int64_t line_ = 1;       // and the number of its first line
  int64_t ordinal_ = 0;
  uint64_t bytes_ = 0;                        // of the data set before the next item
  std::shared_ptr<const MappedFile> mapped_;  // of file_, once position_ is in it
};

}  // namespace accrue
