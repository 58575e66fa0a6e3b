#include "common/data_tools/prepare_state.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/data/dataset.h"
#include "common/status.h"

namespace accrue {
namespace {

using Json = nlohmann::ordered_json;
constexpr size_t kStateLimitBytes = size_t{64} << 20;

bool FileHas(FileSystem& file_system, const std::string& path, const std::string& hash) {
  const auto found = HashFile(file_system, path);
  return found.ok() && *found == hash;
}

}  // namespace

absl::Status WritePrepareState(FileSystem& file_system, const std::string& directory,
                               const PrepareState& state) {
  Json ends = Json::array();
  for (const SplitPosition& end : state.ends) ends.push_back({end.item, end.tokens});
  const Json json{{"fingerprint", state.fingerprint},
                  {"tokenizer_hash", state.tokenizer_hash},
                  {"complete", state.complete},
                  {"ends", std::move(ends)},
                  {"manifest", Json::parse(DataManifestToJson(state.manifest))}};
  return file_system.WriteAtomically(JoinPath(directory, kPrepareStateName), json.dump(1) + "\n");
}

absl::StatusOr<PrepareState> ReadPrepareState(FileSystem& file_system, const std::string& directory) {
  const std::string path = JoinPath(directory, kPrepareStateName);
  ACCRUE_ASSIGN_OR_RETURN(const std::string text, file_system.ReadAll(path, kStateLimitBytes));
  const absl::Status damaged = absl::InvalidArgumentError(absl::StrCat(path, " is damaged"));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("manifest") || !json.contains("ends")) return damaged;
  const Json& ends = json["ends"];
  PrepareState state;
  ACCRUE_ASSIGN_OR_RETURN(state.manifest, DataManifestFromJson(json["manifest"].dump(), path));
  if (!ends.is_array() || ends.size() != state.manifest.shards.size()) return damaged;
  for (const Json& end : ends) {
    if (!end.is_array() || end.size() != 2 || !end[0].is_number_integer() || !end[1].is_number_integer())
      return damaged;
    state.ends.push_back({end[0].get<int64_t>(), end[1].get<int64_t>()});
  }
  const auto take = [&](const char* name, auto is_type, auto* out) {
    const auto it = json.find(name);
    if (it == json.end() || !is_type(*it)) return false;
    it->get_to(*out);
    return true;
  };
  const auto is_string = [](const Json& j) { return j.is_string(); };
  const auto is_boolean = [](const Json& j) { return j.is_boolean(); };
  if (!take("fingerprint", is_string, &state.fingerprint) ||
      !take("tokenizer_hash", is_string, &state.tokenizer_hash) ||
      !take("complete", is_boolean, &state.complete)) {
    return damaged;
  }
  return state;
}

void AddShard(PrepareState* state, const DataManifestShard& shard, SplitPosition end) {
  std::vector<DataManifestShard>& shards = state->manifest.shards;
  // "train" comes before "validation".
  const auto at = std::upper_bound(shards.begin(), shards.end(), shard,
                                   [](const auto& a, const auto& b) { return a.split < b.split; });
  state->ends.insert(state->ends.begin() + (at - shards.begin()), end);
  shards.insert(at, shard);
}

size_t DropUnverified(FileSystem& file_system, const std::string& directory, PrepareState* state) {
  std::vector<DataManifestShard> kept;
  std::vector<SplitPosition> ends;
  absl::flat_hash_set<std::string> broken_splits;
  for (size_t i = 0; i < state->manifest.shards.size(); ++i) {
    const DataManifestShard& shard = state->manifest.shards[i];
    const bool good = !broken_splits.contains(shard.split) &&
                      FileHas(file_system, JoinPath(directory, shard.name), shard.xxh3_128) &&
                      (shard.mask_name.empty() ||
                       FileHas(file_system, JoinPath(directory, shard.mask_name), shard.mask_xxh3_128));
    if (good) {
      kept.push_back(shard);
      ends.push_back(state->ends[i]);
    } else {
      broken_splits.insert(shard.split);
    }
  }
  const size_t dropped = state->manifest.shards.size() - kept.size();
  state->manifest.shards = std::move(kept);
  state->ends = std::move(ends);
  return dropped;
}

bool IsShardFileName(absl::string_view name) {
  absl::ConsumeSuffix(&name, ".partial");
  if (!absl::ConsumeSuffix(&name, ".bin") && !absl::ConsumeSuffix(&name, ".mask")) return false;
  if (!absl::ConsumePrefix(&name, "train-") && !absl::ConsumePrefix(&name, "validation-")) return false;
  if (name.size() < 5) return false;
  for (const char c : name) {
    if (c < '0' || c > '9') return false;
  }
  return true;
}

}  // namespace accrue
