#include "common/data_tools/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/data_tools/prepare_testing.h"

namespace accrue {
namespace {

using data_testing::LlmcBytes;
using data_testing::OptionsFor;
using data_testing::TemporaryFolder;
using testing::HasSubstr;

class InspectTest : public testing::Test {
 protected:
  void PrepareExamples() {
    data_testing::WriteExamples(folder_, 30);
    const auto report = PrepareData(FileSystem::Real(), OptionsFor(folder_, "out"), PrepareHooks());
    ASSERT_TRUE(report.ok()) << report.status();
  }
  DataReport Inspect(const std::string& name) {
    const auto report = InspectData(FileSystem::Real(), folder_ / name, 4);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(DataReport{});
  }

  TemporaryFolder folder_;
};

TEST_F(InspectTest, InspectData_PreparedFolder_ChecksAndDecodes) {
  PrepareExamples();
  const DataReport report = Inspect("out");
  EXPECT_TRUE(report.ok);
  ASSERT_GE(report.shards.size(), 2u);
  int64_t examples = 0;
  for (const ShardReport& shard : report.shards) {
    EXPECT_EQ(shard.error, "");
    EXPECT_EQ(shard.hash_check, "ok");
    EXPECT_EQ(shard.examples, shard.documents);
    examples += shard.examples;
  }
  EXPECT_EQ(examples, 30);
  const ShardReport& first = report.shards[0];
  EXPECT_EQ(first.split, "train");
  EXPECT_EQ(first.lowest_token, ' ');
  EXPECT_EQ(first.highest_token, 256);
  EXPECT_EQ(first.first_text, "ques");
  EXPECT_GT(first.targets, 0);
  EXPECT_LT(first.targets, first.info.tokens);
  const auto json = nlohmann::json::parse(DataReportToJson(report));
  EXPECT_EQ(json["shards"][0]["tokens"], first.info.tokens);
  EXPECT_EQ(json["ok"], true);
  EXPECT_THAT(DataReportToText(report), HasSubstr("first text \"ques\""));
  // The manifest and a single shard give the same.
  EXPECT_EQ(DataReportToJson(Inspect("out/manifest.json")), DataReportToJson(report));
  EXPECT_EQ(Inspect("out/train-00000.bin").shards[0].hash_check, "ok");
}

TEST_F(InspectTest, InspectData_DamagedShards_ReportsEach) {
  PrepareExamples();
  std::string bytes = folder_.Read("out/train-00000.bin");
  bytes.back() ^= 1;
  folder_.Write("out/train-00000.bin", bytes);
  folder_.Write("out/validation-00000.bin", "short");
  const DataReport report = Inspect("out");
  EXPECT_FALSE(report.ok);
  EXPECT_EQ(report.shards.front().hash_check, "differs from the manifest");
  EXPECT_THAT(report.shards.back().error,
              HasSubstr("expected a token shard of at least 1024 bytes, found 5"));
  EXPECT_THAT(DataReportToText(report), HasSubstr("NOT ok"));
  EXPECT_EQ(nlohmann::json::parse(DataReportToJson(report))["ok"], false);
}

TEST_F(InspectTest, InspectData_FolderWithoutManifest_LooksAtShards) {
  folder_.Write("data/a.bin", LlmcBytes({5, 3, 9}));
  folder_.Write("data/b.bin", LlmcBytes({}, 4));
  const DataReport report = Inspect("data");
  ASSERT_EQ(report.shards.size(), 2u);
  EXPECT_EQ(report.shards[0].lowest_token, 3);
  EXPECT_EQ(report.shards[0].highest_token, 9);
  EXPECT_EQ(report.shards[0].hash_check, "no manifest");
  EXPECT_EQ(report.shards[1].info.format, "llm.c v7 uint32");
  EXPECT_EQ(report.shards[1].documents, -1);
}

TEST_F(InspectTest, InspectData_Nothing_SaysWhatWasExpected) {
  EXPECT_TRUE(absl::IsNotFound(InspectData(FileSystem::Real(), folder_ / "none", 4).status()));
  std::filesystem::create_directories(folder_ / "empty");
  const auto status = InspectData(FileSystem::Real(), folder_ / "empty", 4).status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected manifest.json or token shards (*.bin)"));
}

}  // namespace
}  // namespace accrue
