// What is said of a machine's driver and GPUs, without any: the driver's functions are the test's.
#include "worker/backend/plugin/gpu_probe.h"

#include <cstring>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace accrue {
namespace {

using testing::HasSubstr;

// What the driver's functions answer.
struct Machine {
  int version = 13000, count = 1, init_error = 0, name_error = 0;
  int major = 9, minor = 0;
  int64_t memory_bytes = int64_t{141} << 30;
  bool is_initialised = false;
};
Machine machine;

DriverFunctions FakeDriver(const Machine& fake) {
  machine = fake;
  return {.init =
              [](unsigned) {
                machine.is_initialised = true;
                return machine.init_error;
              },
          .get_version = [](int* version) { return *version = machine.version, 0; },
          .get_count = [](int* count) { return *count = machine.count, machine.is_initialised ? 0 : 3; },
          .get_device = [](int* device, int ordinal) { return *device = 40 + ordinal, 0; },
          .get_name =
              [](char* name, int, int device) {
                std::strcpy(name, device == 40 ? "First" : "Second");
                return machine.name_error;
              },
          .get_attribute =
              [](int* value, int attribute, int) {
                *value = attribute == 75 ? machine.major : attribute == 76 ? machine.minor : attribute == 16 ? 132 : -1;
                return 0;
              },
          .get_memory = [](size_t* bytes, int) { return *bytes = static_cast<size_t>(machine.memory_bytes), 0; },
          .get_uuid = [](void* uuid, int device) { return std::memset(uuid, device, 16), 0; },
          .get_error_text = [](int, const char** text) { return *text = "words of the driver", 0; }};
}

const GpuNeeds kNeeds{.driver_version = 13000, .architectures = {80, 90}, .memory_bytes = int64_t{1} << 30};

std::string Refusal(const Machine& fake, absl::StatusCode code, int ordinal = 0) {
  const absl::StatusOr<GpuReport> report = ProbeGpus(FakeDriver(fake));
  EXPECT_TRUE(report.ok()) << report.status();
  if (!report.ok()) return "";
  const absl::Status status = CheckGpu(*report, kNeeds, ordinal).status();
  EXPECT_EQ(status.code(), code) << status;
  return std::string(status.message());
}

TEST(ProbeGpus, TwoGpus_AllThatIsKnownOfThem) {
  const absl::StatusOr<GpuReport> report = ProbeGpus(FakeDriver({.count = 2}));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->driver_version, 13000);
  ASSERT_EQ(report->gpus.size(), 2u);
  EXPECT_EQ(report->gpus[0].name, "First");
  EXPECT_EQ(report->gpus[1].name, "Second");
  EXPECT_EQ(report->gpus[1].major, 9);
  EXPECT_EQ(report->gpus[1].minor, 0);
  EXPECT_EQ(report->gpus[1].multiprocessors, 132);
  EXPECT_EQ(report->gpus[1].memory_bytes, int64_t{141} << 30);
  EXPECT_EQ(report->gpus[1].uuid, "29292929292929292929292929292929");
}

TEST(ProbeGpus, DriverFails_CallErrorAndItsWords) {
  absl::Status status = ProbeGpus(FakeDriver({.version = 12040, .init_error = 803})).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "the NVIDIA driver does not answer: cuInit (driver for CUDA 12.4): error 803, words of the driver");
  status = ProbeGpus(FakeDriver({.name_error = 1})).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("cuDeviceGetName: error 1, words of the driver"));
}

TEST(CheckGpu, OneThatWillDo_IsReturned) {
  for (const auto& [major, minor] : {std::pair{8, 0}, {8, 6}, {8, 9}, {9, 0}}) {
    const GpuReport report = *ProbeGpus(FakeDriver({.count = 2, .major = major, .minor = minor}));
    const absl::StatusOr<GpuInfo> gpu = CheckGpu(report, kNeeds, 1);
    ASSERT_TRUE(gpu.ok()) << gpu.status();
    EXPECT_EQ(gpu->name, "Second");
  }
}

TEST(CheckGpu, OldDriver_BothVersions) {
  EXPECT_EQ(Refusal({.version = 12080}, absl::StatusCode::kFailedPrecondition),
            "the NVIDIA driver is too old: found one for CUDA 12.8, needed is one for CUDA 13.0 or later");
}

TEST(CheckGpu, NoGpu_NotFound) {
  EXPECT_THAT(Refusal({.count = 0}, absl::StatusCode::kNotFound), HasSubstr("but no GPU: found 0, needed is one of"));
  // What cuInit says where the driver is and no GPU.
  EXPECT_THAT(Refusal({.init_error = 100}, absl::StatusCode::kNotFound), HasSubstr("but no GPU: found 0"));
}

TEST(CheckGpu, NumberThatIsNot_HowManyThereAre) {
  EXPECT_EQ(Refusal({.count = 2}, absl::StatusCode::kNotFound, 2), "no GPU 2: found 2, numbered from 0");
  EXPECT_EQ(Refusal({}, absl::StatusCode::kNotFound, -1), "no GPU -1: found 1, numbered from 0");
}

TEST(CheckGpu, UnsupportedCapability_BothCapabilities) {
  for (const auto& [major, minor] : {std::pair{7, 5}, {10, 0}, {12, 0}}) {
    EXPECT_EQ(Refusal({.major = major, .minor = minor}, absl::StatusCode::kFailedPrecondition),
              "GPU 0 (First) is not supported: found compute capability " + std::to_string(major) + "." +
                  std::to_string(minor) +
                  ", needed is 8.0 or 9.0, or a later one of the same first number");
  }
  // Code for 8.6 does not run on 8.0.
  const GpuReport report = *ProbeGpus(FakeDriver({.major = 8, .minor = 0}));
  EXPECT_FALSE(CheckGpu(report, {.architectures = {86}}, 0).ok());
}

TEST(CheckGpu, SmallMemory_BothSizes) {
  EXPECT_EQ(Refusal({.memory_bytes = int64_t{512} << 20}, absl::StatusCode::kResourceExhausted),
            "GPU 0 (First) has too little memory: found 512 MiB, needed are 1024 MiB beside what a job takes");
}

TEST(CheckFreeMemory, TakenByOthers_FreeAndTotal) {
  EXPECT_TRUE(CheckFreeMemory(kNeeds, "GPU 0", int64_t{1} << 30, int64_t{8} << 30).ok());
  const absl::Status status = CheckFreeMemory(kNeeds, "GPU 0", int64_t{300} << 20, int64_t{8} << 30);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("found 300 MiB of 8192 MiB, needed are 1024 MiB"));
}

TEST(LoadDriver, NoLibrary_NotFoundWithTheLoadersWords) {
  const absl::Status status = LoadDriver("libno-driver-of-this-name.so.1").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no NVIDIA driver on this machine: libno-driver-of-this-name.so.1"));
}

TEST(LoadDriver, AnotherLibrary_NamesTheFunctionThatLacks) {
  const absl::Status status = LoadDriver("libc.so.6").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cuInit"));
}

TEST(LoadDriver, FakeLibrary_AnswersThroughIt) {
  const absl::StatusOr<DriverFunctions> driver = LoadDriver(FAKE_DRIVER_FILE);
  ASSERT_TRUE(driver.ok()) << driver.status();
  const absl::StatusOr<GpuReport> report = ProbeGpus(*driver);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->gpus.size(), 1u);
  EXPECT_EQ(report->gpus[0].name, "Fake GPU 0");
  EXPECT_EQ(report->gpus[0].uuid, std::string(32, '0'));
}

}  // namespace
}  // namespace accrue
