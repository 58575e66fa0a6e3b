#include "common/data/data_manifest.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/hash.h"
#include "common/status.h"

namespace accrue {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kManifestLimitBytes = size_t{64} << 20;

// Takes fields of an object one by one; the first that is missing or of another type makes the error.
class FieldReader {
 public:
  FieldReader(const Json& object, std::string place) : object_(object), place_(std::move(place)) {
    if (!object_.is_object()) Fail("expected an object");
  }
  void Take(const char* name, std::string* out) {
    if (const Json* field = Find(name, "a string", [](const Json& j) { return j.is_string(); }))
      *out = *field;
  }
  void Take(const char* name, int64_t* out) {
    if (const Json* field = Find(name, "an integer", [](const Json& j) { return j.is_number_integer(); }))
      *out = *field;
  }
  void TakeCount(const char* name, int64_t* out) {
    Take(name, out);
    if (status_.ok() && *out < 0) Fail(absl::StrCat("field \"", name, "\" is negative"));
  }
  // A file of the folder: no path, so that a manifest cannot name files elsewhere.
  void TakeName(const char* name, std::string* out, bool may_be_empty) {
    Take(name, out);
    if (!status_.ok() || (out->empty() && may_be_empty)) return;
    if (out->empty() || *out == "." || *out == ".." || out->find('/') != std::string::npos) {
      Fail(absl::StrCat("field \"", name, "\" is \"", *out, "\", expected a plain file name"));
    }
  }
  void TakeHash(const char* name, std::string* out, bool may_be_empty) {
    Take(name, out);
    if (!status_.ok() || (out->empty() && may_be_empty)) return;
    if (const auto hash = Hash128::FromHex(*out); !hash.ok()) {
      Fail(absl::StrCat("field \"", name, "\": ", hash.status().message()));
    }
  }
  const absl::Status& status() const { return status_; }
  void Fail(absl::string_view what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(place_, ": ", what));
  }

 private:
  template <typename Predicate>
  const Json* Find(const char* name, const char* kind, Predicate predicate) {
    if (!status_.ok()) return nullptr;
    const auto it = object_.find(name);
    if (it == object_.end() || !predicate(*it)) {
      Fail(absl::StrCat("field \"", name, "\" is ", it == object_.end() ? "missing" : "of another type",
                        ", expected ", kind));
      return nullptr;
    }
    return &*it;
  }

  const Json& object_;
  const std::string place_;
  absl::Status status_;
};

absl::StatusOr<DataManifestShard> ShardFromJson(const Json& json, const std::string& place) {
  DataManifestShard shard;
  FieldReader reader(json, place);
  int64_t size_bytes = 0;
  reader.TakeName("name", &shard.name, false);
  reader.Take("split", &shard.split);
  reader.TakeCount("size_bytes", &size_bytes);
  reader.TakeCount("tokens", &shard.tokens);
  reader.TakeCount("documents", &shard.documents);
  reader.TakeHash("xxh3_128", &shard.xxh3_128, false);
  reader.TakeName("mask", &shard.mask_name, true);
  reader.TakeHash("mask_xxh3_128", &shard.mask_xxh3_128, true);
  ACCRUE_RETURN_IF_ERROR(reader.status());
  shard.size_bytes = static_cast<uint64_t>(size_bytes);
  return shard;
}

}  // namespace

std::string DataManifestToJson(const DataManifest& manifest) {
  Json shards = Json::array();
  for (const DataManifestShard& shard : manifest.shards) {
    shards.push_back(Json{{"name", shard.name},
                          {"split", shard.split},
                          {"size_bytes", shard.size_bytes},
                          {"tokens", shard.tokens},
                          {"documents", shard.documents},
                          {"xxh3_128", shard.xxh3_128},
                          {"mask", shard.mask_name},
                          {"mask_xxh3_128", shard.mask_xxh3_128}});
  }
  const Json json{{"format_version", manifest.format_version},           {"tokenizer", manifest.tokenizer},
                  {"tokenizer_directory", manifest.tokenizer_directory}, {"vocabulary", manifest.vocabulary},
                  {"end_of_document", manifest.end_of_document},         {"shards", std::move(shards)},
                  {"options", Json::parse(manifest.options_json)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<DataManifest> DataManifestFromJson(const std::string& text, const std::string& place) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError(absl::StrCat(place, ": expected a JSON object"));
  DataManifest manifest;
  FieldReader reader(json, place);
  int64_t version = 0;
  reader.Take("format_version", &version);
  if (reader.status().ok() && version != 1)
    reader.Fail(absl::StrCat("expected format_version 1, found ", version));
  reader.Take("tokenizer", &manifest.tokenizer);
  reader.TakeName("tokenizer_directory", &manifest.tokenizer_directory, true);
  reader.TakeCount("vocabulary", &manifest.vocabulary);
  reader.Take("end_of_document", &manifest.end_of_document);
  ACCRUE_RETURN_IF_ERROR(reader.status());
  const auto shards = json.find("shards");
  if (shards == json.end() || !shards->is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": field \"shards\" is missing, expected a list"));
  }
  for (const Json& shard_json : *shards) {
    ACCRUE_ASSIGN_OR_RETURN(
        DataManifestShard shard,
        ShardFromJson(shard_json, absl::StrCat(place, ": shards[", manifest.shards.size(), "]")));
    manifest.shards.push_back(std::move(shard));
  }
  if (const auto options = json.find("options"); options != json.end()) {
    manifest.options_json = options->dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  return manifest;
}

absl::StatusOr<DataManifest> ReadDataManifest(FileSystem& file_system, const std::string& directory) {
  const std::string path = JoinPath(directory, kDataManifestName);
  ACCRUE_ASSIGN_OR_RETURN(const std::string text, file_system.ReadAll(path, kManifestLimitBytes));
  return DataManifestFromJson(text, path);
}

std::string TokenizerDirectoryOf(FileSystem& file_system, const std::string& shard_path) {
  const std::string directory = DirectoryOf(shard_path);
  const auto manifest = ReadDataManifest(file_system, directory);
  if (!manifest.ok() || manifest->tokenizer_directory.empty()) return "";
  return JoinPath(directory, manifest->tokenizer_directory);
}

}  // namespace accrue
