// SentencePiece models: that ids and texts are those of the SentencePiece library, for models that it trained
// and for ours, and that ours are deterministic.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <sstream>

#include "absl/strings/str_split.h"
#include "common/file_system.h"
#include "common/tokenizer/sentencepiece_model.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/tokenizer/reference_sentencepiece.h"

namespace accrue {
namespace {

using testing::HasSubstr;

const std::string& Corpus() {
  static const std::string* const corpus = [] {
    auto text = FileSystem::Real().ReadAll("docs/numerics.md", 1 << 20);
    EXPECT_TRUE(text.ok()) << text.status();
    return new std::string(
        text.value_or("") +
        "caf\u00e9 na\u00efve \u00e9t\u00e9\n\u65e5\u672c\u8a9e \u65e5\u672c\n\ttabs\t\tx\n");
  }();
  return *corpus;
}

std::vector<std::string> Lines() { return absl::StrSplit(Corpus(), '\n'); }

absl::StatusOr<std::string> Train(const std::string& text, int64_t vocabulary) {
  std::istringstream lines(text);
  return TrainSentencePiece([&](std::string* line) { return static_cast<bool>(std::getline(lines, *line)); },
                            vocabulary);
}

const std::string& Trained() {
  static const std::string* const model = new std::string(Train(Corpus(), 700).value());
  return *model;
}

std::unique_ptr<Tokenizer> Load(const std::string& model) {
  auto tokenizer = NewSentencePieceTokenizer(model, "model");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

// The same ids and texts as the library, for the corpus and for texts put together at random.
void ExpectAgreesWithLibrary(const std::string& model) {
  const auto library = reference::SentencePiece::Load(model);
  ASSERT_NE(library, nullptr);
  const auto tokenizer = Load(model);
  ASSERT_NE(tokenizer, nullptr);
  ASSERT_EQ(tokenizer->vocabulary_size(), library->size());
  const auto encoder = tokenizer->NewEncoder();
  const auto check = [&](const std::string& text) {
    const std::vector<int> expected = library->Encode(text);
    std::vector<int32_t> ids;
    ASSERT_TRUE(encoder->Encode(text, &ids).ok());
    ASSERT_EQ(ids, expected) << "text \"" << text << "\"";
    ASSERT_EQ(tokenizer->Decode(ids), library->Decode(expected)) << "text \"" << text << "\"";
  };
  check(Corpus());
  const std::vector<std::string> parts = {" ",
                                          " ",
                                          "  ",
                                          "\n",
                                          "\t",
                                          "\u2581",
                                          "the",
                                          "unit",
                                          "window",
                                          "a",
                                          ".",
                                          "\u00e9",
                                          "0",
                                          "12",
                                          "=",
                                          "of the",
                                          std::string(1, '\0'),
                                          "\uFFFD",
                                          "\xFF",
                                          "\xE2\x82",
                                          "\u00bd",
                                          "\uFF21",
                                          "\u3000",
                                          "\u00a0",
                                          "\u65e5\u672c",
                                          "\U0001F600",
                                          "<s>",
                                          "</s>",
                                          "<unk>",
                                          "<0x41>",
                                          "<user>",
                                          "order",
                                          "s"};
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (size_t i = 0, count = random() % 12; i < count; ++i) text += parts[random() % parts.size()];
    check(text);
  }
}

TEST(SentencePieceTokenizerTest, Encode_OwnModel_AgreesWithTheLibrary) { ExpectAgreesWithLibrary(Trained()); }

TEST(SentencePieceTokenizerTest, Encode_ModelsOfTheLibrary_AgreesWithTheLibrary) {
  using Options = std::unordered_map<std::string, std::string>;
  const std::vector<Options> kinds = {
      {{"model_type", "bpe"}},
      {{"model_type", "unigram"}},
      {{"model_type", "bpe"},
       {"byte_fallback", "true"},
       {"normalization_rule_name", "identity"},
       {"remove_extra_whitespaces", "false"}},  // Llama 2's
      {{"model_type", "unigram"}, {"byte_fallback", "true"}, {"user_defined_symbols", "<user>,unit"}},
      {{"model_type", "bpe"}, {"user_defined_symbols", "<user>,unit"}, {"split_by_whitespace", "false"}},
      {{"model_type", "bpe"}, {"treat_whitespace_as_suffix", "true"}, {"normalization_rule_name", "nfkc_cf"}},
      {{"model_type", "unigram"}, {"treat_whitespace_as_suffix", "true"}, {"add_dummy_prefix", "false"}},
  };
  for (const Options& kind : kinds) {
    Options options = kind;
    options["vocab_size"] = "500";
    options["hard_vocab_limit"] = "false";
    options["max_sentence_length"] = "65536";
    const std::string model = reference::SentencePiece::Train(Lines(), options);
    ASSERT_FALSE(model.empty());
    ExpectAgreesWithLibrary(model);
    if (HasFatalFailure()) {
      for (const auto& [name, value] : kind) ADD_FAILURE() << name << " = " << value;
      return;
    }
  }
}

TEST(SentencePieceTokenizerTest, EncodePart_CutBeforeALineFeed_GivesTheIdsOfTheWhole) {
  const std::string llama = reference::SentencePiece::Train(Lines(), {{"model_type", "bpe"},
                                                                      {"byte_fallback", "true"},
                                                                      {"normalization_rule_name", "identity"},
                                                                      {"remove_extra_whitespaces", "false"},
                                                                      {"vocab_size", "700"}});
  for (const std::string& model : {Trained(), llama}) {
    const auto tokenizer = Load(model);
    const std::string first = "of the unit", second = "\n  and the window";
    std::vector<int32_t> parts;
    const auto encoder = tokenizer->NewEncoder();
    ASSERT_TRUE(encoder->EncodePart(first, false, &parts).ok());
    ASSERT_TRUE(encoder->EncodePart(second, true, &parts).ok());
    EXPECT_EQ(parts, *tokenizer->Encode(first + second));
  }
}

TEST(SentencePieceTokenizerTest, Train_SameLines_GivesTheSameModel) {
  EXPECT_EQ(*Train(Corpus(), 700), Trained());
  EXPECT_NE(*Train(Corpus(), 650), Trained());
  EXPECT_EQ(Load(Trained())->vocabulary_size(), 700);
}

// The definition, counting every pair anew for every merge.
TEST(SentencePieceTokenizerTest, Train_SmallText_MergesTheMostFrequentPairs) {
  // "aaab" x 3, "ab" x 2: pairs aa 6, ab 5, then (aa)a 3 and ab 5 -> ab, then aa+ab 3.
  const auto model = SentencePieceModel::Parse(*Train("aaab\naaab\naaab\nab\nab\n", 264), "small");
  ASSERT_TRUE(model.ok()) << model.status();
  std::vector<std::string> texts;
  for (size_t i = 259; i < model->pieces.size(); ++i) texts.push_back(model->pieces[i].text);
  EXPECT_THAT(texts, testing::ElementsAre("aa", "ab", "aaab", "a", "b"));
}

TEST(SentencePieceTokenizerTest, Train_TooLittleText_SaysSo) {
  EXPECT_EQ(Train("", 600).status().message(),
            "cannot train a SentencePiece model of 600 pieces: there is no text to train on");
  EXPECT_EQ(Train("ab\n", 260).status().message(),
            "cannot train a SentencePiece model of 260 pieces: its characters and bytes alone are 261; ask "
            "for more");
  // Fewer pieces than asked for, where the text has no more.
  EXPECT_LT(Load(*Train("some text\n", 600))->vocabulary_size(), 600);
}

TEST(SentencePieceTokenizerTest, Decode_OfEncode_IsTheText) {
  const auto tokenizer = Load(Trained());
  EXPECT_EQ(tokenizer->end_of_document(), 2);
  for (const std::string text : {"", " ", "  two  spaces ", "int main() {\n\treturn 0;\n}\n",
                                 "\u65e5\u672c\u8a9e \U0001f600", "<s> </s> <unk> <0x41>"}) {
    EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode(text)), text);
  }
  EXPECT_EQ(tokenizer->Decode({tokenizer->end_of_document()}), "");
}

