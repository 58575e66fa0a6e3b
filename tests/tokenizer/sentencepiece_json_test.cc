// tokenizer.json of a SentencePiece model, read the way that Hugging Face's tokenizers library describes: merges by rank.
#include "common/tokenizer/sentencepiece_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <climits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/file_system.h"
#include "common/tokenizer/tokenizer.h"

namespace accrue {
namespace {

using testing::Contains;

SentencePieceModel Trained() {
  const std::string text = FileSystem::Real().ReadAll("docs/numerics.md", 1 << 20).value();
  std::istringstream lines(text);
  const std::string bytes =
      TrainSentencePiece([&](std::string* line) { return static_cast<bool>(std::getline(lines, *line)); }, 700).value();
  return SentencePieceModel::Parse(bytes, "model").value();
}

// What the file says, applied: the pair of least rank is merged first, the leftmost of equals; what no token is for is
// spelled in bytes.
class MergesByRank {
 public:
  explicit MergesByRank(const nlohmann::json& json) : vocabulary_(json["model"]["vocab"]) {
    int rank = 0;
    for (const auto& merge : json["model"]["merges"]) ranks_.emplace(std::pair(merge[0], merge[1]), rank++);
    space_ = json["normalizer"]["normalizers"].back()["content"];
  }

  std::vector<int32_t> Encode(const std::string& text) const {
    std::vector<std::string> parts;
    for (const char byte : absl::StrReplaceAll(text, {{" ", space_}})) {
      if ((static_cast<unsigned char>(byte) & 0xC0) != 0x80) parts.emplace_back();
      parts.back() += byte;
    }
    while (true) {
      size_t best = 0;
      int rank = INT_MAX;
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        const auto found = ranks_.find({parts[i], parts[i + 1]});
        if (found == ranks_.end() || found->second >= rank) continue;
        rank = found->second;
        best = i;
      }
      if (rank == INT_MAX) break;
      parts[best] += parts[best + 1];
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    std::vector<int32_t> ids;
    for (const std::string& part : parts) {
      if (vocabulary_.contains(part)) {
        ids.push_back(vocabulary_[part]);
        continue;
      }
      for (const char byte : part) ids.push_back(vocabulary_[absl::StrFormat("<0x%02X>", static_cast<unsigned char>(byte))]);
    }
    return ids;
  }

 private:
  std::map<std::pair<std::string, std::string>, int> ranks_;
  nlohmann::json vocabulary_;
  std::string space_;
};

TEST(SentencePieceJsonTest, MergesByRank_GiveTheSameIds) {
  const SentencePieceModel model = Trained();
  const auto tokenizer = NewSentencePieceTokenizer(model.Serialize(), "model").value();
  const auto encoder = tokenizer->NewEncoder();
  const MergesByRank theirs(nlohmann::json::parse(SentencePieceToJson(model).value()));
  const std::string text = FileSystem::Real().ReadAll("docs/recovery.md", 1 << 20).value();
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  lines.push_back("  spaces   and\ttabs \u65e5\u672c na\u00efve ");
  for (const std::string& line : lines) {
    std::vector<int32_t> ids;
    ASSERT_TRUE(encoder->Encode(line, &ids).ok());
    ASSERT_EQ(theirs.Encode(line), ids) << line;
  }
}

TEST(SentencePieceJsonTest, Specials_AreAddedTokens) {
  const nlohmann::json json = nlohmann::json::parse(SentencePieceToJson(Trained()).value());
  std::map<std::string, int> specials;
  for (const auto& token : json["added_tokens"]) {
    EXPECT_TRUE(token["special"]);
    specials[token["content"]] = token["id"];
  }
  EXPECT_EQ(specials, (std::map<std::string, int>{{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}}));
}

TEST(SentencePieceJsonTest, DummyPrefix_PutBeforeAndTakenAwayAgain) {
  SentencePieceModel model = Trained();
  model.add_dummy_prefix = true;
  const nlohmann::json json = nlohmann::json::parse(SentencePieceToJson(model).value());
  EXPECT_EQ(json["normalizer"]["normalizers"][0]["type"], "Prepend");
  EXPECT_EQ(json["decoder"]["decoders"].back()["type"], "Strip");
}

TEST(SentencePieceJsonTest, WhatItCannotSay_IsLeftOut) {
  for (const auto& change : std::vector<void (*)(SentencePieceModel&)>{
           [](SentencePieceModel& m) { m.algorithm = SentencePieceModel::Algorithm::kUnigram; },
           [](SentencePieceModel& m) { m.character_map = "map"; },
           [](SentencePieceModel& m) { m.remove_extra_whitespaces = true; },
           [](SentencePieceModel& m) { m.escape_whitespaces = false; },
           [](SentencePieceModel& m) { m.whitespace_as_suffix = true; }}) {
    SentencePieceModel model = Trained();
    change(model);
    EXPECT_EQ(SentencePieceToJson(model), std::nullopt);
  }
}

TEST(SentencePieceJsonTest, Files_HaveIt) {
  std::vector<std::string> names;
  for (const auto& file : NewSentencePieceTokenizer(Trained().Serialize(), "model").value()->Files()) {
    names.push_back(file.name);
  }
  EXPECT_THAT(names, Contains("tokenizer.json"));
  EXPECT_THAT(names, Contains("tokenizer.model"));
}

}  // namespace
}  // namespace accrue
