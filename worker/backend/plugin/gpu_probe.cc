#include "worker/backend/plugin/gpu_probe.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"

namespace accrue {
namespace {

// Of the driver's enumeration of device attributes.
constexpr int kMultiprocessors = 16, kCapabilityMajor = 75, kCapabilityMinor = 76;
constexpr int kNoDevice = 100;
constexpr int64_t kMebibyte = int64_t{1} << 20;

// The driver library has no C++ types of its own here, so a function is stored by its address.
template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

absl::Status CallFailed(const DriverFunctions& driver, const char* call, int error) {
  const char* text = nullptr;
  if (driver.get_error_text(error, &text) != 0 || text == nullptr) text = "unknown error";
  return absl::FailedPreconditionError(
      absl::StrCat("the NVIDIA driver does not answer: ", call, ": error ", error, ", ", text));
}

#define ACCRUE_DRIVER_CALL(driver, name, call)                                          \
  do {                                                                                  \
    if (const int driver_error = (call); driver_error != 0) {                           \
      return CallFailed(driver, name, driver_error);                                    \
    }                                                                                   \
  } while (false)

absl::StatusOr<GpuInfo> ProbeGpu(const DriverFunctions& driver, int ordinal) {
  GpuInfo gpu;
  int device = 0;
  std::array<char, 256> name{};
  std::array<char, 16> uuid{};
  size_t memory_bytes = 0;
  ACCRUE_DRIVER_CALL(driver, "cuDeviceGet", driver.get_device(&device, ordinal));
  ACCRUE_DRIVER_CALL(driver, "cuDeviceGetName", driver.get_name(name.data(), static_cast<int>(name.size()) - 1, device));
  ACCRUE_DRIVER_CALL(driver, "cuDeviceGetAttribute", driver.get_attribute(&gpu.major, kCapabilityMajor, device));
  ACCRUE_DRIVER_CALL(driver, "cuDeviceGetAttribute", driver.get_attribute(&gpu.minor, kCapabilityMinor, device));
  ACCRUE_DRIVER_CALL(driver, "cuDeviceGetAttribute",
                     driver.get_attribute(&gpu.multiprocessors, kMultiprocessors, device));
  ACCRUE_DRIVER_CALL(driver, "cuDeviceTotalMem", driver.get_memory(&memory_bytes, device));
  if (driver.get_uuid != nullptr && driver.get_uuid(uuid.data(), device) == 0) {
    gpu.uuid = absl::BytesToHexString(absl::string_view(uuid.data(), uuid.size()));
  }
  gpu.name = name.data();
  gpu.memory_bytes = static_cast<int64_t>(memory_bytes);
  return gpu;
}

bool Runs(const GpuInfo& gpu, int architecture) {
  return gpu.major == architecture / 10 && gpu.minor >= architecture % 10;
}

std::string ArchitecturesText(const GpuNeeds& needs) {
  return absl::StrJoin(needs.architectures, " or ", [](std::string* text, int architecture) {
    absl::StrAppend(text, architecture / 10, ".", architecture % 10);
  });
}

}  // namespace

std::string CudaVersionText(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

absl::StatusOr<DriverFunctions> LoadDriver(const std::string& library) {
  void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return absl::NotFoundError(absl::StrCat("no NVIDIA driver on this machine: ", dlerror()));
  }
  DriverFunctions driver;
  const bool is_whole = Find(handle, "cuInit", driver.init) && Find(handle, "cuDriverGetVersion", driver.get_version) &&
                        Find(handle, "cuDeviceGetCount", driver.get_count) &&
                        Find(handle, "cuDeviceGet", driver.get_device) &&
                        Find(handle, "cuDeviceGetName", driver.get_name) &&
                        Find(handle, "cuDeviceGetAttribute", driver.get_attribute) &&
                        Find(handle, "cuDeviceTotalMem_v2", driver.get_memory) &&
                        Find(handle, "cuGetErrorString", driver.get_error_text);
  if (!is_whole) return absl::FailedPreconditionError(absl::StrCat(library, " is no NVIDIA driver: ", dlerror()));
  if (!Find(handle, "cuDeviceGetUuid_v2", driver.get_uuid)) Find(handle, "cuDeviceGetUuid", driver.get_uuid);
  return driver;
}

absl::StatusOr<GpuReport> ProbeGpus(const DriverFunctions& driver) {
  GpuReport report;
  // Answered before the driver is initialised, which may be what an old one fails at.
  ACCRUE_DRIVER_CALL(driver, "cuDriverGetVersion", driver.get_version(&report.driver_version));
  const int error = driver.init(0);
  if (error == kNoDevice) return report;
  ACCRUE_DRIVER_CALL(driver, absl::StrCat("cuInit (driver for CUDA ", CudaVersionText(report.driver_version), ")").c_str(),
                     error);
  int count = 0;
  ACCRUE_DRIVER_CALL(driver, "cuDeviceGetCount", driver.get_count(&count));
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    ACCRUE_ASSIGN_OR_RETURN(GpuInfo gpu, ProbeGpu(driver, ordinal));
    report.gpus.push_back(std::move(gpu));
  }
  return report;
}

absl::StatusOr<GpuInfo> CheckGpu(const GpuReport& report, const GpuNeeds& needs, int ordinal) {
  if (report.driver_version < needs.driver_version) {
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver is too old: found one for CUDA ", CudaVersionText(report.driver_version),
                     ", needed is one for CUDA ", CudaVersionText(needs.driver_version), " or later"));
  }
  if (report.gpus.empty()) {
    return absl::NotFoundError(absl::StrCat(
        "there is a driver for CUDA ", CudaVersionText(report.driver_version),
        ", but no GPU: found 0, needed is one of compute capability ", ArchitecturesText(needs),
        " (CUDA_VISIBLE_DEVICES hides GPUs)"));
  }
  if (ordinal < 0 || ordinal >= static_cast<int>(report.gpus.size())) {
    return absl::NotFoundError(absl::StrCat("no GPU ", ordinal, ": found ", report.gpus.size(), ", numbered from 0"));
  }
  const GpuInfo& gpu = report.gpus[ordinal];
  const std::string name = absl::StrCat("GPU ", ordinal, " (", gpu.name, ")");
  if (std::none_of(needs.architectures.begin(), needs.architectures.end(),
                   [&](int architecture) { return Runs(gpu, architecture); })) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, " is not supported: found compute capability ", gpu.major, ".", gpu.minor,
                     ", needed is ", ArchitecturesText(needs), ", or a later one of the same first number"));
  }
  if (gpu.memory_bytes < needs.memory_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(name, " has too little memory: found ",
                                                     gpu.memory_bytes / kMebibyte, " MiB, needed are ",
                                                     needs.memory_bytes / kMebibyte, " MiB beside what a job takes"));
  }
  return gpu;
}

absl::Status CheckFreeMemory(const GpuNeeds& needs, const std::string& gpu, int64_t free_bytes, int64_t total_bytes) {
  if (free_bytes >= needs.memory_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      gpu, " has too little memory free: found ", free_bytes / kMebibyte, " MiB of ", total_bytes / kMebibyte,
      " MiB, needed are ", needs.memory_bytes / kMebibyte,
      " MiB beside what a job takes; end other programs that hold it, or use another GPU"));
}

}  // namespace accrue
