#include "common/file_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/checkpoint/faulty_file_system.h"
#include "tests/checkpoint/temporary_folder.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class FileSystemTest : public testing::Test {
 protected:
  void Put(const std::string& name, const std::string& contents) {
    auto file = files_.Create(folder_.File(name));
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE((*file)->Append(contents.data(), contents.size()).ok());
    ASSERT_TRUE((*file)->Close().ok());
  }
  std::string Get(const std::string& name) {
    return files_.ReadAll(folder_.File(name), 1 << 20).value_or("(none)");
  }

  FileSystem& files_ = FileSystem::Real();
  TemporaryFolder folder_;
};

TEST_F(FileSystemTest, Create_OverAFile_TruncatesIt) {
  Put("a", "a longer text");
  Put("a", "short");
  EXPECT_EQ(Get("a"), "short");
}

TEST_F(FileSystemTest, OpenForAppend_OfAFileOrNone_AddsAtTheEnd) {
  for (const char* part : {"one ", "two"}) {
    auto file = files_.OpenForAppend(folder_.File("a"));
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE((*file)->Append(part, std::string(part).size()).ok());
    ASSERT_TRUE((*file)->Sync().ok());
    ASSERT_TRUE((*file)->Close().ok());
  }
  EXPECT_EQ(Get("a"), "one two");
}

TEST_F(FileSystemTest, Create_InNoFolder_NamesThePath) {
  const auto file = files_.Create(folder_.File("none/a"));
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(folder_.File("none/a")));
}

TEST_F(FileSystemTest, Append_OnAFullDevice_IsResourceExhausted) {
  if (!files_.Exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  auto file = files_.Create("/dev/full");
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Status status = (*file)->Append("x", 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/dev/full"));
}

TEST_F(FileSystemTest, Map_OfAFile_ShowsItsBytes) {
  Put("a", "bytes");
  Put("empty", "");
  const auto file = files_.Map(folder_.File("a"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>((*file)->data()), (*file)->size_bytes()), "bytes");
  const auto empty = files_.Map(folder_.File("empty"));
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ((*empty)->size_bytes(), 0u);
  EXPECT_EQ(files_.Map(folder_.File("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(files_.Map(folder_.path()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(FileSystemTest, ReadAll_BeyondItsLimit_IsResourceExhausted) {
  Put("a", "12345");
  EXPECT_EQ(*files_.ReadAll(folder_.File("a"), 5), "12345");
  EXPECT_EQ(files_.ReadAll(folder_.File("a"), 4).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(files_.ReadAll(folder_.File("b"), 4).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(FileSystemTest, Queries_OfFilesAndFolders_Answer) {
  Put("b", "12");
  Put("a", "");
  ASSERT_TRUE(files_.CreateDirectories(folder_.File("c/d")).ok());
  ASSERT_TRUE(files_.CreateDirectories(folder_.File("c/d")).ok());
  EXPECT_EQ(*files_.SizeBytes(folder_.File("b")), 2u);
  EXPECT_FALSE(files_.SizeBytes(folder_.File("x")).ok());
  EXPECT_TRUE(files_.Exists(folder_.File("a")));
  EXPECT_FALSE(files_.Exists(folder_.File("x")));
  EXPECT_TRUE(files_.IsDirectory(folder_.File("c/d")));
  EXPECT_FALSE(files_.IsDirectory(folder_.File("a")));
  EXPECT_THAT(*files_.List(folder_.path()), ElementsAre("a", "b", "c"));
  EXPECT_EQ(files_.List(folder_.File("x")).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(FileSystemTest, RenameAndRemoveAll_OfFilesAndFolders_MoveAndRemoveThem) {
  Put("a", "new");
  Put("b", "old");
  ASSERT_TRUE(files_.Rename(folder_.File("a"), folder_.File("b")).ok());
  EXPECT_EQ(Get("b"), "new");
  EXPECT_EQ(Get("a"), "(none)");
  EXPECT_EQ(files_.Rename(folder_.File("a"), folder_.File("b")).code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(files_.CreateDirectories(folder_.File("c/d")).ok());
  EXPECT_TRUE(files_.RemoveAll(folder_.File("c")).ok());
  EXPECT_FALSE(files_.Exists(folder_.File("c")));
  EXPECT_TRUE(files_.RemoveAll(folder_.File("c")).ok());
  EXPECT_TRUE(files_.SyncDirectory(folder_.path()).ok());
  EXPECT_FALSE(files_.SyncDirectory(folder_.File("c")).ok());
}

TEST_F(FileSystemTest, WriteAtomically_FailingAnywhere_LeavesTheOldOrTheNewWhole) {
  FaultyFileSystem faulty(files_);
  ASSERT_TRUE(faulty.WriteAtomically(folder_.File("a"), "old").ok());
  absl::Status status = absl::UnknownError("not tried");
  int failures = 0;
  for (int64_t operations = 0; !status.ok(); ++operations) {
    ASSERT_LT(operations, 20);
    faulty.operations_left = operations;
    status = faulty.WriteAtomically(folder_.File("a"), "new text");
    failures += !status.ok();
    EXPECT_THAT(Get("a"), testing::AnyOf("old", "new text"));
    EXPECT_THAT(*files_.List(folder_.path()), ElementsAre("a"));
  }
  EXPECT_EQ(Get("a"), "new text");
  EXPECT_EQ(failures, 6);  // create, append, sync, close, rename, sync the folder
}

TEST_F(FileSystemTest, Glob_WithPatterns_MatchesTheLastComponentSorted) {
  for (const char* name :
       {"train-2.bin", "train-10.bin", "train-1.bin", "train.bin", "other.bin", "train-1.bin.idx"}) {
    Put(name, "");
  }
  const auto glob = [&](const std::string& pattern) {
    std::vector<std::string> names;
    const auto matches = Glob(files_, folder_.File(pattern));
    if (!matches.ok())
      return std::vector<std::string>{std::string(absl::StatusCodeToString(matches.status().code()))};
    for (const std::string& match : *matches) {
      EXPECT_EQ(DirectoryOf(match), folder_.path());
      names.push_back(BaseName(match));
    }
    return names;
  };
  EXPECT_THAT(glob("train-*.bin"), ElementsAre("train-1.bin", "train-10.bin", "train-2.bin"));
  EXPECT_THAT(glob("train-?.bin"), ElementsAre("train-1.bin", "train-2.bin"));
  EXPECT_THAT(glob("*r*.bin"),
              ElementsAre("other.bin", "train-1.bin", "train-10.bin", "train-2.bin", "train.bin"));
  EXPECT_THAT(glob("train-**1*"), ElementsAre("train-1.bin", "train-1.bin.idx", "train-10.bin"));
  EXPECT_THAT(glob("other.bin"), ElementsAre("other.bin"));
  EXPECT_THAT(glob("*.txt"), ElementsAre("NOT_FOUND"));
  EXPECT_THAT(glob("none.bin"), ElementsAre("NOT_FOUND"));
  EXPECT_THAT(glob("none/*.bin"), ElementsAre("NOT_FOUND"));
}

TEST(Paths, JoinedAndParted_FollowTheSlash) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("a", "/b"), "/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
  EXPECT_EQ(DirectoryOf("a/b/c"), "a/b");
  EXPECT_EQ(DirectoryOf("/c"), "/");
  EXPECT_EQ(DirectoryOf("c"), ".");
  EXPECT_EQ(BaseName("a/b/c"), "c");
  EXPECT_EQ(BaseName("c"), "c");
}

}  // namespace
}  // namespace accrue