TEST(SentencePieceTokenizerTest, New_ContradictoryModels_AreRefused) {
  using Type = SentencePieceModel::Type;
  const auto error = [](const SentencePieceModel& model) {
    return std::string(NewSentencePieceTokenizer(model.Serialize(), "m").status().message());
  };
  SentencePieceModel model;
  EXPECT_EQ(error(model), "m: expected a SentencePiece model, found other bytes");
  model.pieces = {{"<unk>", 0, Type::kUnknown}, {"a", 0, Type::kNormal}};
  EXPECT_EQ(error(model), "");
  model.byte_fallback = true;
  EXPECT_EQ(error(model), "m: expected a piece for each of 256 bytes, found 0");
  model.byte_fallback = false;
  model.character_map = std::string("\xFF\xFF\0\0", 4) + "1234";
  EXPECT_EQ(error(model), "m: the normaliser's character map of 8 bytes says that its trie has 65535");
  model.character_map.clear();
  model.pieces.push_back({"a", 0, Type::kNormal});
  EXPECT_EQ(error(model), "m: the piece \"a\" is there twice");
  model.pieces.back() = {"<0xZZ>", 0, Type::kByte};
  EXPECT_EQ(error(model), "m: the piece \"<0xZZ>\" stands for no byte");
  model.pieces.back() = {"<u>", 0, Type::kUnknown};
  EXPECT_EQ(error(model), "m: expected one piece for the unknown, found 2");
  model.pieces.back() = {"b", std::numeric_limits<float>::quiet_NaN(), Type::kNormal};
  EXPECT_EQ(error(model), "m: expected a SentencePiece model, found other bytes");
  model.pieces.pop_back();
  model.algorithm = static_cast<SentencePieceModel::Algorithm>(4);
  EXPECT_EQ(error(model), "m: expected a unigram (1) or BPE (2) model, found model type 4");
}

TEST(SentencePieceTokenizerTest, New_DamagedModels_AreRefusedOrLoaded) {
  const std::string library =
      reference::SentencePiece::Train(Lines(), {{"model_type", "unigram"}, {"vocab_size", "300"}});
  std::mt19937 random(7);
  for (const std::string& good : {Trained(), library}) {
    for (int round = 0; round < 300; ++round) {
      std::string model = good;
      if (random() % 2 == 0) model.resize(random() % model.size());
      for (int i = 0; i < 3 && !model.empty(); ++i)
        model[random() % model.size()] = static_cast<char>(random());
      const auto tokenizer = NewSentencePieceTokenizer(model, "damaged");
      if (!tokenizer.ok()) continue;
      std::vector<int32_t> ids;
      (*tokenizer)->NewEncoder()->Encode("the window of a unit \u00bd\u3000", &ids).IgnoreError();
      (*tokenizer)->Decode(ids);
    }
  }
}

}  // namespace
}  // namespace accrue
