#include "common/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/file_system.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class DaemonOptionsTest : public testing::Test {
 protected:
  DaemonOptionsTest() : options_("accrued", "Coordinates.") {
    options_.app().add_option("--listen", listen_);
    options_.app().add_option("--data-root", roots_);
    options_.app().add_option("--threads", threads_);
  }

  std::optional<int> Parse(std::vector<std::string> arguments) {
    std::vector<const char*> argv = {"accrued"};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
    const std::optional<int> result = options_.Parse(static_cast<int>(argv.size()), argv.data());
    error_ = testing::internal::GetCapturedStderr();
    output_ = testing::internal::GetCapturedStdout();
    return result;
  }

  std::string File(const std::string& contents) {
    const std::string path = testing::TempDir() + "/accrued_options_" +
                             testing::UnitTest::GetInstance()->current_test_info()->name() + ".yaml";
    EXPECT_TRUE(FileSystem::Real().WriteAtomically(path, contents).ok());
    return path;
  }

  DaemonOptions options_;
  std::string listen_ = "default", error_, output_;
  std::vector<std::string> roots_;
  int threads_ = 0;
};

TEST_F(DaemonOptionsTest, Parse_Nothing_KeepsDefaults) {
  EXPECT_EQ(Parse({}), std::nullopt);
  EXPECT_EQ(listen_, "default");
}

TEST_F(DaemonOptionsTest, Parse_File_FillsOptions) {
  EXPECT_EQ(Parse({"--config", File("# comment\nlisten: 127.0.0.1:1\ndata-root: [/a, /b c]\nthreads: 3\n")}),
            std::nullopt)
      << error_;
  EXPECT_EQ(listen_, "127.0.0.1:1");
  EXPECT_THAT(roots_, ElementsAre("/a", "/b c"));
  EXPECT_EQ(threads_, 3);
}

TEST_F(DaemonOptionsTest, Parse_FlagAndFile_FlagWins) {
  EXPECT_EQ(Parse({"--listen", "flag", "--config", File("listen: file\nthreads: 2\n")}), std::nullopt) << error_;
  EXPECT_EQ(listen_, "flag");
  EXPECT_EQ(threads_, 2);
}

TEST_F(DaemonOptionsTest, Parse_UnknownKey_NamesPlaceAndKnown) {
  const std::string path = File("threads: 1\nlisen: x\n");
  EXPECT_EQ(Parse({"--config", path}), kUsageExitCode);
  EXPECT_THAT(error_, HasSubstr(path + ":2:1: unknown option \"lisen\""));
  EXPECT_THAT(error_, HasSubstr("listen"));
}

TEST_F(DaemonOptionsTest, Parse_BrokenFile_NamesPlace) {
  const std::string path = File("listen: [a\nb: c\n");
  EXPECT_EQ(Parse({"--config", path}), kUsageExitCode);
  EXPECT_THAT(error_, HasSubstr(path + ":2:"));
  EXPECT_EQ(Parse({"--config", File("listen: {a: b}\n")}), kUsageExitCode);
  EXPECT_EQ(Parse({"--config", File("listen: a\nlisten: b\n")}), kUsageExitCode);
  EXPECT_THAT(error_, HasSubstr("twice"));
}

TEST_F(DaemonOptionsTest, Parse_MissingFile_Fails) {
  EXPECT_EQ(Parse({"--config", "/nonexistent/accrued.yaml"}), kUsageExitCode);
  EXPECT_THAT(error_, HasSubstr("/nonexistent/accrued.yaml"));
}

TEST_F(DaemonOptionsTest, Parse_BadValueOrFlag_IsUsageError) {
  EXPECT_EQ(Parse({"--threads", "many"}), kUsageExitCode);
  EXPECT_THAT(error_, HasSubstr("threads"));
  EXPECT_EQ(Parse({"--no-such"}), kUsageExitCode);
  EXPECT_EQ(Parse({"--log-level", "loud"}), kUsageExitCode);
  EXPECT_EQ(Parse({"--log-format", "xml"}), kUsageExitCode);
}

TEST_F(DaemonOptionsTest, Parse_Version_PrintsAndExitsZero) {
  EXPECT_EQ(Parse({"--version"}), 0);
  EXPECT_THAT(output_, HasSubstr("accrued 0."));
}

}  // namespace
}  // namespace accrue
