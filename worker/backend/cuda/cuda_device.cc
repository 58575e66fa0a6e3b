#include "worker/backend/cuda/cuda_device.h"

#include <cstdio>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

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
  ~CudaBuffer() override { RequireCuda(cudaFree(data_), "cudaFree"); }
  CudaBuffer(const CudaBuffer&) = delete;
  CudaBuffer& operator=(const CudaBuffer&) = delete;
  void* data() const override { return data_; }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  void* const data_;
  const size_t size_bytes_;
};

}  // namespace

void RequireCuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "the GPU failed: %s: %s (%s); this worker ends\n", what, cudaGetErrorString(error),
               cudaGetErrorName(error));
  std::abort();
}

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

absl::StatusOr<std::unique_ptr<DeviceBuffer>> CudaDevice::Allocate(size_t size_bytes) {
  const cudaStream_t stream = Stream();
  void* data = nullptr;
  const size_t taken_bytes = size_bytes == 0 ? 1 : size_bytes;
  const cudaError_t error = cudaMalloc(&data, taken_bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // no error of what follows
    size_t free_bytes = 0, total_bytes = 0;
    RequireCuda(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", size_bytes, " bytes of GPU memory; free: ", free_bytes, " of ",
                     total_bytes, " bytes; take a smaller micro_batch or model"));
  }
  RequireCuda(error, "cudaMalloc");
  auto buffer = std::make_unique<CudaBuffer>(data, size_bytes);
  RequireCuda(cudaMemsetAsync(data, 0, taken_bytes, stream), "cudaMemsetAsync");
  return buffer;
}

void CudaDevice::CopyToHost(void* host, const void* device, size_t size_bytes) {
  RequireCuda(cudaMemcpyAsync(host, device, size_bytes, cudaMemcpyDeviceToHost, Stream()),
              "copy to the host");
  Synchronize();
}

void CudaDevice::CopyToDevice(void* device, const void* host, size_t size_bytes) {
  RequireCuda(cudaMemcpyAsync(device, host, size_bytes, cudaMemcpyHostToDevice, Stream()), "copy to the GPU");
  Synchronize();
}

void CudaDevice::Copy(void* to, const void* from, size_t size_bytes) {
  RequireCuda(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToDevice, Stream()),
              "copy within the GPU");
}

void CudaDevice::Zero(void* device, size_t size_bytes) {
  RequireCuda(cudaMemsetAsync(device, 0, size_bytes, Stream()), "cudaMemsetAsync");
}

void CudaDevice::Synchronize() { RequireCuda(cudaStreamSynchronize(Stream()), "waiting for the GPU"); }

cudaStream_t CudaDevice::Stream() {
  RequireCuda(cudaSetDevice(ordinal_), "cudaSetDevice");
  return stream_;
}

}  // namespace accrue::cuda
