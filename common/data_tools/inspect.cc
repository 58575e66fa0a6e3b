#include "common/data_tools/inspect.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/data/mask.h"
#include "common/data/shard.h"
#include "common/data_tools/parallel.h"
#include "common/hash.h"
#include "common/status.h"
#include "common/tokenizer/tokenizer.h"
#include "common/tokenizer/utf8.h"

namespace accrue {
namespace {

constexpr int64_t kBlockTokens = 1 << 16;

// Names of the shards to look at: the manifest's, else every .bin.
absl::StatusOr<std::vector<std::string>> ShardNames(FileSystem& file_system, const DataReport& report) {
  std::vector<std::string> names;
  for (const DataManifestShard& shard : report.manifest.shards) names.push_back(shard.name);
  if (report.has_manifest) return names;
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<std::string> entries, file_system.List(report.directory));
  for (const std::string& entry : entries) {
    if (absl::EndsWith(entry, ".bin")) names.push_back(entry);
  }
  if (names.empty()) {
    return absl::NotFoundError(
        absl::StrCat(report.directory, ": expected ", kDataManifestName, " or token shards (*.bin)"));
  }
  return names;
}

absl::Status InspectMask(FileSystem& file_system, const DataManifestShard& entry, const std::string& path,
                         ShardReport* report) {
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<MaskSidecar> mask,
                          MaskSidecar::Open(file_system, path, report->info.tokens));
  report->examples = mask->examples();
  for (int64_t i = 0; i < report->info.tokens; ++i) report->targets += mask->is_target(i) ? 1 : 0;
  if (HashBytes(mask->file().data(), mask->file().size_bytes()).Hex() != entry.mask_xxh3_128) {
    report->hash_check = "differs from the manifest";
  }
  return absl::OkStatus();
}

