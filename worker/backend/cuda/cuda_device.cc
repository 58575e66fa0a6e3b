#include "worker/backend/cuda/cuda_device.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace accrue::cuda {
namespace {

// Compute capabilities that the kernels are built for: a GPU runs code of its own major version.
constexpr int kOldestMajor = 8, kNewestMajor = 9;

// "13.0" of CUDA's 13000.
std::string VersionText(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

std::string DriverText() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no driver";
  return absl::StrCat("a driver for CUDA ", VersionText(driver));
}

absl::Status NoDevices(cudaError_t error) {
  return absl::FailedPreconditionError(
      absl::StrCat("no usable GPU: ", cudaGetErrorString(error), "; found ", DriverText(),
                   ", needed is a driver for CUDA ", VersionText(CUDART_VERSION),
                   " or later and a GPU of compute capability ", kOldestMajor, ".x to ", kNewestMajor, ".x"));
}

absl::Status Failed(cudaError_t error, const char* what, int ordinal) {
  return absl::FailedPreconditionError(
      absl::StrCat("GPU ", ordinal, ": ", what, ": ", cudaGetErrorString(error)));
}

class CudaBuffer : public DeviceBuffer {
 public:
  CudaBuffer(void* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  ~CudaBuffer() override { RequireCuda(cudaFree(data_), "cudaFree", {{"bytes", static_cast<int64_t>(size_bytes_)}}); }
  CudaBuffer(const CudaBuffer&) = delete;
  CudaBuffer& operator=(const CudaBuffer&) = delete;
  void* data() const override { return data_; }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  void* const data_;
  const size_t size_bytes_;
};

constexpr char kAdvice[] = "take a smaller micro_batch or model, or end other programs that hold memory of this GPU";

}  // namespace

void RequireCuda(cudaError_t error, const char* what, std::initializer_list<CallDetail> details,
                 std::source_location where) {
  if (error == cudaSuccess) return;
  std::string text;
  for (const CallDetail& detail : details) absl::StrAppend(&text, " ", detail.name, "=", detail.value);
  std::fprintf(stderr, "%s:%u: the GPU failed: %s%s: %s (%s); this worker ends\n", where.file_name(), where.line(), what,
               text.c_str(), cudaGetErrorString(error), cudaGetErrorName(error));
  std::abort();
}

// One piece of memory that buffers are cut from; it lives as long as the longest of them.
class CudaDevice::Arena {
 public:
  Arena(void* data, size_t size_bytes) : memory_(data, size_bytes), places_(size_bytes) {}

  // Null when there is no room.
  static std::unique_ptr<DeviceBuffer> Take(const std::shared_ptr<Arena>& arena, size_t size_bytes) {
    absl::MutexLock lock(&arena->mutex_);
    const size_t offset = arena->places_.Take(size_bytes);
    if (offset == MemoryArena::kNone) return nullptr;
    return std::make_unique<Piece>(arena, offset, size_bytes);
  }
  // Whether nobody has any of it, and it is of this size at least.
  bool IsFreeFor(size_t size_bytes) {
    absl::MutexLock lock(&mutex_);
    return places_.empty() && places_.size_bytes() >= size_bytes;
  }

 private:
  class Piece : public DeviceBuffer {
   public:
    Piece(std::shared_ptr<Arena> arena, size_t offset, size_t size_bytes)
        : arena_(std::move(arena)), offset_(offset), size_bytes_(size_bytes) {}
    ~Piece() override {
      absl::MutexLock lock(&arena_->mutex_);
      arena_->places_.GiveBack();
    }
    void* data() const override { return static_cast<char*>(arena_->memory_.data()) + offset_; }
    size_t size_bytes() const override { return size_bytes_; }

   private:
    const std::shared_ptr<Arena> arena_;
    const size_t offset_, size_bytes_;
  };

  const CudaBuffer memory_;
  absl::Mutex mutex_;
  MemoryArena places_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Open(int ordinal) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) return NoDevices(error);
  if (count == 0) return NoDevices(cudaErrorNoDevice);
  if (ordinal < 0 || ordinal >= count) {
    return absl::NotFoundError(absl::StrCat("no GPU ", ordinal, ": found ", count, ", numbered from 0"));
  }
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, ordinal); error != cudaSuccess) {
    return Failed(error, "its properties", ordinal);
  }
  if (properties.major < kOldestMajor || properties.major > kNewestMajor) {
    return absl::FailedPreconditionError(
        absl::StrCat("GPU ", ordinal, " (", properties.name, ") has compute capability ", properties.major,
                     ".", properties.minor, "; needed is ", kOldestMajor, ".x to ", kNewestMajor, ".x"));
  }
  cudaStream_t stream = nullptr;
  cudaError_t error = cudaSetDevice(ordinal);
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return Failed(error, "opening it", ordinal);
  return std::unique_ptr<CudaDevice>(new CudaDevice(ordinal, properties, stream));
}

