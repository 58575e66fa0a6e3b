#include "common/tokenizer/sentencepiece_json.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace accrue {
namespace {

using Json = nlohmann::ordered_json;
using Type = SentencePieceModel::Type;

bool IsCharacterBoundary(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

// Of every pair of pieces that make a third one.
Json Merges(const SentencePieceModel& model) {
  absl::flat_hash_map<absl::string_view, int32_t> ids;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    if (model.pieces[i].type == Type::kNormal) ids.emplace(model.pieces[i].text, static_cast<int32_t>(i));
  }
  struct Merge {
    float score;
    int32_t whole, left, right;
  };
  std::vector<Merge> merges;
  for (const auto& [text, whole] : ids) {
    for (size_t cut = 1; cut < text.size(); ++cut) {
      if (!IsCharacterBoundary(text[cut])) continue;
      const auto left = ids.find(text.substr(0, cut)), right = ids.find(text.substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      merges.push_back({model.pieces[static_cast<size_t>(whole)].score, whole, left->second, right->second});
    }
  }
  std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tuple(-a.score, a.whole, a.left, a.right) < std::tuple(-b.score, b.whole, b.left, b.right);
  });
  const auto text = [&](int32_t id) -> const std::string& {
    return model.pieces[static_cast<size_t>(id)].text;
  };
  Json list = Json::array();
  for (const Merge& merge : merges) {
    list.push_back(Json::array({text(merge.left), text(merge.right)}));
  }
  return list;
}

Json AddedTokens(const SentencePieceModel& model) {
  Json tokens = Json::array();
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    const Type type = model.pieces[i].type;
    if (type != Type::kControl && type != Type::kUnknown && type != Type::kUserDefined) continue;
    Json token;
    token["id"] = i;
    token["content"] = model.pieces[i].text;
    for (const char* never : {"single_word", "lstrip", "rstrip", "normalized"}) token[never] = false;
    token["special"] = type != Type::kUserDefined;
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

std::optional<std::string> SentencePieceToJson(const SentencePieceModel& model) {
  if (model.algorithm != SentencePieceModel::Algorithm::kBpe || !model.character_map.empty() ||
      model.remove_extra_whitespaces || !model.escape_whitespaces || model.whitespace_as_suffix) {
    return std::nullopt;
  }
  Json vocabulary = Json::object();
  std::string unknown;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    vocabulary[model.pieces[i].text] = i;
    if (model.pieces[i].type == Type::kUnknown) unknown = model.pieces[i].text;
  }
  Json prepend, replace, restore, bytes, fuse, strip;
  prepend["type"] = "Prepend";
  prepend["prepend"] = std::string(kSpaceSymbol);
  replace["type"] = "Replace";
  replace["pattern"]["String"] = " ";
  replace["content"] = std::string(kSpaceSymbol);
  restore["type"] = "Replace";
  restore["pattern"]["String"] = std::string(kSpaceSymbol);
  restore["content"] = " ";
  bytes["type"] = "ByteFallback";
  fuse["type"] = "Fuse";
  strip["type"] = "Strip";
  strip["content"] = " ";
  strip["start"] = 1;
  strip["stop"] = 0;
  Json normalizers = model.add_dummy_prefix ? Json::array({prepend, replace}) : Json::array({replace});
  Json decoders = Json::array({restore, bytes, fuse});
  if (model.add_dummy_prefix) decoders.push_back(strip);
  const Json tokenizer{{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", AddedTokens(model)},
                       {"normalizer", {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}}},
                       {"pre_tokenizer", nullptr},
                       {"post_processor", nullptr},
                       {"decoder", {{"type", "Sequence"}, {"decoders", std::move(decoders)}}},
                       {"model",
                        {{"type", "BPE"},
                         {"dropout", nullptr},
                         {"unk_token", unknown},
                         {"continuing_subword_prefix", nullptr},
                         {"end_of_word_suffix", nullptr},
                         {"fuse_unk", true},
                         {"byte_fallback", model.byte_fallback},
                         {"vocab", std::move(vocabulary)},
                         {"merges", Merges(model)}}}};
  return tokenizer.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace accrue
