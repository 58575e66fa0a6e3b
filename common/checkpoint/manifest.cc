#include "common/checkpoint/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/exponents.h"
#include "common/fault_points.h"
#include "common/hash.h"
#include "common/status.h"

namespace accrue {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxManifestBytes = size_t{64} << 20;
constexpr int kMaxNesting = 8;
constexpr char kSelfHash[] = "manifest_xxh3_128";
constexpr char kFolderPrefix[] = "window-";

std::string Dump(const Json& json) { return json.dump(1, ' ', false, Json::error_handler_t::replace); }

// Of everything else in the manifest, in its canonical form: keys sorted, one space of indent.
std::string SelfHash(const Json& without) {
  const std::string text = Dump(without);
  return HashBytes(text.data(), text.size()).Hex();
}

absl::Status CheckFile(const CheckpointFileInfo& file, absl::flat_hash_set<std::string>& names) {
  if (file.name.empty() || file.name[0] == '.' || file.name.find('/') != std::string::npos ||
      file.name == kManifestName) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", file.name, "\" is not the plain name of a checkpoint's file"));
  }
  if (!names.insert(file.name).second) {
    return absl::InvalidArgumentError(absl::StrCat("file ", file.name, " is listed twice"));
  }
  return Annotate(Hash128::FromHex(file.xxh3_128).status(), absl::StrCat("file ", file.name));
}

absl::Status CheckManifest(const CheckpointManifest& manifest) {
  if (manifest.format_version != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("format version ", manifest.format_version, "; this build reads version 1"));
  }
  if (manifest.window < 0 || manifest.steps < 0 || manifest.steps > manifest.window ||
      manifest.timeline < 0) {
    return absl::InvalidArgumentError(absl::StrCat("window ", manifest.window, ", steps ", manifest.steps,
                                                   " and timeline ", manifest.timeline,
                                                   " contradict each other"));
  }
  if (manifest.optimizer != "adamw" && manifest.optimizer != "sgd") {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown optimizer \"", manifest.optimizer, "\"; expected adamw or sgd"));
  }
  ACCRUE_RETURN_IF_ERROR(Annotate(Hash128::FromHex(manifest.digest).status(), "digest"));
  absl::flat_hash_set<std::string> tensors;
  for (const std::string& tensor : manifest.tensors) {
    if (!tensors.insert(tensor).second) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor, " is listed twice"));
    }
  }
  if (manifest.tensors.empty()) return absl::InvalidArgumentError("no tensors");
  if (!manifest.exponents.empty() && manifest.exponents.size() != manifest.tensors.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(manifest.exponents.size(), " exponents for ", manifest.tensors.size(), " tensors"));
  }
  for (int exponent : manifest.exponents) {
    if (std::abs(exponent) > kMaxExponent) {
      return absl::InvalidArgumentError(absl::StrCat("exponent ", exponent, " is beyond +-", kMaxExponent));
    }
  }
  if (manifest.loss_scale && !manifest.loss_scale->IsPossible()) {
    return absl::InvalidArgumentError(absl::StrCat("loss scale exponent ", manifest.loss_scale->exponent, " after ",
                                                   manifest.loss_scale->good_windows, " windows is none that there can be"));
  }
  if (manifest.files.empty()) return absl::InvalidArgumentError("no files");
  absl::flat_hash_set<std::string> files;
  for (const CheckpointFileInfo& file : manifest.files) ACCRUE_RETURN_IF_ERROR(CheckFile(file, files));
  return absl::OkStatus();
}

// Reads fields of an object, remembering the first that is missing or of another type.
class FieldReader {
 public:
  FieldReader(const Json& object, std::string place) : object_(object), place_(std::move(place)) {}

  absl::Status status() const { return status_; }

