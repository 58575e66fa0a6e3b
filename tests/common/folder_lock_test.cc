#include "common/folder_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/file_system.h"

namespace accrue {
namespace {

using testing::HasSubstr;

class FolderLockTest : public testing::Test {
 protected:
  FolderLockTest() {
    char name[] = "/tmp/accrue-lock-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~FolderLockTest() override { FileSystem::Real().RemoveAll(folder_).IgnoreError(); }
  std::string folder_;
};

TEST_F(FolderLockTest, Acquire_Held_SecondIsToldProcessAndHost) {
  auto first = FolderLock::Acquire(folder_);
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = FolderLock::Acquire(folder_).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  EXPECT_EQ(second.message(), absl::StrCat(folder_, " is in use by process ", getpid(), " on ", host));
  first->reset();
  EXPECT_TRUE(FolderLock::Acquire(folder_).ok());
}

TEST_F(FolderLockTest, Acquire_LeftByADeadProcess_IsTakenOver) {
  const pid_t child = fork();
  if (child == 0) {
    const bool ok = FolderLock::Acquire(folder_)->release() != nullptr;  // never given back
    _exit(ok ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  const std::string left = *FileSystem::Real().ReadAll(JoinPath(folder_, "lock"), 1000);
  EXPECT_THAT(left, HasSubstr(absl::StrCat("process ", child)));
  EXPECT_TRUE(FolderLock::Acquire(folder_).ok());
}

TEST_F(FolderLockTest, Acquire_NoFolder_IsMade) {
  EXPECT_TRUE(FolderLock::Acquire(folder_ + "/a/b").ok());
  EXPECT_TRUE(FileSystem::Real().Exists(folder_ + "/a/b/lock"));
}

TEST_F(FolderLockTest, Acquire_NoFolderPossible_NamesIt) {
  ASSERT_TRUE(FileSystem::Real().WriteAtomically(folder_ + "/file", "x").ok());
  const absl::Status status = FolderLock::Acquire(folder_ + "/file/x").status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr(folder_ + "/file"));
}

}  // namespace
}  // namespace accrue
