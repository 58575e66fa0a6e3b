// Which backend a worker takes on machines of every kind, and what it says where it cannot have what was asked for.
#include "worker/backend/plugin/choose_backend.h"

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/version.h"
#include "worker/backend/plugin/plugin_loader.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

GpuNeeds Needs() { return {.driver_version = 13000, .architectures = {90}, .memory_bytes = 1 << 20}; }

const BackendPlugin kGoodPlugin{.name = "cuda",
                                .needs = Needs,
                                .create_backend = [](int) -> absl::StatusOr<std::unique_ptr<Backend>> {
                                  return CreateCpuBackend(1);
                                }};
const BackendPlugin kFailingPlugin{.name = "cuda",
                                   .needs = Needs,
                                   .create_backend = [](int) -> absl::StatusOr<std::unique_ptr<Backend>> {
                                     return absl::UnavailableError("cudaSetDevice: all is taken");
                                   }};

// A machine on which all is well, but for what a test changes. Notes what was asked, in order.
class Machine {
 public:
  Machine() {
    std::string name = testing::TempDir() + "/accrue-machine-XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~Machine() { std::filesystem::remove_all(folder_); }

  absl::Status plugin_file, driver, library;
  GpuReport gpus{.driver_version = 13000, .gpus = {{.name = "H", .major = 9, .memory_bytes = int64_t{1} << 37}}};
  const BackendPlugin* plugin = &kGoodPlugin;
  std::vector<std::string> asked;

  absl::StatusOr<ChosenBackend> Choose(BackendChoice choice, int gpu = -1) {
    asked.clear();
    return ChooseBackend({.choice = choice, .gpu = gpu}, {.find_plugin = [this]() -> absl::StatusOr<std::string> {
                                                            asked.push_back("file");
                                                            if (!plugin_file.ok()) return plugin_file;
                                                            return std::string("plugin.so");
                                                          },
                                                          .probe_gpus = [this]() -> absl::StatusOr<GpuReport> {
                                                            asked.push_back("driver");
                                                            if (!driver.ok()) return driver;
                                                            return gpus;
                                                          },
                                                          .load_plugin = [this](const std::string& path)
                                                              -> absl::StatusOr<const BackendPlugin*> {
                                                            asked.push_back(path);
                                                            if (!library.ok()) return library;
                                                            return plugin;
                                                          },
                                                          .take_slot = [this](const std::vector<std::string>& gpus) {
                                                            return GpuSlot::TakeLeastUsed(folder_, gpus);
                                                          },
                                                          .create_cpu = [] { return CreateCpuBackend(1); }});
  }

  // Of --backend cuda; auto takes the CPU and gives the same reason.
  void ExpectRefused(absl::StatusCode code, const std::string& message, bool is_fallback) {
    const absl::Status status = Choose(BackendChoice::kCuda).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    const absl::StatusOr<ChosenBackend> chosen = Choose(BackendChoice::kAuto);
    ASSERT_TRUE(chosen.ok()) << chosen.status();
    EXPECT_EQ(chosen->name, "cpu");
    EXPECT_EQ(chosen->plugin, nullptr);
    EXPECT_THAT(chosen->reason, HasSubstr(message));
    EXPECT_EQ(chosen->is_fallback, is_fallback);
    EXPECT_THAT(chosen->backend->NumericClass(DType::kF32), HasSubstr("cpu/"));
  }

 private:
  std::string folder_;  // of the slots
};

TEST(ChooseBackend, GpuThatWillDo_TakenUnlessTheCpuIsAskedFor) {
  Machine machine;
  for (BackendChoice choice : {BackendChoice::kAuto, BackendChoice::kCuda}) {
    const absl::StatusOr<ChosenBackend> chosen = machine.Choose(choice);
    ASSERT_TRUE(chosen.ok()) << chosen.status();
    EXPECT_EQ(chosen->name, "cuda");
    EXPECT_EQ(chosen->plugin, &kGoodPlugin);
    EXPECT_EQ(chosen->reason, "GPU 0 (H) can be used");
    EXPECT_FALSE(chosen->is_fallback);
    EXPECT_NE(chosen->backend, nullptr);
    EXPECT_THAT(machine.asked, ElementsAre("file", "driver", "plugin.so"));
  }
  EXPECT_EQ(machine.Choose(BackendChoice::kCpu)->name, "cpu");
  EXPECT_THAT(machine.asked, ElementsAre());
}

TEST(ChooseBackend, NoPlugin_NothingElseIsAsked) {
  Machine machine;
  machine.plugin_file = absl::NotFoundError("looked for a and b");
  machine.ExpectRefused(absl::StatusCode::kNotFound, "looked for a and b", false);
  EXPECT_THAT(machine.asked, ElementsAre("file"));
}

TEST(ChooseBackend, NoDriver_PluginIsNotLoaded) {
  Machine machine;
  machine.driver = absl::NotFoundError("no NVIDIA driver");
  machine.ExpectRefused(absl::StatusCode::kNotFound, "no NVIDIA driver", false);
  EXPECT_THAT(machine.asked, ElementsAre("file", "driver"));
}

TEST(ChooseBackend, GpuThereButUnusable_Fallback) {
  Machine broken_library;
  broken_library.library = absl::FailedPreconditionError("libnccl.so.2: cannot open");
  broken_library.ExpectRefused(absl::StatusCode::kFailedPrecondition, "libnccl.so.2: cannot open", true);

  Machine old_driver;
  old_driver.gpus.driver_version = 12000;
  old_driver.ExpectRefused(absl::StatusCode::kFailedPrecondition, "found one for CUDA 12.0", true);

  Machine old_gpu;
  old_gpu.gpus.gpus[0].major = 7;
  old_gpu.ExpectRefused(absl::StatusCode::kFailedPrecondition, "found compute capability 7.0, needed is 9.0", true);

  Machine small_gpu;
  small_gpu.gpus.gpus[0].memory_bytes = 1 << 19;
  small_gpu.ExpectRefused(absl::StatusCode::kResourceExhausted, "too little memory", true);

  Machine taken_gpu;
  taken_gpu.plugin = &kFailingPlugin;
  taken_gpu.ExpectRefused(absl::StatusCode::kUnavailable, "cudaSetDevice: all is taken", true);
}

TEST(ChooseBackend, NoGpu_NoFallback) {
  Machine machine;
  machine.gpus.gpus.clear();
  machine.ExpectRefused(absl::StatusCode::kNotFound, "but no GPU", false);
}

TEST(ChooseBackend, SeveralGpus_SpreadOverThoseThatWillDo) {
  Machine machine;
  machine.gpus.gpus = {{.name = "Old", .major = 7, .memory_bytes = int64_t{1} << 37, .uuid = "choose-0"},
                       {.name = "A", .major = 9, .memory_bytes = int64_t{1} << 37, .uuid = "choose-1"},
                       {.name = "B", .major = 9, .memory_bytes = int64_t{1} << 37, .uuid = "choose-2"}};
  const ChosenBackend first = *machine.Choose(BackendChoice::kAuto), second = *machine.Choose(BackendChoice::kAuto),
                      third = *machine.Choose(BackendChoice::kAuto);
  EXPECT_EQ(first.reason, "GPU 1 (A) can be used");
  EXPECT_EQ(second.reason, "GPU 2 (B) can be used");
  EXPECT_EQ(third.reason, "GPU 1 (A) can be used, which 1 others use too");
  EXPECT_EQ(third.slot->number(), 1);
  EXPECT_EQ(machine.Choose(BackendChoice::kCuda, 2)->slot->number(), 1);
  EXPECT_THAT(std::string(machine.Choose(BackendChoice::kCuda, 0).status().message()), HasSubstr("GPU 0 (Old) is not"));
}

TEST(ChooseBackend, NumberThatIsNot_Refused) {
  Machine machine;
  EXPECT_EQ(machine.Choose(BackendChoice::kCuda, 1).status().message(), "no GPU 1: found 1, numbered from 0");
}

TEST(FindPlugin, NoneThere_NamesAllPlaces) {
  const std::vector<std::string> places = PluginPlaces("/opt/accrue/bin");
  EXPECT_THAT(places, ElementsAre("/opt/accrue/bin/libaccrue_cuda.so", "/opt/accrue/bin/../lib/accrue/libaccrue_cuda.so"));
  const absl::Status status = FindPlugin(places).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  for (const std::string& place : places) EXPECT_THAT(std::string(status.message()), HasSubstr(place));
}

TEST(FindPlugin, SeveralThere_TheFirst) {
  EXPECT_EQ(*FindPlugin({"/no/such/file", FAKE_PLUGIN_FILE, OTHER_BUILD_FILE}), FAKE_PLUGIN_FILE);
}

TEST(LoadPlugin, OfThisBuild_ItsTable) {
  const absl::StatusOr<const BackendPlugin*> plugin = LoadPlugin(FAKE_PLUGIN_FILE);
  ASSERT_TRUE(plugin.ok()) << plugin.status();
  EXPECT_STREQ((*plugin)->name, "cuda");
  EXPECT_EQ((*plugin)->needs().driver_version, 13000);
  const absl::StatusOr<std::unique_ptr<Backend>> backend = (*plugin)->create_backend(0);
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_EQ((*backend)->NumericClass(DType::kF32), CreateCpuBackend(1)->NumericClass(DType::kF32));
}

TEST(LoadPlugin, OfAnotherBuild_BothBuilds) {
  const absl::Status status = LoadPlugin(OTHER_BUILD_FILE).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("another compiler; needed is accrue "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(ACCRUE_PLUGIN_BUILD));
}

TEST(LoadPlugin, NotAPlugin_SaysSo) {
  absl::Status status = LoadPlugin(FAKE_DRIVER_FILE).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("it has no function accrue_backend_plugin_1"));
  status = LoadPlugin("tests/backend/plugin/choose_backend_test.cc").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot be loaded: tests/backend/plugin/choose_backend_test.cc"));
}

}  // namespace
}  // namespace accrue