  std::string String(const char* name) {
    const Json* field = Field(name, "a string", [](const Json& f) { return f.is_string(); });
    return field == nullptr ? "" : field->get<std::string>();
  }
  std::string StringIfThere(const char* name) {
    return object_.is_object() && object_.contains(name) ? String(name) : "";
  }
  int64_t Integer(const char* name) {
    const Json* field = Field(name, "a whole number", [](const Json& f) { return IsInteger(f); });
    return field == nullptr ? 0 : field->get<int64_t>();
  }
  const Json& List(const char* name) {
    static const Json* const empty = new Json(Json::array());
    const Json* field = Field(name, "a list", [](const Json& f) { return f.is_array(); });
    return field == nullptr ? *empty : *field;
  }
  void Fail(const char* name, const char* expected) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(absl::StrCat(place_, "\"", name, "\": expected ", expected));
  }

  static bool IsInteger(const Json& field) {
    return field.is_number_integer() &&
           (!field.is_number_unsigned() || field.get<uint64_t>() <= uint64_t{INT64_MAX});
  }

 private:
  template <typename Accepts>
  const Json* Field(const char* name, const char* expected, const Accepts& accepts) {
    const auto it = object_.is_object() ? object_.find(name) : object_.end();
    if (object_.is_object() && it != object_.end() && accepts(*it)) return &*it;
    Fail(name, expected);
    return nullptr;
  }

  const Json& object_;
  const std::string place_;
  absl::Status status_;
};

absl::StatusOr<CheckpointManifest> FromJson(const Json& json) {
  CheckpointManifest manifest;
  FieldReader reader(json, "");
  manifest.format_version =
      static_cast<int>(std::clamp<int64_t>(reader.Integer("format_version"), -1, 1 << 30));
  manifest.job_name = reader.String("job_name");
  manifest.spec_hash = reader.String("spec_hash");
  manifest.spec_json = reader.String("spec_json");
  manifest.timeline = reader.Integer("timeline");
  manifest.window = reader.Integer("window");
  manifest.steps = reader.Integer("steps");
  manifest.optimizer = reader.String("optimizer");
  manifest.digest = reader.String("digest");
  manifest.loss_json = reader.String("loss_json");
  manifest.numeric_class = reader.StringIfThere("numeric_class");
  manifest.mixed = reader.StringIfThere("mixed");
  for (const Json& exponent : reader.List("exponents")) {
    if (!FieldReader::IsInteger(exponent)) reader.Fail("exponents", "whole numbers");
    if (!reader.status().ok()) break;
    manifest.exponents.push_back(
        static_cast<int>(std::clamp<int64_t>(exponent.get<int64_t>(), -100000, 100000)));
  }
  if (json.contains("loss_scale")) {
    FieldReader fields(json["loss_scale"], "\"loss_scale\": ");
    manifest.loss_scale.emplace();
    manifest.loss_scale->exponent = static_cast<int>(std::clamp<int64_t>(fields.Integer("exponent"), -100000, 100000));
    manifest.loss_scale->good_windows = fields.Integer("good_windows");
    ACCRUE_RETURN_IF_ERROR(fields.status());
  }
  for (const Json& tensor : reader.List("tensors")) {
    if (!tensor.is_string()) reader.Fail("tensors", "strings");
    if (!reader.status().ok()) break;
    manifest.tensors.push_back(tensor.get<std::string>());
  }
  for (const Json& file : reader.List("files")) {
    FieldReader fields(file, "\"files\": ");
    const int64_t size_bytes = fields.Integer("size_bytes");
    if (size_bytes < 0) fields.Fail("size_bytes", "at least 0");
    manifest.files.push_back(
        {fields.String("name"), static_cast<uint64_t>(size_bytes), fields.String("xxh3_128")});
    ACCRUE_RETURN_IF_ERROR(fields.status());
  }
  ACCRUE_RETURN_IF_ERROR(reader.status());
  ACCRUE_RETURN_IF_ERROR(CheckManifest(manifest));
  return manifest;
}

Json ToJson(const CheckpointManifest& manifest) {
  Json files = Json::array();
  for (const CheckpointFileInfo& file : manifest.files) {
    files.push_back({{"name", file.name}, {"size_bytes", file.size_bytes}, {"xxh3_128", file.xxh3_128}});
  }
  Json json = {{"format_version", manifest.format_version},
               {"job_name", manifest.job_name},
               {"spec_hash", manifest.spec_hash},
               {"spec_json", manifest.spec_json},
               {"timeline", manifest.timeline},
               {"window", manifest.window},
               {"steps", manifest.steps},
               {"optimizer", manifest.optimizer},
               {"digest", manifest.digest},
               {"exponents", manifest.exponents},
               {"tensors", manifest.tensors},
               {"files", std::move(files)},
               {"loss_json", manifest.loss_json}};
  if (manifest.loss_scale) {
    json["loss_scale"] = {{"exponent", manifest.loss_scale->exponent},
                          {"good_windows", manifest.loss_scale->good_windows}};
  }
  if (!manifest.numeric_class.empty()) json["numeric_class"] = manifest.numeric_class;
  if (!manifest.mixed.empty()) json["mixed"] = manifest.mixed;
  return json;
}

