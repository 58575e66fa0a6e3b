#include "common/available_memory.h"

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"

namespace accrue {
namespace {

class AvailableMemoryTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& contents) {
    const std::string file = folder_.File(path);
    ASSERT_TRUE(FileSystem::Real().CreateDirectories(file.substr(0, file.rfind('/'))).ok());
    ASSERT_TRUE(FileSystem::Real().WriteAtomically(file, contents).ok());
  }
  void WriteMeminfo() {
    Write("proc/meminfo", "MemTotal:       2000 kB\nMemAvailable:   1000 kB\nBuffers: 7 kB\n");
  }
  absl::optional<int64_t> Available() { return AvailableMemoryBytes(FileSystem::Real(), folder_.path()); }

  TemporaryFolder folder_;
};

TEST_F(AvailableMemoryTest, AvailableMemoryBytes_NothingThere_IsNotKnown) {
  EXPECT_EQ(Available(), absl::nullopt);
}

TEST_F(AvailableMemoryTest, AvailableMemoryBytes_NoGroup_IsTheSystems) {
  WriteMeminfo();
  EXPECT_EQ(Available(), 1000 * 1024);
}

TEST_F(AvailableMemoryTest, AvailableMemoryBytes_GroupWithoutLimit_IsTheSystems) {
  WriteMeminfo();
  Write("proc/self/cgroup", "0::/a\n");
  Write("sys/fs/cgroup/a/memory.max", "max\n");
  Write("sys/fs/cgroup/a/memory.current", "5000\n");
  EXPECT_EQ(Available(), 1000 * 1024);
}

TEST_F(AvailableMemoryTest, AvailableMemoryBytes_GroupWithLimit_FilesThatCanBeDroppedAreFree) {
  WriteMeminfo();
  Write("proc/self/cgroup", "0::/\n");
  Write("sys/fs/cgroup/memory.max", "9000\n");
  Write("sys/fs/cgroup/memory.current", "5000\n");
  Write("sys/fs/cgroup/memory.stat", "anon 4000\ninactive_file 300\nactive_file 700\n");
  EXPECT_EQ(Available(), 4300);
}

TEST_F(AvailableMemoryTest, AvailableMemoryBytes_GroupsAbove_TheNarrowestCounts) {
  WriteMeminfo();
  Write("proc/self/cgroup", "12:cpu:/x\n0::/a/b\n");
  Write("sys/fs/cgroup/a/memory.max", "700\n");
  Write("sys/fs/cgroup/a/memory.current", "200\n");
  Write("sys/fs/cgroup/a/b/memory.max", "900\n");
  Write("sys/fs/cgroup/a/b/memory.current", "200\n");
  EXPECT_EQ(Available(), 500);
}

TEST_F(AvailableMemoryTest, AvailableMemoryBytes_MoreUsedThanAllowed_IsNothing) {
  Write("proc/self/cgroup", "0::/a\n");
  Write("sys/fs/cgroup/a/memory.max", "700\n");
  Write("sys/fs/cgroup/a/memory.current", "900\n");
  EXPECT_EQ(Available(), 0);
}

}  // namespace
}  // namespace accrue
