#include "common/data_tools/inputs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/data_tools/parallel.h"
#include "common/status.h"
#include "common/tokenizer/utf8.h"

namespace accrue {
namespace {

constexpr size_t kDetectionBytes = 8192;
constexpr int kMaxFolderDepth = 256;
constexpr uint64_t kSingleDocumentReach = 1 << 20;

absl::string_view View(const MappedFile& file) {
  return absl::string_view(reinterpret_cast<const char*>(file.data()), file.size_bytes());
}

// Shell-style match of * and ?, over the whole name.
bool Matches(absl::string_view pattern, absl::string_view name) {
  size_t p = 0, n = 0, star = absl::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != absl::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::string Normal(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  std::string normal = (error ? std::filesystem::path(path) : absolute).lexically_normal().string();
  while (normal.size() > 1 && normal.back() == '/') normal.pop_back();
  return normal;
}

struct Found {
  InputFile file;
  bool named = false;  // by the user, not found in a folder
};

class Walker {
 public:
  Walker(FileSystem& file_system, const InputOptions& options)
      : file_system_(file_system), options_(options), excluded_(Normal(options.exclude_directory)) {}

  absl::Status Add(const std::string& input) {
    if (!file_system_.Exists(input)) {
      return absl::NotFoundError(
          absl::StrCat("input ", input, " does not exist; expected a file or a folder"));
    }
    if (file_system_.IsDirectory(input)) return Walk(input, "", 0);
    found_.push_back({MakeFile(input, BaseName(input)), true});
    return absl::OkStatus();
  }
  std::vector<Found> Take() { return std::move(found_); }

 private:
  absl::Status Walk(const std::string& directory, const std::string& prefix, int depth) {
    if (!options_.exclude_directory.empty() && Normal(directory) == excluded_) return absl::OkStatus();
    if (depth > kMaxFolderDepth) {
      return absl::InvalidArgumentError(
          absl::StrCat(directory, ": more than ", kMaxFolderDepth, " folders deep"));
    }
    ACCRUE_ASSIGN_OR_RETURN(const std::vector<std::string> names, file_system_.List(directory));
    for (const std::string& name : names) {
      const std::string path = JoinPath(directory, name);
      if (name[0] == '.' || file_system_.IsSymbolicLink(path)) continue;
      const std::string relative = prefix.empty() ? name : absl::StrCat(prefix, "/", name);
      if (file_system_.IsDirectory(path)) {
        ACCRUE_RETURN_IF_ERROR(Walk(path, relative, depth + 1));
      } else if (Included(name, relative)) {
        found_.push_back({MakeFile(path, relative), false});
      }
    }
    return absl::OkStatus();
  }

  // A pattern with a slash is for the path within the folder, one without for the name alone.
  bool Included(const std::string& name, const std::string& relative) const {
    if (options_.include.empty()) return true;
    return std::any_of(options_.include.begin(), options_.include.end(), [&](const std::string& pattern) {
      return Matches(pattern, absl::StrContains(pattern, '/') ? relative : name);
    });
  }

  static InputFile MakeFile(const std::string& path, const std::string& name) {
    const bool jsonl = absl::EndsWith(name, ".jsonl") || absl::EndsWith(name, ".ndjson");
    return {path, name, jsonl ? InputKind::kJsonl : InputKind::kText};
  }

  FileSystem& file_system_;
  const InputOptions& options_;
  const std::string excluded_;
  std::vector<Found> found_;
};

// What one reading of a file tells.
struct Measured {
  bool binary = false;
  int64_t documents = 0;
  int64_t held_out = 0;
  uint64_t lowest_hash = UINT64_MAX;
  uint64_t highest_hash = 0;
  RecordKind record_kind = RecordKind::kText;

  void AddDocument(uint64_t hash, uint64_t bound) {
    ++documents;
    held_out += hash < bound ? 1 : 0;
    lowest_hash = std::min(lowest_hash, hash);
    highest_hash = std::max(highest_hash, hash);
  }
};

absl::Status MeasureJsonl(absl::string_view text, const InputFile& file, const InputOptions& options,
                          uint64_t bound, Measured* measured) {
  int64_t line_number = 0;
  while (!text.empty()) {
    ++line_number;
    const absl::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (IsBlank(line)) continue;
    if (measured->documents == 0) {
      ACCRUE_ASSIGN_OR_RETURN(const Record record,
                              ParseRecord(line, absl::StrCat(file.path, ":", line_number)));
      measured->record_kind = record.kind;
    }
    measured->AddDocument(DocumentHash(options.seed, file.name, line_number), bound);
  }
  return absl::OkStatus();
}

absl::Status Measure(FileSystem& file_system, const InputOptions& options, uint64_t bound, Found* found,
                     Measured* measured) {
  InputFile& file = found->file;
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> mapped, file_system.Map(file.path));
  const absl::string_view text = View(*mapped);
  file.size_bytes = text.size();
  if (text.empty()) return absl::OkStatus();
  if (!found->named && file.kind == InputKind::kText &&
      std::memchr(text.data(), 0, std::min(text.size(), kDetectionBytes)) != nullptr) {
    measured->binary = true;
    return absl::OkStatus();
  }
  file.hash = HashBytes(text.data(), text.size());
  if (file.kind == InputKind::kJsonl) return MeasureJsonl(text, file, options, bound, measured);
  measured->AddDocument(DocumentHash(options.seed, file.name, 0), bound);
  return absl::OkStatus();
}

// At least one document on either side, where there are two.
void ChooseHeldOut(uint64_t bound, const Measured& all, InputPlan* plan) {
  plan->held_out_below = bound;
  plan->held_out = all.held_out;
  if (bound == 0 || all.documents < 2) {
    plan->held_out_below = 0;
    plan->held_out = 0;
  } else if (all.held_out == 0) {
    plan->held_out_below = all.lowest_hash + 1;
    plan->held_out = 1;
  } else if (all.held_out == all.documents) {
    plan->held_out_below = all.highest_hash;
    plan->held_out = all.documents - 1;
  }
}

absl::Status CutSingleDocument(FileSystem& file_system, double fraction, InputPlan* plan) {
  const InputFile& file = plan->files[0];
  if (file.kind != InputKind::kText || fraction <= 0) return absl::OkStatus();
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> mapped, file_system.Map(file.path));
  const uint64_t wanted = static_cast<uint64_t>(static_cast<double>(mapped->size_bytes()) * (1 - fraction));
  const uint64_t cut = CutNear(View(*mapped), wanted, kSingleDocumentReach);
  plan->cut_at_byte = cut == mapped->size_bytes() ? 0 : cut;
  return absl::OkStatus();
}

}  // namespace

