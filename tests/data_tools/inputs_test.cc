#include "common/data_tools/inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/data/data_testing.h"

namespace accrue {
namespace {

using data_testing::TemporaryFolder;
using testing::ElementsAre;

std::vector<std::string> NamesOf(const InputOptions& options) {
  const auto plan = PlanInputs(FileSystem::Real(), options);
  EXPECT_TRUE(plan.ok()) << plan.status();
  std::vector<std::string> names;
  if (!plan.ok()) return names;
  for (const InputFile& file : plan->files) names.push_back(file.name);
  return names;
}

TEST(InputsTest, PlanInputs_Folder_TextFilesInOrderOfTheirNames) {
  TemporaryFolder folder;
  for (const char* name :
       {"in/b.h", "in/a/z.h", "in/a/c.txt", "in/.hidden", "in/.git/config", "in/out/manifest.json"}) {
    folder.Write(name, "text");
  }
  folder.Write("in/binary.h", std::string("a\0b", 3));
  folder.Write("in/late.h", std::string(8192, 'a') + '\0');  // text as far as one looks
  folder.Write("in/empty.h", "");
  std::filesystem::create_symlink(folder / "in/b.h", folder / "in/link.h");
  std::filesystem::create_directory_symlink(folder / "in", folder / "in/loop");
  InputOptions options{.inputs = {folder / "in"}, .exclude_directory = folder / "in/./out/"};
  EXPECT_THAT(NamesOf(options), ElementsAre("a/c.txt", "a/z.h", "b.h", "late.h"));
  options.include = {"*.h"};
  EXPECT_THAT(NamesOf(options), ElementsAre("a/z.h", "b.h", "late.h"));
  options.include = {"a/*"};
  EXPECT_THAT(NamesOf(options), ElementsAre("a/c.txt", "a/z.h"));
  options.include = {"?.h", "late*"};
  EXPECT_THAT(NamesOf(options), ElementsAre("a/z.h", "b.h", "late.h"));
  // A file that is named is read whatever it holds, in the order given.
  options = {.inputs = {folder / "in/b.h", folder / "in/binary.h", folder / "in/a"}};
  EXPECT_THAT(NamesOf(options), ElementsAre("b.h", "binary.h", "c.txt", "z.h"));
}

TEST(InputsTest, PlanInputs_AnyNumberOfThreads_SamePlan) {
  TemporaryFolder folder;
  for (int i = 0; i < 50; ++i) folder.Write("in/" + std::to_string(i), "text " + std::to_string(i));
  int64_t held_out = -1;
  for (const int threads : {1, 2, 7}) {
    const auto plan = PlanInputs(FileSystem::Real(), {.inputs = {folder / "in"}, .threads = threads});
    ASSERT_TRUE(plan.ok());
    EXPECT_EQ(plan->documents, 50);
    if (held_out < 0) held_out = plan->held_out;
    EXPECT_EQ(plan->held_out, held_out);
    EXPECT_EQ(plan->files[7].name, "15");
  }
}

TEST(InputsTest, PlanInputs_UnreadableFile_NamesIt) {
  TemporaryFolder folder;
  std::filesystem::create_directories(folder / "in");
  // A name that vanishes: a link is skipped in folders, but opened where it is named.
  std::filesystem::create_symlink(folder / "gone", folder / "in/gone.txt");
  const auto plan = PlanInputs(FileSystem::Real(), {.inputs = {folder / "in/gone.txt"}});
  EXPECT_TRUE(absl::IsNotFound(plan.status()));
  EXPECT_THAT(std::string(plan.status().message()), testing::HasSubstr("in/gone.txt"));
}

TEST(InputsTest, CutNear_LineFeedAfterText_CutsBeforeIt) {
  EXPECT_EQ(CutNear("abc\ndef\nghi", 1, 100), 3u);
  EXPECT_EQ(CutNear("abc\ndef\nghi", 3, 100), 3u);
  EXPECT_EQ(CutNear("abc\ndef\nghi", 4, 100), 7u);
  EXPECT_EQ(CutNear("abc \n\n x\ny", 1, 100), 8u);    // not after white space
  EXPECT_EQ(CutNear("caf\u00e9\nx\ny", 1, 100), 7u);  // nor after what may be white space
  EXPECT_EQ(CutNear("abcdef\n", 2, 3), 2u);           // none in reach
  EXPECT_EQ(CutNear("ab\u20acdef", 3, 2), 2u);        // never within a character
  EXPECT_EQ(CutNear("abc", 9, 2), 3u);
}

TEST(InputsTest, DocumentHash_SeedNameAndLine_AllCount) {
  const uint64_t hash = DocumentHash(1, "a", 2);
  EXPECT_EQ(DocumentHash(1, "a", 2), hash);
  EXPECT_NE(DocumentHash(2, "a", 2), hash);
  EXPECT_NE(DocumentHash(1, "b", 2), hash);
  EXPECT_NE(DocumentHash(1, "a", 3), hash);
}

}  // namespace
}  // namespace accrue
