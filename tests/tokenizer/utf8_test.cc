#include "common/tokenizer/utf8.h"

#include <gtest/gtest.h>

namespace accrue {
namespace {

TEST(Utf8Test, IsValidUtf8_EdgesOfTheRanges_AreJudgedAsTheStandardSays) {
  for (const char* valid :
       {"", "plain ascii text longer than eight", "\x7f", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80",
        "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(IsValidUtf8(valid)) << valid;
    EXPECT_EQ(ReplaceInvalidUtf8(valid), valid);
  }
  for (const char* invalid :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xE2\x82",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "abcdefgh\xE2\x82"}) {
    EXPECT_FALSE(IsValidUtf8(invalid)) << invalid;
  }
}

TEST(Utf8Test, ReplaceInvalidUtf8_MaximalParts_BecomeOneReplacementEach) {
  EXPECT_EQ(ReplaceInvalidUtf8("a\xE2\x82z"), "a\xEF\xBF\xBDz");
  EXPECT_EQ(ReplaceInvalidUtf8("\xC0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\x98"), "\xEF\xBF\xBD");
}

TEST(Utf8Test, Utf8Boundary_InsideASequence_MovesBeforeIt) {
  const std::string text = "a\xE2\x82\xACz";  // the euro sign has bytes 1 to 3
  EXPECT_EQ(Utf8Boundary(text, 1), 1u);
  EXPECT_EQ(Utf8Boundary(text, 2), 1u);
  EXPECT_EQ(Utf8Boundary(text, 3), 1u);
  EXPECT_EQ(Utf8Boundary(text, 4), 4u);
  EXPECT_EQ(Utf8Boundary(text, 9), 5u);
  EXPECT_EQ(Utf8Boundary("\x80\x80\x80\x80", 2), 2u);
}

TEST(Utf8Test, AppendUtf8_EachLength_IsWellFormed) {
  std::string text;
  for (const char32_t c : {U'a', U'\u00e9', U'\u20ac', U'\U0001F600'}) AppendUtf8(c, &text);
  EXPECT_EQ(text, "a\u00e9\u20ac\U0001F600");
}

}  // namespace
}  // namespace accrue
