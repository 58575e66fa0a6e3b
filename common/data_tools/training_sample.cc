#include "common/data_tools/training_sample.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/data_tools/documents.h"
#include "common/philox.h"
#include "common/status.h"
#include "common/tokenizer/utf8.h"

namespace accrue {
namespace {

// The trainer's limit is higher; longer lines are mostly data.
constexpr size_t kMaxLineBytes = 8192;

class Sampler {
 public:
  Sampler(uint64_t seed, uint64_t total_bytes, uint64_t limit_bytes)
      : seed_(SplitMix64(seed)), limit_bytes_(limit_bytes) {
    const double share =
        static_cast<double>(limit_bytes) / static_cast<double>(std::max<uint64_t>(total_bytes, 1));
    take_all_ = share >= 1;
    below_ = take_all_ ? 0 : static_cast<uint64_t>(std::ldexp(share, 64));
  }

  // Whether the number-th line is drawn; a JSONL line is drawn whole, so that few are parsed.
  bool Draws(uint64_t number) const {
    return !full() && (take_all_ || SplitMix64(seed_ ^ SplitMix64(number)) < below_);
  }

  void AddLine(absl::string_view line) {
    while (!line.empty() && !full()) {
      const size_t length = Utf8Boundary(line, std::min(line.size(), kMaxLineBytes));
      const absl::string_view part = line.substr(0, length);
      lines_.push_back(IsValidUtf8(part) ? std::string(part) : ReplaceInvalidUtf8(part));
      bytes_ += length;
      line.remove_prefix(length);
    }
  }
  bool full() const { return bytes_ >= limit_bytes_ + limit_bytes_ / 4; }
  std::vector<std::string> Take() { return std::move(lines_); }

 private:
  const uint64_t seed_;
  const uint64_t limit_bytes_;
  bool take_all_ = false;
  uint64_t below_ = 0;
  uint64_t bytes_ = 0;
  std::vector<std::string> lines_;
};

template <typename Visit>
absl::Status ForEachLine(absl::string_view text, Visit visit) {
  while (!text.empty()) {
    const absl::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    ACCRUE_RETURN_IF_ERROR(visit(line));
  }
  return absl::OkStatus();
}

absl::Status AddText(absl::string_view text, Sampler* sampler) {
  return ForEachLine(text, [&](absl::string_view line) {
    sampler->AddLine(line);
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<std::vector<std::string>> SampleTrainingLines(FileSystem& file_system, const InputPlan& plan,
                                                             uint64_t limit_bytes) {
  Sampler sampler(plan.seed, plan.total_bytes, limit_bytes);
  DocumentSource source(file_system, plan, 0);
  uint64_t number = 0;
  while (!sampler.full()) {
    ACCRUE_ASSIGN_OR_RETURN(const std::vector<Item> batch, source.NextBatch());
    if (batch.empty()) break;
    for (const Item& item : batch) {
      if (item.file->kind == InputKind::kText && item.split == Split::kValidation) continue;
      int64_t line_number = item.first_line;
      ACCRUE_RETURN_IF_ERROR(ForEachLine(item.text, [&](absl::string_view line) -> absl::Status {
        const int64_t at = line_number++;
        if (!sampler.Draws(number++)) return absl::OkStatus();
        if (item.file->kind == InputKind::kText) {
          sampler.AddLine(line);
          return absl::OkStatus();
        }
        if (IsBlank(line) || DocumentHash(plan.seed, item.file->name, at) < plan.held_out_below)
          return absl::OkStatus();
        ACCRUE_ASSIGN_OR_RETURN(const Record record,
                                ParseRecord(line, absl::StrCat(item.file->path, ":", at)));
        ACCRUE_RETURN_IF_ERROR(AddText(record.text, &sampler));
        ACCRUE_RETURN_IF_ERROR(AddText(record.prompt, &sampler));
        return AddText(record.completion, &sampler);
      }));
    }
  }
  return sampler.Take();
}

}  // namespace accrue