absl::Status InspectOne(FileSystem& file_system, const DataReport& data, const std::string& name,
                        const Tokenizer* tokenizer, int64_t first_tokens, ShardReport* report) {
  const std::string path = JoinPath(data.directory, name);
  report->info.path = path;
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<Shard> shard, Shard::Open(file_system, path));
  report->info = shard->info();
  ACCRUE_RETURN_IF_ERROR(shard->CheckTokens(data.manifest.vocabulary));
  report->xxh3_128 = HashBytes(shard->file().data(), shard->file().size_bytes()).Hex();
  report->hash_check = "no manifest";
  std::vector<int32_t> block(static_cast<size_t>(std::min(kBlockTokens, shard->tokens())));
  report->lowest_token = shard->tokens() > 0 ? INT32_MAX : 0;
  for (int64_t at = 0; at < shard->tokens(); at += kBlockTokens) {
    const int64_t count = std::min(kBlockTokens, shard->tokens() - at);
    shard->Copy(at, count, block.data());
    const auto [lowest, highest] = std::minmax_element(block.begin(), block.begin() + count);
    report->lowest_token = std::min(report->lowest_token, *lowest);
    report->highest_token = std::max(report->highest_token, *highest);
  }
  report->first_tokens.resize(static_cast<size_t>(std::min(first_tokens, shard->tokens())));
  shard->Copy(0, static_cast<int64_t>(report->first_tokens.size()), report->first_tokens.data());
  if (tokenizer != nullptr && report->highest_token < tokenizer->vocabulary_size()) {
    report->first_text = ReplaceInvalidUtf8(tokenizer->Decode(report->first_tokens));
  }
  for (const DataManifestShard& entry : data.manifest.shards) {
    if (entry.name != name) continue;
    report->split = entry.split;
    report->documents = entry.documents;
    const bool same = entry.xxh3_128 == report->xxh3_128 && entry.size_bytes == report->info.size_bytes &&
                      entry.tokens == report->info.tokens;
    report->hash_check = same ? "ok" : "differs from the manifest";
    if (!entry.mask_name.empty()) {
      ACCRUE_RETURN_IF_ERROR(
          InspectMask(file_system, entry, JoinPath(data.directory, entry.mask_name), report));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DataReport> InspectData(FileSystem& file_system, const std::string& path,
                                       int64_t first_tokens) {
  if (!file_system.Exists(path)) {
    return absl::NotFoundError(
        absl::StrCat(path, " does not exist: expected a shard, a folder or a manifest"));
  }
  DataReport report;
  const bool is_directory = file_system.IsDirectory(path);
  const bool is_manifest = !is_directory && absl::EndsWith(path, ".json");
  report.directory = is_directory ? path : DirectoryOf(path);
  if (is_manifest || file_system.Exists(JoinPath(report.directory, kDataManifestName))) {
    ACCRUE_ASSIGN_OR_RETURN(report.manifest, ReadDataManifest(file_system, report.directory));
    report.has_manifest = true;
  }
  std::vector<std::string> names = {BaseName(path)};
  if (is_directory || is_manifest) {
    ACCRUE_ASSIGN_OR_RETURN(names, ShardNames(file_system, report));
  }
  std::unique_ptr<Tokenizer> tokenizer;
  if (!report.manifest.tokenizer_directory.empty()) {
    auto loaded =
        Tokenizer::Load(file_system, JoinPath(report.directory, report.manifest.tokenizer_directory));
    if (loaded.ok()) tokenizer = *std::move(loaded);  // without one the ids are shown alone
  }
  report.shards.resize(names.size());
  ACCRUE_RETURN_IF_ERROR(ParallelFor(names.size(), DefaultThreads(), [&](size_t i) {
    ShardReport& shard = report.shards[i];
    const absl::Status status =
        InspectOne(file_system, report, names[i], tokenizer.get(), first_tokens, &shard);
    shard.error = std::string(status.message());
    return absl::OkStatus();
  }));
  for (const ShardReport& shard : report.shards) {
    report.ok = report.ok && shard.error.empty() && shard.hash_check != "differs from the manifest";
  }
  return report;
}

std::string DataReportToJson(const DataReport& report) {
  using Json = nlohmann::ordered_json;
  Json shards = Json::array();
  for (const ShardReport& shard : report.shards) {
    Json json{{"path", shard.info.path}};
    if (!shard.error.empty()) {
      json["error"] = shard.error;
    } else {
      json["format"] = shard.info.format;
      json["split"] = shard.split;
      json["size_bytes"] = shard.info.size_bytes;
      json["tokens"] = shard.info.tokens;
      json["documents"] = shard.documents < 0 ? Json(nullptr) : Json(shard.documents);
      json["lowest_token"] = shard.lowest_token;
      json["highest_token"] = shard.highest_token;
      json["xxh3_128"] = shard.xxh3_128;
      json["hash_check"] = shard.hash_check;
      json["examples"] = shard.examples < 0 ? Json(nullptr) : Json(shard.examples);
      json["targets"] = shard.examples < 0 ? Json(nullptr) : Json(shard.targets);
      json["first_tokens"] = shard.first_tokens;
      json["first_text"] = shard.first_text;
    }
    shards.push_back(std::move(json));
  }
  const Json json{{"ok", report.ok},
                  {"directory", report.directory},
                  {"tokenizer", report.manifest.tokenizer},
                  {"vocabulary", report.manifest.vocabulary},
                  {"shards", std::move(shards)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string DataReportToText(const DataReport& report) {
  std::string text;
  if (report.has_manifest) {
    absl::StrAppend(&text, "tokenizer ", report.manifest.tokenizer, ", vocabulary ",
                    report.manifest.vocabulary, "\n");
  }
  int64_t tokens = 0;
  for (const ShardReport& shard : report.shards) {
    absl::StrAppend(&text, shard.info.path, "\n");
    if (!shard.error.empty()) {
      absl::StrAppend(&text, "  error      ", shard.error, "\n");
      continue;
    }
    tokens += shard.info.tokens;
    absl::StrAppend(&text, "  format     ", shard.info.format, shard.split.empty() ? "" : ", ", shard.split,
                    "\n");
    absl::StrAppend(&text, "  tokens     ", shard.info.tokens, ", ids ", shard.lowest_token, " to ",
                    shard.highest_token,
                    shard.documents < 0 ? "" : absl::StrCat(", ", shard.documents, " documents"), "\n");
    if (shard.examples >= 0) {
      absl::StrAppend(&text, "  mask       ", shard.examples, " examples, ", shard.targets, " targets\n");
    }
    absl::StrAppend(&text, "  xxh3-128   ", shard.xxh3_128, " (", shard.hash_check, ")\n");
    absl::StrAppend(&text, "  first ids ");
    for (const int32_t token : shard.first_tokens) absl::StrAppend(&text, " ", token);
    if (!shard.first_text.empty()) {
      absl::StrAppend(&text, "\n  first text \"", absl::Utf8SafeCEscape(shard.first_text), "\"");
    }
    absl::StrAppend(&text, "\n");
  }
  absl::StrAppend(&text, report.shards.size(), report.shards.size() == 1 ? " shard, " : " shards, ", tokens,
                  " tokens: ", report.ok ? "ok" : "NOT ok", "\n");
  return text;
}

}  // namespace accrue