uint64_t DocumentHash(uint64_t seed, absl::string_view name, int64_t line) {
  const std::string key = absl::StrCat(seed, "\n", line, "\n", name);
  const Hash128 hash = HashBytes(key.data(), key.size());
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = value << 8 | hash.bytes[static_cast<size_t>(i)];
  return value;
}

uint64_t CutNear(absl::string_view text, uint64_t position, uint64_t reach) {
  if (position >= text.size()) return text.size();
  const uint64_t end = std::min<uint64_t>(text.size(), position + reach);
  for (uint64_t i = std::max<uint64_t>(position, 1); i < end; ++i) {
    const char* found = static_cast<const char*>(std::memchr(text.data() + i, '\n', end - i));
    if (found == nullptr) break;
    i = static_cast<uint64_t>(found - text.data());
    if (text[i - 1] > ' ' && text[i - 1] < '\x7f') return i;
  }
  return Utf8Boundary(text, position);
}

absl::StatusOr<InputPlan> PlanInputs(FileSystem& file_system, const InputOptions& options) {
  ACCRUE_CHECK(options.validation_fraction >= 0 && options.validation_fraction < 1);
  Walker walker(file_system, options);
  for (const std::string& input : options.inputs) ACCRUE_RETURN_IF_ERROR(walker.Add(input));
  std::vector<Found> found = walker.Take();
  std::vector<Measured> measured(found.size());
  const uint64_t bound = static_cast<uint64_t>(std::ldexp(options.validation_fraction, 64));
  ACCRUE_RETURN_IF_ERROR(ParallelFor(found.size(), options.threads, [&](size_t i) {
    return Measure(file_system, options, bound, &found[i], &measured[i]);
  }));

  InputPlan plan;
  plan.seed = options.seed;
  Measured all;
  const InputFile* first = nullptr;
  for (size_t i = 0; i < found.size(); ++i) {
    const Measured& one = measured[i];
    plan.skipped_binary += one.binary ? 1 : 0;
    if (one.documents == 0) continue;
    if (first != nullptr && one.record_kind != plan.record_kind) {
      return absl::InvalidArgumentError(absl::StrCat(
          first->path, " has ", RecordKindName(plan.record_kind), ", ", found[i].file.path, " has ",
          RecordKindName(one.record_kind), ": expected one kind in a data set; prepare them separately"));
    }
    if (first == nullptr) first = &found[i].file, plan.record_kind = one.record_kind;
    all.documents += one.documents;
    all.held_out += one.held_out;
    all.lowest_hash = std::min(all.lowest_hash, one.lowest_hash);
    all.highest_hash = std::max(all.highest_hash, one.highest_hash);
    plan.total_bytes += found[i].file.size_bytes;
    plan.files.push_back(found[i].file);
  }
  if (plan.files.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("found no text in ", options.inputs.size(), " inputs (", found.size(), " files, ",
                     plan.skipped_binary, " of them binary)",
                     options.include.empty() ? "" : "; does --include match any name?"));
  }
  plan.documents = all.documents;
  ChooseHeldOut(bound, all, &plan);
  if (plan.documents == 1)
    ACCRUE_RETURN_IF_ERROR(CutSingleDocument(file_system, options.validation_fraction, &plan));
  return plan;
}

}  // namespace accrue