CudaDevice::~CudaDevice() { RequireCuda(cudaStreamDestroy(stream_), "cudaStreamDestroy"); }

std::string CudaDevice::Name() const {
  return absl::StrCat(properties_.name, ", ", properties_.multiProcessorCount, " SMs, ",
                      properties_.totalGlobalMem >> 20, " MiB");
}

void CudaDevice::GetMemory(size_t& free_bytes, size_t& total_bytes) {
  Stream();
  RequireCuda(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
}

absl::StatusOr<void*> CudaDevice::TakeMemory(size_t size_bytes) {
  Stream();
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, size_bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // no error of what follows
    size_t free_bytes = 0, total_bytes = 0;
    GetMemory(free_bytes, total_bytes);
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", size_bytes, " bytes of memory of GPU ",
                                                     ordinal_, "; free: ", free_bytes, " of ", total_bytes, " bytes; ",
                                                     kAdvice));
  }
  RequireCuda(error, "cudaMalloc", {{"bytes", static_cast<int64_t>(size_bytes)}});
  return data;
}

absl::Status CudaDevice::Reserve(size_t size_bytes, int buffers) {
  const size_t needed_bytes = size_bytes + MemoryArena::Slack(static_cast<size_t>(buffers));
  // Of the job before: free again, and large enough, or freed with its last buffer.
  if (arena_ != nullptr && arena_->IsFreeFor(needed_bytes)) return absl::OkStatus();
  arena_.reset();
  absl::StatusOr<void*> data = TakeMemory(needed_bytes);
  if (!data.ok()) return data.status();
  arena_ = std::make_shared<Arena>(*data, needed_bytes);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> CudaDevice::Allocate(size_t size_bytes) {
  if (arena_ != nullptr) {
    if (std::unique_ptr<DeviceBuffer> buffer = Arena::Take(arena_, size_bytes); buffer != nullptr) {
      ZeroNew(*buffer);
      return buffer;
    }
  }
  return AllocateApart(size_bytes);
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> CudaDevice::AllocateApart(size_t size_bytes) {
  absl::StatusOr<void*> data = TakeMemory(size_bytes == 0 ? 1 : size_bytes);
  if (!data.ok()) return data.status();
  auto buffer = std::make_unique<CudaBuffer>(*data, size_bytes);
  ZeroNew(*buffer);
  return std::unique_ptr<DeviceBuffer>(std::move(buffer));
}

void CudaDevice::ZeroNew(const DeviceBuffer& buffer) { Zero(buffer.data(), buffer.size_bytes()); }

void CudaDevice::CopyToHost(void* host, const void* device, size_t size_bytes) {
  RequireCuda(cudaMemcpyAsync(host, device, size_bytes, cudaMemcpyDeviceToHost, Stream()),
              "copy to the host", {{"bytes", static_cast<int64_t>(size_bytes)}});
  Synchronize();
}

void CudaDevice::CopyToDevice(void* device, const void* host, size_t size_bytes) {
  RequireCuda(cudaMemcpyAsync(device, host, size_bytes, cudaMemcpyHostToDevice, Stream()), "copy to the GPU",
              {{"bytes", static_cast<int64_t>(size_bytes)}});
  Synchronize();
}

void CudaDevice::Copy(void* to, const void* from, size_t size_bytes) {
  RequireCuda(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToDevice, Stream()),
              "copy within the GPU", {{"bytes", static_cast<int64_t>(size_bytes)}});
}

void CudaDevice::Zero(void* device, size_t size_bytes) {
  RequireCuda(cudaMemsetAsync(device, 0, size_bytes, Stream()), "cudaMemsetAsync",
              {{"bytes", static_cast<int64_t>(size_bytes)}});
}

void CudaDevice::Synchronize() { RequireCuda(cudaStreamSynchronize(Stream()), "waiting for the GPU"); }

cudaStream_t CudaDevice::Stream() {
  RequireCuda(cudaSetDevice(ordinal_), "cudaSetDevice");
  return stream_;
}

}  // namespace accrue::cuda
