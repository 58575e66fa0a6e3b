#include "common/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "common/ids.h"

namespace accrue {
namespace {

TEST(FormatLogLineTest, Text_FieldsOfEveryKind_ArePlain) {
  const std::string name = "headers-1";
  EXPECT_EQ(FormatLogLine(LogFormat::kText, LogLevel::kWarning, "window committed",
                          {{"job", name},
                           {"window", 12},
                           {"loss", 3.25},
                           {"skipped", false},
                           {"epoch", Epoch(3)},
                           {"bytes", size_t{7}},
                           {"error", absl::NotFoundError("gone")}}),
            "warning window committed job=headers-1 window=12 loss=3.25 skipped=false epoch=3 bytes=7 error=gone");
}

TEST(FormatLogLineTest, Text_AmbiguousValue_IsQuoted) {
  EXPECT_EQ(FormatLogLine(LogFormat::kText, LogLevel::kInfo, "m", {{"a", "two words"}, {"b", ""}, {"c", "x=\"1\"\n"}}),
            R"(info m a="two words" b="" c="x=\"1\"\n")");
}

TEST(FormatLogLineTest, Json_AnyBytes_StaysOneValidLine) {
  EXPECT_EQ(FormatLogLine(LogFormat::kJson, LogLevel::kError, "a \"quoted\"\nthing",
                          {{"job", "j"}, {"window", 12}, {"loss", 0.5}, {"done", true}}),
            R"({"level":"error","message":"a \"quoted\"\nthing","job":"j","window":12,"loss":0.5,"done":true})");
  const std::string line = FormatLogLine(LogFormat::kJson, LogLevel::kInfo, "m", {{"bad", "\xff\xfe"}});
  EXPECT_EQ(line.find('\xff'), std::string::npos) << line;
}

TEST(FormatLogLineTest, Json_NotFinite_IsText) {
  EXPECT_EQ(FormatLogLine(LogFormat::kJson, LogLevel::kInfo, "m", {{"x", std::numeric_limits<double>::quiet_NaN()}}),
            R"({"level":"info","message":"m","x":"nan"})");
}

TEST(LogTest, Json_IsOneObjectWithTime) {
  SetUpLogging(LogLevel::kInfo, LogFormat::kJson);
  testing::internal::CaptureStderr();
  LogDebug("unseen");
  LogInfo("seen", {{"n", 1}});
  const std::string written = testing::internal::GetCapturedStderr();
  SetUpLogging(LogLevel::kInfo, LogFormat::kText);
  EXPECT_THAT(written, testing::MatchesRegex("\\{\"time\":\"[-0-9T:.]+Z\",\"level\":\"info\",\"message\":\"seen\",\"n\":1\\}\n"));
}

TEST(ParseLogLevelTest, Unknown_NamesTheAllowed) {
  EXPECT_EQ(*ParseLogLevel("warning"), LogLevel::kWarning);
  const absl::Status status = ParseLogLevel("loud").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), testing::HasSubstr("debug, info, warning or error"));
}

}  // namespace
}  // namespace accrue
