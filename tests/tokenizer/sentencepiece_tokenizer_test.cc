// SentencePiece: training, and that words encoded one by one give what the library gives for the whole.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <sstream>

#include "common/file_system.h"
#include "common/tokenizer/sentencepiece_model.h"
#include "common/tokenizer/tokenizer.h"

namespace accrue {
namespace {

std::string Corpus() {
  auto text = FileSystem::Real().ReadAll("docs/numerics.md", 1 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

absl::StatusOr<std::string> Train(const std::string& text, int64_t vocabulary) {
  std::istringstream lines(text);
  return TrainSentencePiece([&](std::string* line) { return static_cast<bool>(std::getline(lines, *line)); }, vocabulary);
}

const std::string& Trained() {
  static const std::string* const model = new std::string(Train(Corpus(), 600).value());
  return *model;
}

TEST(SentencePieceTokenizerTest, Train_SameLines_GivesTheSameModel) {
  EXPECT_EQ(*Train(Corpus(), 600), Trained());
  EXPECT_NE(*Train(Corpus(), 500), Trained());
}

TEST(SentencePieceTokenizerTest, Train_TooLittleText_SaysSo) {
  EXPECT_TRUE(absl::IsInvalidArgument(Train("", 600).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Train("some text\n", 10).status()));
  // Fewer pieces than asked for, where the text has no more.
  const auto small = NewSentencePieceTokenizer(*Train("some text\n", 600), "small");
  ASSERT_TRUE(small.ok());
  EXPECT_LT((*small)->vocabulary_size(), 600);
  EXPECT_GE((*small)->vocabulary_size(), 256);
}

TEST(SentencePieceTokenizerTest, Decode_OfEncode_IsTheText) {
  const auto tokenizer = NewSentencePieceTokenizer(Trained(), "trained");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocabulary_size(), 600);
  EXPECT_EQ((*tokenizer)->end_of_document(), 2);
  for (const std::string text : {"", " ", "  two  spaces ", "int main() {\n\treturn 0;\n}\n", "\u65e5\u672c\u8a9e \U0001f600",
                                 "<s> </s> <unk> <0x41>"}) {
    EXPECT_EQ((*tokenizer)->Decode(*(*tokenizer)->Encode(text)), text);
  }
  EXPECT_EQ((*tokenizer)->Decode({(*tokenizer)->end_of_document()}), "");
}

TEST(SentencePieceTokenizerTest, Encode_WordByWord_AgreesWithTheLibrary) {
  std::string error;
  const auto library = SentencePieceModel::Load(Trained(), &error);
  ASSERT_NE(library, nullptr) << error;
  ASSERT_TRUE(library->words_are_independent());
  const auto tokenizer = NewSentencePieceTokenizer(Trained(), "trained");
  const auto encoder = (*tokenizer)->NewEncoder();
  const auto check = [&](const std::string& text) {
    std::vector<int32_t> expected, ids;
    ASSERT_TRUE(library->Encode(text, &expected, &error)) << error;
    ASSERT_TRUE(encoder->Encode(text, &ids).ok());
    ASSERT_EQ(ids, expected) << text;
  };
  check(Corpus());
  const std::vector<std::string> parts = {" ", " ", "  ", "\n", "\t", "\u2581", "the", "unit", "window", "a", ".", "\u00e9",
                                          "0", "=", "of the", std::string(1, '\0'), "\uFFFD"};
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (size_t i = 0, count = random() % 12; i < count; ++i) text += parts[random() % parts.size()];
    check(text);
  }
}

TEST(SentencePieceTokenizerTest, New_DamagedModels_AreRefusedOrLoaded) {
  std::mt19937 random(7);
  EXPECT_FALSE(NewSentencePieceTokenizer("", "empty").ok());
  for (int round = 0; round < 200; ++round) {
    std::string model = Trained();
    if (random() % 2 == 0) model.resize(random() % model.size());
    for (int i = 0; i < 3 && !model.empty(); ++i) model[random() % model.size()] = static_cast<char>(random());
    const auto tokenizer = NewSentencePieceTokenizer(model, "damaged");
    if (!tokenizer.ok()) continue;
    std::vector<int32_t> ids;
    (*tokenizer)->NewEncoder()->Encode("the window of a unit", &ids).IgnoreError();
  }
}

}  // namespace
}  // namespace accrue
