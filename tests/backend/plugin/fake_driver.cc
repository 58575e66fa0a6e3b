// A library like NVIDIA's driver, for tests: it tells of as many GPUs as the environment says. FAKE_GPU_COUNT (default
// 1), FAKE_GPU_DRIVER (13000), FAKE_GPU_CAPABILITY (90), FAKE_GPU_MIB (143360), FAKE_GPU_INIT_ERROR (0).
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

int Setting(const char* name, int otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoi(value);
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return Setting("FAKE_GPU_INIT_ERROR", 0); }
int cuDriverGetVersion(int* version) {
  *version = Setting("FAKE_GPU_DRIVER", 13000);
  return 0;
}
int cuDeviceGetCount(int* count) {
  *count = Setting("FAKE_GPU_COUNT", 1);
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return 0;
}
int cuDeviceGetName(char* name, int size, int device) {
  std::snprintf(name, static_cast<size_t>(size), "Fake GPU %d", device);
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const int capability = Setting("FAKE_GPU_CAPABILITY", 90);
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : attribute == 16 ? 132 : -1;
  return 0;
}
int cuDeviceTotalMem_v2(size_t* size_bytes, int) {
  *size_bytes = static_cast<size_t>(Setting("FAKE_GPU_MIB", 143360)) << 20;
  return 0;
}
int cuDeviceGetUuid_v2(void* uuid16, int device) {
  std::memset(uuid16, device, 16);
  return 0;
}
int cuGetErrorString(int, const char** text) {
  *text = "a made-up error";
  return 0;
}

}  // extern "C"
