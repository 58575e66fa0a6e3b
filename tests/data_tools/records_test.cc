#include "common/data_tools/records.h"

#include <gtest/gtest.h>

namespace accrue {
namespace {

std::string Error(const std::string& line) {
  return std::string(ParseRecord(line, "f.jsonl:3").status().message());
}

constexpr char kExpected[] =
    "f.jsonl:3: expected an object with \"text\", or with \"prompt\" and \"completion\", each a string; "
    "found ";

TEST(RecordsTest, ParseRecord_GoodLines_GiveTheirStrings) {
  const auto text = ParseRecord(R"({"text": "a\nb", "id": 1})", "f");
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text->text, "a\nb");
  const auto pair = ParseRecord(R"({"completion": "c", "prompt": "p"})", "f");
  ASSERT_TRUE(pair.ok());
  EXPECT_EQ(pair->kind, RecordKind::kPromptCompletion);
  EXPECT_EQ(pair->prompt + pair->completion, "pc");
}

TEST(RecordsTest, ParseRecord_BadLines_SayWhereAndWhat) {
  EXPECT_EQ(Error("{\"text\": }"), "f.jsonl:3:10: expected a JSON object, found something that is not JSON");
  EXPECT_EQ(Error("{\"text\": \"\xFF\"}"),
            "f.jsonl:3:11: expected a JSON object, found something that is not JSON");
  EXPECT_EQ(Error("[1]"), std::string(kExpected) + "array");
  EXPECT_EQ(Error("{}"), std::string(kExpected) + "no \"text\"");
  EXPECT_EQ(Error(R"({"text": 5})"), std::string(kExpected) + "a \"text\" that is number");
  EXPECT_EQ(Error(R"({"prompt": "p"})"), std::string(kExpected) + "no \"completion\"");
  EXPECT_EQ(Error(R"({"prompt": "p", "completion": "c", "text": "t"})"),
            std::string(kExpected) + "\"text\" beside \"prompt\" or \"completion\"");
}

TEST(RecordsTest, IsBlank_WhiteSpaceOnly_IsTrue) {
  EXPECT_TRUE(IsBlank(""));
  EXPECT_TRUE(IsBlank(" \t\r"));
  EXPECT_FALSE(IsBlank(" x"));
}

}  // namespace
}  // namespace accrue
