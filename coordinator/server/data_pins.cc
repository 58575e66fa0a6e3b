#include "coordinator/server/data_pins.h"

#include <sys/stat.h>

#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/data/data_manifest.h"
#include "common/spec/job_spec.h"
#include "common/status.h"

namespace accrue {
namespace {

bool IsUnder(const std::string& path, const std::string& root) {
  return path == root || absl::StartsWith(path, root.back() == '/' ? root : root + "/");
}

// Without symbolic links as far as the path exists, without "." and "..".
std::string Canonical(const std::string& path) {
  std::error_code error;
  const std::filesystem::path canonical = std::filesystem::weakly_canonical(path, error);
  return error ? std::filesystem::path(path).lexically_normal().string() : canonical.string();
}

absl::StatusOr<std::string> HashCached(FileSystem& file_system, Journal& journal, const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return HashFile(file_system, path);  // which says what is wrong
  FileHash file{path, static_cast<uint64_t>(info.st_size),
                int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec, ""};
  ACCRUE_ASSIGN_OR_RETURN(file.xxh3_128, journal.FindFileHash(file));
  if (!file.xxh3_128.empty()) return file.xxh3_128;
  ACCRUE_ASSIGN_OR_RETURN(file.xxh3_128, HashFile(file_system, path));
  ACCRUE_RETURN_IF_ERROR(journal.PutFileHash(file));
  return file.xxh3_128;
}

absl::Status CheckAgainstManifest(const std::string& path, const std::string& found, const std::string& expected) {
  if (found == expected) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(path, ": expected XXH3-128 ", expected,
                                                    " (manifest.json beside it), found ", found,
                                                    "; prepare the data again"));
}

absl::StatusOr<v1::ShardPin> PinOne(FileSystem& file_system, Journal& journal, const std::string& path) {
  ACCRUE_ASSIGN_OR_RETURN(const ShardInfo info, InspectShard(file_system, path));
  v1::ShardPin pin;
  pin.set_path(path);
  pin.set_size_bytes(info.size_bytes);
  pin.set_tokens(static_cast<uint64_t>(info.tokens));
  ACCRUE_ASSIGN_OR_RETURN(*pin.mutable_xxh3_128(), HashCached(file_system, journal, path));
  const std::string directory = DirectoryOf(path);
  const absl::StatusOr<DataManifest> manifest = ReadDataManifest(file_system, directory);
  if (absl::IsNotFound(manifest.status())) return pin;
  ACCRUE_RETURN_IF_ERROR(manifest.status());
  for (const DataManifestShard& shard : manifest->shards) {
    if (shard.name != BaseName(path)) continue;
    ACCRUE_RETURN_IF_ERROR(CheckAgainstManifest(path, pin.xxh3_128(), shard.xxh3_128));
    if (shard.mask_name.empty()) break;
    pin.set_mask_path(JoinPath(directory, shard.mask_name));
    ACCRUE_ASSIGN_OR_RETURN(*pin.mutable_mask_xxh3_128(), HashCached(file_system, journal, pin.mask_path()));
    ACCRUE_RETURN_IF_ERROR(CheckAgainstManifest(pin.mask_path(), pin.mask_xxh3_128(), shard.mask_xxh3_128));
    break;
  }
  return pin;
}

absl::Status Of(absl::string_view field, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(field, ": ", status.message()));
}

// `field` is the job file's, for the errors.
absl::StatusOr<std::vector<v1::ShardPin>> PinAll(FileSystem& file_system, Journal& journal, const PathRules& rules,
                                                 absl::string_view field,
                                                 const google::protobuf::RepeatedPtrField<std::string>& patterns) {
  std::vector<v1::ShardPin> pins;
  for (const std::string& pattern : patterns) {
    const absl::StatusOr<std::string> absolute = ResolvePath(file_system, rules, pattern);
    if (!absolute.ok()) return Of(field, absolute.status());
    const absl::StatusOr<std::vector<std::string>> paths = Glob(file_system, *absolute);
    if (!paths.ok()) return Of(field, paths.status());
    for (const std::string& path : *paths) {
      ACCRUE_ASSIGN_OR_RETURN(v1::ShardPin pin, PinOne(file_system, journal, path));
      pins.push_back(std::move(pin));
    }
  }
  return pins;
}

// Sizes are checked, hashes are not: they were just computed, or are for the workers to compare.
template <typename Pins>
std::vector<ShardReference> ReferencesTo(const Pins& pins) {
  std::vector<ShardReference> references;
  for (const v1::ShardPin& pin : pins) references.push_back({pin.path(), pin.size_bytes(), "", pin.mask_path(), ""});
  return references;
}

Dataset::Options OptionsOf(const v1::JobSpec& spec, bool check_tokens) {
  Dataset::Options options;
  options.sequence_length = spec.batch().sequence_length();
  options.order = spec.data().order() == "sequential" ? DataOrder::kSequential : DataOrder::kShuffled;
  options.seed = spec.seed();
  options.vocabulary = check_tokens ? spec.model().vocabulary() : 0;
  return options;
}

}  // namespace

