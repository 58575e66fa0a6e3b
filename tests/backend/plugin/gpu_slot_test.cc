// Which of the processes that share a GPU one is: by locks, which a process's end frees.
#include "worker/backend/plugin/gpu_slot.h"

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace accrue {
namespace {

class GpuSlotTest : public testing::Test {
 protected:
  GpuSlotTest() {
    std::string name = testing::TempDir() + "/accrue-slots-XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~GpuSlotTest() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

TEST_F(GpuSlotTest, Take_SeveralOfOneGpu_Counted) {
  const auto first = *GpuSlot::Take(folder_, "a"), second = *GpuSlot::Take(folder_, "a");
  EXPECT_EQ(first->number(), 0);
  EXPECT_EQ(second->number(), 1);
  EXPECT_EQ((*GpuSlot::Take(folder_, "b"))->number(), 0);
}

TEST_F(GpuSlotTest, Take_OneIsFreeAgain_TheLeast) {
  auto first = *GpuSlot::Take(folder_, "a");
  const auto second = *GpuSlot::Take(folder_, "a");
  first.reset();
  EXPECT_EQ((*GpuSlot::Take(folder_, "a"))->number(), 0);
}

TEST_F(GpuSlotTest, Take_HolderWasKilled_Free) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto slot = GpuSlot::Take(folder_, "a");
    const char number = slot.ok() ? static_cast<char>((*slot)->number()) : char{9};
    if (write(ready[1], &number, 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char number = 9;
  ASSERT_EQ(read(ready[0], &number, 1), 1);
  EXPECT_EQ(number, 0);
  EXPECT_EQ((*GpuSlot::Take(folder_, "a"))->number(), 1);
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_EQ((*GpuSlot::Take(folder_, "a"))->number(), 0);
}

TEST_F(GpuSlotTest, Take_NoFolder_NamesTheFile) {
  const absl::Status status = GpuSlot::Take(folder_ + "/none", "a").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("/none/accrue-gpu-a-0.lock: No such file"));
}

}  // namespace
}  // namespace accrue
