#include "worker/backend/cuda/plugin/cuda_nccl.h"

#include <nccl.h>

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace accrue::cuda {
namespace {

static_assert(nccl::kSuccess == ncclSuccess && nccl::kInProgress == ncclInProgress);
static_assert(sizeof(nccl::UniqueId) == sizeof(ncclUniqueId));

constexpr size_t kBounceBytes = size_t{4} << 20;

ncclComm_t CommOf(nccl::Handle handle) { return static_cast<ncclComm_t>(handle); }

ncclDataType_t TypeOf(nccl::Element element) {
  switch (element) {
    case nccl::Element::kInt64:
      return ncclInt64;
    case nccl::Element::kFloat32:
      return ncclFloat32;
    case nccl::Element::kByte:
      break;
  }
  return ncclUint8;
}

class NcclCalls : public nccl::Calls {
 public:
  NcclCalls(CudaDevice& device, cudaStream_t stream, cudaEvent_t computed, std::unique_ptr<DeviceBuffer> bounce)
      : device_(device), stream_(stream), computed_(computed), bounce_(std::move(bounce)) {}
  ~NcclCalls() override {
    device_.Stream();
    RequireCuda(cudaEventDestroy(computed_), "cudaEventDestroy");
    RequireCuda(cudaStreamDestroy(stream_), "cudaStreamDestroy");
  }

  int GetUniqueId(nccl::UniqueId& id) override {
    device_.Stream();
    ncclUniqueId made;
    const ncclResult_t result = ncclGetUniqueId(&made);
    if (result == ncclSuccess) std::memcpy(id.data(), &made, sizeof(made));
    return result;
  }
  int InitRank(nccl::Handle& handle, int size, const nccl::UniqueId& id, int rank) override {
    device_.Stream();
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclUniqueId taken;
    std::memcpy(&taken, id.data(), sizeof(taken));
    ncclComm_t comm = nullptr;
    const ncclResult_t result = ncclCommInitRankConfig(&comm, size, taken, rank, &config);
    handle = comm;
    return result;
  }
  int AsyncError(nccl::Handle handle, int& state) override {
    ncclResult_t now = ncclSuccess;
    const ncclResult_t result = ncclCommGetAsyncError(CommOf(handle), &now);
    state = now;
    return result;
  }
  int Finalize(nccl::Handle handle) override { return ncclCommFinalize(CommOf(handle)); }
  int Destroy(nccl::Handle handle) override { return ncclCommDestroy(CommOf(handle)); }
  int Abort(nccl::Handle handle) override { return ncclCommAbort(CommOf(handle)); }
  int AllReduce(const void* in, void* out, size_t count, nccl::Element element, nccl::Handle handle) override {
    return ncclAllReduce(in, out, count, TypeOf(element), ncclSum, CommOf(handle), stream_);
  }
  int Broadcast(void* data, size_t size_bytes, int root, nccl::Handle handle) override {
    return ncclBroadcast(data, data, size_bytes, ncclUint8, root, CommOf(handle), stream_);
  }
  std::string ResultText(int result, nccl::Handle handle) override {
    const char* const last = ncclGetLastError(CommOf(handle));
    return absl::StrCat(ncclGetErrorString(static_cast<ncclResult_t>(result)), " (", result, ")",
                        last == nullptr || *last == '\0' ? "" : "; last: ", last == nullptr ? "" : last);
  }

  void FollowCompute() override {
    RequireCuda(cudaEventRecord(computed_, device_.Stream()), "cudaEventRecord");
    RequireCuda(cudaStreamWaitEvent(stream_, computed_, 0), "cudaStreamWaitEvent");
  }
  bool IsIdle() override {
    const cudaError_t error = cudaStreamQuery(stream_);
    if (error == cudaErrorNotReady) {
      cudaGetLastError();  // no error of what follows
      return false;
    }
    RequireCuda(error, "cudaStreamQuery of the collectives' stream");
    return true;
  }

  void* bounce() override { return bounce_->data(); }
  size_t bounce_bytes() const override { return kBounceBytes; }
  void CopyToDevice(void* device, const void* host, size_t size_bytes) override {
    device_.CopyToDevice(device, host, size_bytes);
  }
  void CopyToHost(void* host, const void* device, size_t size_bytes) override {
    device_.CopyToHost(host, device, size_bytes);
  }
  void Copy(void* to, const void* from, size_t size_bytes) override {
    device_.Copy(to, from, size_bytes);
    device_.Synchronize();
  }

 private:
  CudaDevice& device_;
  const cudaStream_t stream_;
  const cudaEvent_t computed_;
  const std::unique_ptr<DeviceBuffer> bounce_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<nccl::Calls>> CreateNcclCalls(CudaDevice& device) {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess || version < NCCL_VERSION_CODE / 100 * 100) {
    return absl::FailedPreconditionError(absl::StrCat("NCCL is too old: found version code ", version, ", needed is ",
                                                      NCCL_VERSION_CODE / 100 * 100, " or later"));
  }
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<DeviceBuffer> bounce, device.AllocateApart(kBounceBytes));
  device.Stream();
  cudaStream_t stream = nullptr;
  cudaEvent_t computed = nullptr;
  RequireCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  RequireCuda(cudaEventCreateWithFlags(&computed, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  return std::unique_ptr<nccl::Calls>(std::make_unique<NcclCalls>(device, stream, computed, std::move(bounce)));
}

}  // namespace accrue::cuda