absl::StatusOr<std::string> ResolvePath(FileSystem& file_system, const PathRules& rules, const std::string& path) {
  if (!rules.base_directory.empty()) {
    if (rules.base_directory.front() != '/') {
      return absl::InvalidArgumentError(
          absl::StrCat("base_directory: expected an absolute path, found \"", rules.base_directory, "\""));
    }
    return std::filesystem::path(JoinPath(rules.base_directory, path)).lexically_normal().string();
  }
  if (rules.data_roots.empty()) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot use ", path, ": this coordinator has no data roots; start accrued with --data-root DIR"));
  }
  std::vector<std::string> tried;
  for (const std::string& root : rules.data_roots) {
    const std::string canonical_root = Canonical(root);
    const std::string candidate = JoinPath(canonical_root, path);
    // Only the last component may be a pattern, so that the folder can be followed.
    const std::string resolved = JoinPath(Canonical(DirectoryOf(candidate)), BaseName(candidate));
    if (!IsUnder(resolved, canonical_root)) continue;
    tried.push_back(resolved);
    const auto found = Glob(file_system, resolved);
    if (!found.ok()) continue;
    bool inside = true;
    for (const std::string& file : *found) inside = inside && IsUnder(Canonical(file), canonical_root);
    if (inside) return resolved;
  }
  if (tried.empty()) {
    return absl::PermissionDeniedError(absl::StrCat("cannot use ", path, ": it is not under a data root of this "
                                                    "coordinator (", absl::StrJoin(rules.data_roots, ", "), ")"));
  }
  return absl::NotFoundError(absl::StrCat("no file matches ", path, " under the coordinator's data roots; looked for ",
                                          absl::StrJoin(tried, ", ")));
}

absl::StatusOr<PinnedData> PinData(FileSystem& file_system, Journal& journal, const PathRules& rules,
                                   const v1::JobSpec& spec) {
  PinnedData data;
  ACCRUE_ASSIGN_OR_RETURN(data.train, PinAll(file_system, journal, rules, "data.train", spec.data().train()));
  ACCRUE_ASSIGN_OR_RETURN(data.validation,
                          PinAll(file_system, journal, rules, "data.validation", spec.data().validation()));
  ACCRUE_ASSIGN_OR_RETURN(data.train_data,
                          Dataset::Open(file_system, ReferencesTo(data.train), OptionsOf(spec, true)));
  const int64_t available = data.train_data->sequences(), needed = spec.batch().sequences();
  if (available < needed) {
    return absl::InvalidArgumentError(absl::StrCat(
        "data.train: too little data for one window: batch.sequences is ", needed, ", the shards hold ", available,
        " sequences of ", spec.batch().sequence_length(), " tokens (", data.train_data->tokens(),
        " tokens in all); add data, or lower batch.sequences or batch.sequence_length"));
  }
  if (!data.validation.empty()) {
    ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> validation,
                            Dataset::Open(file_system, ReferencesTo(data.validation), OptionsOf(spec, true)));
    data.validation_sequences = validation->sequences();
  }
  std::set<std::string> train_paths;
  for (const v1::ShardPin& pin : data.train) train_paths.insert(pin.path());
  for (const v1::ShardPin& pin : data.validation) {
    if (!train_paths.contains(pin.path())) continue;
    data.warnings.push_back(absl::StrCat(pin.path(), " is in data.train and in data.validation: the validation loss "
                                         "will not tell how the model does on new text"));
  }
  if (!data.train.empty()) data.tokenizer_directory = TokenizerDirectoryOf(file_system, data.train.front().path());
  return data;
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenPinned(FileSystem& file_system, const v1::ResolvedJob& job) {
  return Dataset::Open(file_system, ReferencesTo(job.train()), OptionsOf(job.spec(), false));
}

absl::Status CheckPins(FileSystem& file_system, Journal& journal, const v1::ResolvedJob& job) {
  const auto check = [&](const std::string& path, const std::string& expected) -> absl::Status {
    ACCRUE_ASSIGN_OR_RETURN(const std::string found, HashCached(file_system, journal, path));
    if (found == expected) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(path, " has changed since the job was submitted: expected XXH3-128 ",
                                                      expected, ", found ", found, "; restore it, or submit anew"));
  };
  for (const auto* pins : {&job.train(), &job.validation()}) {
    for (const v1::ShardPin& pin : *pins) {
      ACCRUE_RETURN_IF_ERROR(check(pin.path(), pin.xxh3_128()));
      if (!pin.mask_path().empty()) ACCRUE_RETURN_IF_ERROR(check(pin.mask_path(), pin.mask_xxh3_128()));
    }
  }
  return absl::OkStatus();
}

std::vector<v1::SequenceRange> SequencesOf(const Dataset& data, const v1::JobSpec& spec, Window window,
                                           const std::vector<core::UnitRange>& units) {
  std::vector<v1::SequenceRange> result;
  const int64_t per_unit = spec.batch().micro_batch();
  for (const core::UnitRange& range : units) {
    const int64_t first = window.value() * spec.batch().sequences() + range.first * per_unit;
    for (int64_t number = first; number < first + range.count * per_unit; ++number) {
      for (const Dataset::Range& piece : data.RangesOf(data.SequenceAt(number))) {
        v1::SequenceRange& added = result.emplace_back();
        added.set_shard(piece.shard);
        added.set_first_token(piece.first_token);
        added.set_count(piece.count);
      }
    }
  }
  return result;
}

}  // namespace accrue
