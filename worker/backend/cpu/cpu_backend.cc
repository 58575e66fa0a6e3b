// The CPU as a backend: host memory, the pool's threads, model and state operations.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/available_memory.h"
#include "common/version.h"
#include "worker/backend/backend.h"
#include "worker/backend/cpu/cpu_model_ops.h"
#include "worker/backend/cpu/gemm.h"
#include "worker/backend/cpu/kernels.h"
#include "worker/backend/cpu/thread_pool.h"
#include "worker/backend/cpu_state/cpu_state_ops.h"

namespace accrue {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

// What follows the colon of the first line of `path` that begins with `field`; empty when there is none.
std::string FieldOf(const char* path, absl::string_view field) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!absl::StartsWith(line, field)) continue;
    const size_t colon = line.find(':');
    if (colon != std::string::npos) return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return "";
}

// Whole pages straight from the system: zero, and touched only when used.
class PageBuffer : public DeviceBuffer {
 public:
  PageBuffer(void* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  ~PageBuffer() override { munmap(data_, size_bytes_); }
  PageBuffer(const PageBuffer&) = delete;
  PageBuffer& operator=(const PageBuffer&) = delete;
  void* data() const override { return data_; }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  void* const data_;
  const size_t size_bytes_;
};

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(int threads)
      : pool_(threads), model_ops_(CreateCpuModelOps(pool_)), state_ops_(CreateCpuStateOps(pool_)) {}

  std::string DeviceName() const override {
    std::string model = FieldOf("/proc/cpuinfo", "model name");
    if (model.empty()) model = "CPU";
    return absl::StrCat(model, ", ", pool_.threads(), pool_.threads() == 1 ? " thread" : " threads");
  }

  std::string NumericClass(DType precision) const override {
    // oneDNN sizes its blocks of K by the caches, and so its roundings.
    return absl::StrCat("cpu/", cpu::KernelInstructionSet(precision), "/", cpu::GemmLibraryName(precision), "/l1-",
                        CacheKib(_SC_LEVEL1_DCACHE_SIZE), "k-l2-", CacheKib(_SC_LEVEL2_CACHE_SIZE), "k/",
                        NameOf(precision), "/r", kKernelRevision);
  }

  bool Supports(DType precision) const override { return precision != DType::kBF16 || cpu::GemmSupportsBf16(); }

  absl::optional<int64_t> FreeBytes() override { return AvailableMemoryBytes(FileSystem::Real()); }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t size_bytes) override {
    const size_t mapped_bytes = std::max<size_t>(size_bytes, 1);
    void* data = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot allocate ", size_bytes, " bytes of memory; available on this machine: ",
                       FieldOf("/proc/meminfo", "MemAvailable"), "; take a smaller micro_batch or model"));
    }
    if (mapped_bytes >= kHugePageBytes) madvise(data, mapped_bytes, MADV_HUGEPAGE);
    return std::unique_ptr<DeviceBuffer>(std::make_unique<PageBuffer>(data, mapped_bytes));
  }

  void CopyToHost(void* host, const void* device, size_t size_bytes) override { std::memcpy(host, device, size_bytes); }
  void CopyToDevice(void* device, const void* host, size_t size_bytes) override {
    std::memcpy(device, host, size_bytes);
  }
  void Copy(void* to, const void* from, size_t size_bytes) override { std::memmove(to, from, size_bytes); }
  void Zero(void* device, size_t size_bytes) override { std::memset(device, 0, size_bytes); }
  void Synchronize() override {}

  ModelOps& model_ops() override { return *model_ops_; }
  StateOps& state_ops() override { return *state_ops_; }

 private:
  static int64_t CacheKib(int level) { return std::max<int64_t>(sysconf(level), 0) / 1024; }

  ThreadPool pool_;
  const std::unique_ptr<ModelOps> model_ops_;
  const std::unique_ptr<StateOps> state_ops_;
};

}  // namespace

std::unique_ptr<Backend> CreateCpuBackend(int threads) { return std::make_unique<CpuBackend>(threads); }

}  // namespace accrue
