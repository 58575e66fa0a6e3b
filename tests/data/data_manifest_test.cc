#include "common/data/data_manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace accrue {
namespace {

using testing::HasSubstr;

DataManifest Example() {
  DataManifest manifest;
  manifest.tokenizer = "gpt2";
  manifest.tokenizer_directory = "tokenizer";
  manifest.vocabulary = 50257;
  manifest.end_of_document = 50256;
  manifest.shards.push_back({"train-00000.bin", "train", 1030, 3, 1, std::string(32, 'a'), "", ""});
  manifest.shards.push_back({"validation-00000.bin", "validation", 1032, 4, 2, std::string(32, 'b'),
                             "validation-00000.mask", std::string(32, 'c')});
  manifest.options_json = R"({"seed":1})";
  return manifest;
}

std::string ErrorOf(const std::string& json) {
  return std::string(DataManifestFromJson(json, "m.json").status().message());
}

// The example with one piece of its text replaced.
std::string With(const std::string& from, const std::string& to) {
  std::string json = DataManifestToJson(Example());
  const size_t at = json.find(from);
  EXPECT_NE(at, std::string::npos);
  return json.replace(at, from.size(), to);
}

TEST(DataManifestTest, FromJson_OfToJson_IsTheSame) {
  const auto manifest = DataManifestFromJson(DataManifestToJson(Example()), "m.json");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(DataManifestToJson(*manifest), DataManifestToJson(Example()));
  EXPECT_EQ(manifest->shards[1].mask_name, "validation-00000.mask");
  EXPECT_EQ(manifest->shards[0].tokens, 3);
}

TEST(DataManifestTest, FromJson_BadManifest_NamesTheField) {
  EXPECT_EQ(ErrorOf("{"), "m.json: expected a JSON object");
  EXPECT_EQ(ErrorOf("[]"), "m.json: expected an object");
  EXPECT_EQ(ErrorOf("{}"), "m.json: field \"format_version\" is missing, expected an integer");
  EXPECT_EQ(ErrorOf(With("\"format_version\": 1", "\"format_version\": 2")),
            "m.json: expected format_version 1, found 2");
  EXPECT_EQ(ErrorOf(With("\"tokens\": 3", "\"tokens\": \"3\"")),
            "m.json: shards[0]: field \"tokens\" is of another type, expected an integer");
  EXPECT_EQ(ErrorOf(With("\"tokens\": 4", "\"tokens\": -4")),
            "m.json: shards[1]: field \"tokens\" is negative");
  EXPECT_EQ(ErrorOf(With("train-00000.bin", "../train.bin")),
            "m.json: shards[0]: field \"name\" is \"../train.bin\", expected a plain file name");
  EXPECT_THAT(ErrorOf(With(std::string(32, 'a'), "abc")),
              HasSubstr("shards[0]: field \"xxh3_128\": expected a hash"));
  EXPECT_EQ(ErrorOf(With("\"shards\"", "\"shreds\"")),
            "m.json: field \"shards\" is missing, expected a list");
}

}  // namespace
}  // namespace accrue
