#include "common/available_memory.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace accrue {
namespace {

constexpr size_t kFileLimitBytes = size_t{1} << 20;

// The number behind `field` and white space, of the first line that begins so.
absl::optional<int64_t> NumberOf(const absl::StatusOr<std::string>& text, absl::string_view field) {
  if (!text.ok()) return absl::nullopt;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    if (!absl::StartsWith(line, field)) continue;
    const std::vector<absl::string_view> words =
        absl::StrSplit(line.substr(field.size()), absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t number = 0;
    if (words.empty() || !absl::SimpleAtoi(words[0], &number)) return absl::nullopt;
    return number;
  }
  return absl::nullopt;
}

// Of the control group of version 2, "/" or "/a/b"; nothing where there is none.
absl::optional<std::string> ControlGroup(FileSystem& file_system, const std::string& root) {
  const absl::StatusOr<std::string> text =
      file_system.ReadAll(absl::StrCat(root, "/proc/self/cgroup"), kFileLimitBytes);
  if (!text.ok()) return absl::nullopt;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    if (absl::StartsWith(line, "0::/"))
      return std::string(absl::StripTrailingAsciiWhitespace(line.substr(3)));
  }
  return absl::nullopt;
}

// What the group at this folder leaves to its limit; files that the kernel drops when it needs room do not
// count.
absl::optional<int64_t> LeftOf(FileSystem& file_system, const std::string& folder) {
  const auto number = [&](const char* name, absl::string_view field) {
    return NumberOf(file_system.ReadAll(absl::StrCat(folder, "/", name), kFileLimitBytes), field);
  };
  const absl::optional<int64_t> limit = number("memory.max", ""), used = number("memory.current", "");
  if (!limit || !used) return absl::nullopt;  // "max": no limit
  return std::max<int64_t>(0, *limit - *used + number("memory.stat", "inactive_file ").value_or(0));
}

}  // namespace

absl::optional<int64_t> AvailableMemoryBytes(FileSystem& file_system, const std::string& root) {
  const absl::optional<int64_t> system_kib =
      NumberOf(file_system.ReadAll(absl::StrCat(root, "/proc/meminfo"), kFileLimitBytes), "MemAvailable:");
  absl::optional<int64_t> least;
  if (system_kib) least = *system_kib * 1024;
  absl::optional<std::string> group = ControlGroup(file_system, root);
  while (group) {
    const absl::optional<int64_t> left = LeftOf(file_system, absl::StrCat(root, "/sys/fs/cgroup", *group));
    if (left && (!least || *left < *least)) least = left;
    const size_t slash = group->rfind('/');
    if (slash == std::string::npos) break;
    group->resize(slash);
  }
  return least;
}

}  // namespace accrue
