#include "common/data_tools/documents.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace accrue {

absl::string_view SplitName(Split split) { return split == Split::kTrain ? "train" : "validation"; }

absl::StatusOr<std::vector<Item>> DocumentSource::NextBatch() {
  std::vector<Item> batch;
  uint64_t bytes = 0;
  while (bytes < kBatchBytes && file_ < plan_.files.size()) {
    ACCRUE_ASSIGN_OR_RETURN(Item item, NextItem());
    if (item.ordinal < first_ordinal_) continue;
    bytes += item.text.size();
    batch.push_back(std::move(item));
  }
  return batch;
}

absl::StatusOr<Item> DocumentSource::NextItem() {
  const InputFile& file = plan_.files[file_];
  if (mapped_ == nullptr) {
    ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapped, file_system_.Map(file.path));
    if (mapped->size_bytes() != file.size_bytes) {
      return absl::FailedPreconditionError(
          absl::StrCat(file.path, ": expected ", file.size_bytes, " bytes, found ", mapped->size_bytes(),
                       "; it changed while it was read. Run the command again"));
    }
    mapped_ = std::move(mapped);
  }
  const absl::string_view text(reinterpret_cast<const char*>(mapped_->data()), mapped_->size_bytes());
  Item item;
  item.ordinal = ordinal_++;
  item.file = &file;
  item.mapped = mapped_;
  uint64_t end = text.size();
  if (file.kind == InputKind::kText) {
    // The one document that is cut counts as two.
    const bool before_cut = plan_.cut_at_byte != 0 && position_ < plan_.cut_at_byte;
    const uint64_t document_end = before_cut ? plan_.cut_at_byte : text.size();
    end = CutNear(text.substr(0, document_end), position_ + kBatchBytes, kBatchBytes);
    item.begins_document = position_ == 0 || position_ == plan_.cut_at_byte;
    item.ends_document = end == document_end;
    const bool held_out =
        plan_.cut_at_byte != 0
            ? !before_cut
            : plan_.held_out_below != 0 && DocumentHash(plan_.seed, file.name, 0) < plan_.held_out_below;
    item.split = held_out ? Split::kValidation : Split::kTrain;
  } else {
    const size_t line_feed = position_ + kBatchBytes < text.size() ? text.find('\n', position_ + kBatchBytes)
                                                                   : absl::string_view::npos;
    if (line_feed != absl::string_view::npos) end = line_feed + 1;
    item.first_line = line_;
    line_ += std::count(text.begin() + position_, text.begin() + end, '\n');
  }
  item.text = text.substr(position_, end - position_);
  item.end_in_data = bytes_ += item.text.size();
  position_ = end;
  if (end == text.size()) {
    ++file_;
    position_ = 0;
    line_ = 1;
    mapped_ = nullptr;
  }
  return item;
}

}  // namespace accrue
