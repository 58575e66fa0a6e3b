// The byte and GPT-2 tokenizers, and Load.
#include "common/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "tests/data/data_testing.h"

namespace accrue {
namespace {

using data_testing::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kGolden[] = "tests/tokenizer/golden/";

std::string ReadGolden(const std::string& name) {
  auto contents = FileSystem::Real().ReadAll(kGolden + name, 1 << 20);
  EXPECT_TRUE(contents.ok()) << contents.status();
  return contents.value_or("");
}

std::unique_ptr<Tokenizer> Gpt2() {
  auto tokenizer = NewGpt2Tokenizer(ReadGolden("vocab.json"), ReadGolden("merges.txt"), "golden");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::string Gpt2Error(const std::string& vocabulary, const std::string& merges) {
  return std::string(NewGpt2Tokenizer(vocabulary, merges, "here").status().message());
}

TEST(ByteTokenizerTest, Encode_AnyBytes_GivesThemBack) {
  const auto tokenizer = NewByteTokenizer();
  std::string text;
  for (int i = 0; i < 256; ++i) text.push_back(static_cast<char>(i));
  const auto ids = tokenizer->Encode(text);
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(ids->size(), 256u);
  EXPECT_EQ((*ids)[200], 200);
  EXPECT_EQ(tokenizer->Decode(*ids), text);
  EXPECT_EQ(tokenizer->vocabulary_size(), 257);
  EXPECT_EQ(tokenizer->Decode({'a', tokenizer->end_of_document(), 'b'}), "ab");
}

// Expected ids come from another implementation: golden/make_gpt2_golden.py.
TEST(Gpt2TokenizerTest, Encode_HardTexts_GivesTheKnownIds) {
  const auto tokenizer = Gpt2();
  const auto encoder = tokenizer->NewEncoder();
  for (const auto& golden : nlohmann::json::parse(ReadGolden("encodings.json"))) {
    const std::string text = golden["text"];
    for (int time = 0; time < 2; ++time) {  // merged, then looked up
      std::vector<int32_t> ids;
      ASSERT_TRUE(encoder->Encode(text, &ids).ok());
      EXPECT_EQ(ids, golden["ids"].get<std::vector<int32_t>>()) << text;
      EXPECT_EQ(tokenizer->Decode(ids), text);
    }
  }
}

// The definition, quadratic: merge every occurrence of the pair of the lowest rank, until there is none.
TEST(Gpt2TokenizerTest, Encode_RandomWords_AgreesWithTheDefinition) {
  std::map<std::pair<std::string, std::string>, int> ranks;
  std::istringstream merges(ReadGolden("merges.txt"));
  std::string line;
  std::getline(merges, line);
  while (std::getline(merges, line)) {
    const size_t space = line.find(' ');
    ranks.emplace(std::pair(line.substr(0, space), line.substr(space + 1)), static_cast<int>(ranks.size()));
  }
  const nlohmann::json vocabulary = nlohmann::json::parse(ReadGolden("vocab.json"));
  const auto tokenizer = Gpt2();
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::string word;
    for (size_t i = 0, length = 1 + random() % 90; i < length; ++i)
      word.push_back("etaoinsrhl"[random() % 10]);
    std::vector<std::string> parts;
    for (const char c : word) parts.push_back(std::string(1, c));
    while (true) {
      std::pair<std::string, std::string> best;
      int best_rank = INT32_MAX;
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        const auto it = ranks.find({parts[i], parts[i + 1]});
        if (it != ranks.end() && it->second < best_rank) best = it->first, best_rank = it->second;
      }
      if (best_rank == INT32_MAX) break;
      std::vector<std::string> merged;
      for (size_t i = 0; i < parts.size(); ++i) {
        if (i + 1 < parts.size() && parts[i] == best.first && parts[i + 1] == best.second) {
          merged.push_back(best.first + best.second);
          ++i;
        } else {
          merged.push_back(parts[i]);
        }
      }
      parts = merged;
    }
    std::vector<int32_t> expected;
    for (const std::string& part : parts) expected.push_back(vocabulary[part]);
    EXPECT_EQ(*tokenizer->Encode(word), expected) << word;
  }
}

TEST(Gpt2TokenizerTest, Encode_InvalidUtf8_BecomesReplacementCharacters) {
  const auto tokenizer = Gpt2();
  EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode("a\xFFz")), "a\uFFFDz");
}

