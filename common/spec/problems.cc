#include "common/spec/problems.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace accrue::spec {
namespace {

constexpr size_t kMaxReported = 50;

// "data.train[1]" lies in "data.train", which lies in "data", which lies in "".
std::string Parent(absl::string_view path) {
  const size_t at = path.find_last_of(".[");
  return at == absl::string_view::npos ? std::string() : std::string(path.substr(0, at));
}

}  // namespace

void Problems::AddAt(SourceMark mark, std::string message) {
  entries_.push_back({true, mark, std::move(message)});
}

void Problems::Add(const std::string& path, std::string message) {
  if (Spoiled(path)) return;
  if (source_ == nullptr) {
    entries_.push_back({false, {}, std::move(message)});
    return;
  }
  std::string at = path;
  while (!at.empty() && source_->marks.find(at) == source_->marks.end()) at = Parent(at);
  const auto found = source_->marks.find(at);
  AddAt(found == source_->marks.end() ? SourceMark{} : found->second, std::move(message));
}

bool Problems::Spoiled(absl::string_view path) const {
  for (std::string at(path); !at.empty(); at = Parent(at)) {
    if (spoiled_.count(at) > 0) return true;
  }
  return false;
}

absl::Status Problems::ToStatus() const {
  if (entries_.empty()) return absl::OkStatus();
  std::vector<Entry> sorted = entries_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.mark.line, a.mark.column) < std::pair(b.mark.line, b.mark.column);
  });
  std::string text;
  for (size_t i = 0; i < sorted.size() && i < kMaxReported; ++i) {
    const Entry& entry = sorted[i];
    if (i > 0) text += '\n';
    if (entry.placed) {
      absl::StrAppend(&text, source_ ? source_->file_name : "", ":", entry.mark.line, ":", entry.mark.column,
                      ": ");
    }
    text += entry.text;
  }
  if (sorted.size() > kMaxReported)
    absl::StrAppend(&text, "\n... and ", sorted.size() - kMaxReported, " more");
  return absl::InvalidArgumentError(text);
}

}  // namespace accrue::spec
