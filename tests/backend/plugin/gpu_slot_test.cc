// Which of the processes that share a GPU one is: by locks, which a process's end frees.
#include "worker/backend/plugin/gpu_slot.h"

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

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
  std::unique_ptr<GpuSlot> Take(const std::vector<std::string>& gpus) { return *GpuSlot::TakeLeastUsed(folder_, gpus); }
  std::string folder_;
};

TEST_F(GpuSlotTest, Take_SeveralOfOneGpu_Counted) {
  const auto first = Take({"a"}), second = Take({"a"});
  EXPECT_EQ(first->number(), 0);
  EXPECT_EQ(second->number(), 1);
  EXPECT_EQ(Take({"b"})->number(), 0);
}

TEST_F(GpuSlotTest, Take_SeveralGpus_SpreadOverThem) {
  std::vector<std::unique_ptr<GpuSlot>> slots;
  for (const auto& [gpu, number] : {std::pair{0, 0}, {1, 0}, {2, 0}, {0, 1}, {1, 1}}) {
    slots.push_back(Take({"a", "b", "c"}));
    EXPECT_EQ(slots.back()->gpu(), gpu);
    EXPECT_EQ(slots.back()->number(), number);
  }
  slots.erase(slots.begin() + 1);
  EXPECT_EQ(Take({"a", "b", "c"})->gpu(), 1);
}

TEST_F(GpuSlotTest, Take_OneIsFreeAgain_TheLeast) {
  auto first = Take({"a"});
  const auto second = Take({"a"});
  first.reset();
  EXPECT_EQ(Take({"a"})->number(), 0);
}

TEST_F(GpuSlotTest, Take_HolderWasKilled_Free) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto slot = GpuSlot::TakeLeastUsed(folder_, {"a"});
    const char number = slot.ok() ? static_cast<char>((*slot)->number()) : char{9};
    if (write(ready[1], &number, 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char number = 9;
  ASSERT_EQ(read(ready[0], &number, 1), 1);
  EXPECT_EQ(number, 0);
  EXPECT_EQ(Take({"a"})->number(), 1);
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_EQ(Take({"a"})->number(), 0);
}

TEST_F(GpuSlotTest, Take_NoFolder_NamesTheFile) {
  const absl::Status status = GpuSlot::TakeLeastUsed(folder_ + "/none", {"a"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("/none/accrue-gpu-a-0.lock: No such file"));
}

}  // namespace
}  // namespace accrue