TEST(Gpt2TokenizerTest, Encode_TextOfTheSpecialToken_IsOrdinaryText) {
  const auto tokenizer = Gpt2();
  EXPECT_EQ(tokenizer->end_of_document(), tokenizer->vocabulary_size() - 1);
  EXPECT_THAT(*tokenizer->Encode("<|endoftext|>"),
              testing::Not(testing::Contains(tokenizer->end_of_document())));
  EXPECT_EQ(tokenizer->Decode({tokenizer->end_of_document()}), "<|endoftext|>");
}

TEST(Gpt2TokenizerTest, Encode_OneWordOfAMegabyte_IsNotQuadratic) {
  const auto tokenizer = Gpt2();
  const std::string word(1 << 20, 'e');
  EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode(word)), word);
}

TEST(Gpt2TokenizerTest, New_BadFiles_SayWhatWasExpected) {
  const std::string vocabulary = ReadGolden("vocab.json"), merges = ReadGolden("merges.txt");
  EXPECT_EQ(Gpt2Error("[", merges), "here: vocab.json: expected a JSON object of tokens and ids");
  EXPECT_EQ(Gpt2Error(R"({"a": "b"})", merges), "here: vocab.json: token \"a\" has no integer id");
  EXPECT_EQ(Gpt2Error(R"({"a": 1})", merges), "here: vocab.json: token \"a\" has id 1, expected 0 to 0");
  EXPECT_EQ(Gpt2Error(R"({"a": 1, "b": 1})", merges), "here: vocab.json: id 1 is given twice, to \"b\" too");
  EXPECT_THAT(Gpt2Error(R"({"a": 0})", merges), HasSubstr("vocab.json: byte 0 (\"\u0100\") has no id"));
  EXPECT_EQ(Gpt2Error(vocabulary, "#version: 0.2\na b c\n"),
            "here: merges.txt:2: expected two tokens and one space between them, found \"a b c\"");
  EXPECT_EQ(Gpt2Error(vocabulary, "q q\n"),
            "here: merges.txt:1: \"q q\" names or makes a token that vocab.json does not have");
}

TEST(TokenizerTest, Load_EveryKind_EncodesAsTheOneSaved) {
  const std::string text = "int window = 3;\n";
  std::vector<std::unique_ptr<Tokenizer>> tokenizers;
  tokenizers.push_back(NewByteTokenizer());
  tokenizers.push_back(Gpt2());
  for (const auto& tokenizer : tokenizers) {
    TemporaryFolder folder;
    for (const Tokenizer::File& file : tokenizer->Files()) folder.Write(file.name, file.contents);
    const auto loaded = Tokenizer::Load(FileSystem::Real(), folder.path());
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ((*loaded)->kind(), tokenizer->kind());
    EXPECT_EQ((*loaded)->vocabulary_size(), tokenizer->vocabulary_size());
    EXPECT_EQ(*(*loaded)->Encode(text), *tokenizer->Encode(text));
  }
}

TEST(TokenizerTest, Load_NothingOrSomethingElse_SaysWhatWasExpected) {
  TemporaryFolder folder;
  EXPECT_TRUE(absl::IsNotFound(Tokenizer::Load(FileSystem::Real(), folder.path()).status()));
  folder.Write("tokenizer.json", "{}");
  EXPECT_TRUE(absl::IsInvalidArgument(Tokenizer::Load(FileSystem::Real(), folder.path()).status()));
  folder.Write("tokenizer.model", "no model");
  const absl::Status status = Tokenizer::Load(FileSystem::Real(), folder.path()).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.model: expected a SentencePiece model"));
}

}  // namespace
}  // namespace accrue
