// What GPUs this machine has, asked of NVIDIA's driver library, which is loaded for it; and whether one will do. So
// that a machine without a driver, or with one too old, is told from one with a usable GPU before anything of CUDA's
// is loaded.
//
// Thread-safe: functions without state. Versions are CUDA's: 13000 is 13.0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace accrue {

struct GpuInfo {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  int64_t memory_bytes = 0;
  std::string uuid;  // 32 hexadecimal digits; empty where the driver does not tell
};

struct GpuReport {
  int driver_version = 0;  // the newest CUDA that the driver serves
  std::vector<GpuInfo> gpus;
};

// What code for GPUs needs. architectures: compute capabilities that it is built for, times ten ("80, 90"); a GPU runs
// code of its own major version and of its minor version or a lower one.
struct GpuNeeds {
  int driver_version = 0;
  std::vector<int> architectures;
  int64_t memory_bytes = 0;  // beside what a job takes
};

// The functions of the driver library that are asked, by its own conventions: 0 is success. get_uuid may be null.
struct DriverFunctions {
  int (*init)(unsigned flags) = nullptr;
  int (*get_version)(int* version) = nullptr;
  int (*get_count)(int* count) = nullptr;
  int (*get_device)(int* device, int ordinal) = nullptr;
  int (*get_name)(char* name, int size, int device) = nullptr;
  int (*get_attribute)(int* value, int attribute, int device) = nullptr;
  int (*get_memory)(size_t* size_bytes, int device) = nullptr;
  int (*get_uuid)(void* uuid16, int device) = nullptr;
  int (*get_error_text)(int error, const char** text) = nullptr;
};

// The library stays loaded. NOT_FOUND: there is none; FAILED_PRECONDITION: it lacks a function.
absl::StatusOr<DriverFunctions> LoadDriver(const std::string& library = "libcuda.so.1");

// FAILED_PRECONDITION with the driver's own words when it does not answer. No GPU is no error.
absl::StatusOr<GpuReport> ProbeGpus(const DriverFunctions& driver);

// The GPU of this number. NOT_FOUND: no GPU, or none of this number; FAILED_PRECONDITION: the driver is too old, or the
// GPU is of no architecture that there is code for; RESOURCE_EXHAUSTED: it is too small. Each says what was found and
// what is needed.
absl::StatusOr<GpuInfo> CheckGpu(const GpuReport& report, const GpuNeeds& needs, int ordinal);

// RESOURCE_EXHAUSTED when less is free than is needed.
absl::Status CheckFreeMemory(const GpuNeeds& needs, const std::string& gpu, int64_t free_bytes, int64_t total_bytes);

// "13.0" of 13000.
std::string CudaVersionText(int version);

}  // namespace accrue