// Deep nesting would exhaust the stack of whoever walks the parsed text.
bool NestedDeeperThan(absl::string_view json, int limit) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > limit) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

absl::Status DataLoss(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(path, ": damaged checkpoint: ", what));
}

}  // namespace

absl::Status WriteManifest(FileSystem& file_system, const std::string& directory,
                           const CheckpointManifest& manifest) {
  const std::string path = JoinPath(directory, kManifestName);
  ACCRUE_RETURN_IF_ERROR(Annotate(CheckManifest(manifest), path));
  Json json = ToJson(manifest);
  json[kSelfHash] = SelfHash(json);
  return file_system.WriteAtomically(path, Dump(json) + "\n", [&] {
    return FaultStatus(FaultPoint::kCoordinatorManifestRenaming, manifest.window);
  });
}

absl::StatusOr<CheckpointManifest> ReadManifest(FileSystem& file_system, const std::string& directory) {
  const std::string path = JoinPath(directory, kManifestName);
  absl::StatusOr<std::string> text = file_system.ReadAll(path, kMaxManifestBytes);
  if (absl::IsNotFound(text.status())) return text.status();
  if (!text.ok()) return DataLoss(path, text.status().message());
  if (NestedDeeperThan(*text, kMaxNesting)) return DataLoss(path, "the manifest is nested too deeply");
  Json json = Json::parse(*text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return DataLoss(path, "the manifest is not a JSON object");
  const auto self_hash = json.find(kSelfHash);
  if (self_hash == json.end() || !self_hash->is_string())
    return DataLoss(path, "the manifest has no hash of itself");
  const std::string claimed = self_hash->get<std::string>();
  json.erase(kSelfHash);
  if (const std::string found = SelfHash(json); found != claimed) {
    return DataLoss(path,
                    absl::StrCat("the manifest's hash is ", found, ", it claims ", claimed.substr(0, 64)));
  }
  absl::StatusOr<CheckpointManifest> manifest = FromJson(json);
  if (!manifest.ok()) return DataLoss(path, manifest.status().message());
  return manifest;
}

absl::Status VerifyFiles(FileSystem& file_system, const std::string& directory,
                         const CheckpointManifest& manifest) {
  for (const CheckpointFileInfo& file : manifest.files) {
    const std::string path = JoinPath(directory, file.name);
    absl::StatusOr<std::unique_ptr<MappedFile>> mapped = file_system.Map(path);
    if (!mapped.ok()) return DataLoss(path, mapped.status().message());
    if ((*mapped)->size_bytes() != file.size_bytes) {
      return DataLoss(path, absl::StrCat("the file has ", (*mapped)->size_bytes(),
                                         " bytes, its manifest says ", file.size_bytes));
    }
    const std::string hash = HashBytes((*mapped)->data(), (*mapped)->size_bytes()).Hex();
    if (hash != file.xxh3_128) {
      return DataLoss(path,
                      absl::StrCat("the file's XXH3-128 is ", hash, ", its manifest says ", file.xxh3_128));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<CheckpointEntry>> ListCheckpoints(FileSystem& file_system,
                                                             const std::string& root) {
  std::vector<CheckpointEntry> entries;
  if (!file_system.Exists(root)) return entries;
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<std::string> names, file_system.List(root));
  for (const std::string& name : names) {
    absl::string_view digits = name;
    int64_t window = 0;
    // Only names that CheckpointDirectory gives: a copy named "window-7" or "window-00000007.old" is not
    // ours.
    if (!absl::ConsumePrefix(&digits, kFolderPrefix) || !absl::SimpleAtoi(digits, &window) || window < 0)
      continue;
    const std::string directory = CheckpointDirectory(root, window);
    if (BaseName(directory) != name || !file_system.Exists(JoinPath(directory, kManifestName))) continue;
    entries.push_back({window, directory});
  }
  std::sort(entries.begin(), entries.end(),
            [](const CheckpointEntry& a, const CheckpointEntry& b) { return a.window < b.window; });
  return entries;
}

std::string CheckpointDirectory(const std::string& root, int64_t window) {
  return JoinPath(root, absl::StrFormat("%s%08d", kFolderPrefix, window));
}

std::string ShardFileName(int shard, int shards) {
  return absl::StrFormat("state-%05d-of-%05d.safetensors", shard + 1, shards);
}

}  // namespace accrue
