// libaccrue_cuda.so: what worker/backend/plugin/plugin.h asks of it.
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/status.h"
#include "common/version.h"
#include "worker/backend/cuda/cuda_backend.h"
#include "worker/backend/cuda/plugin/cuda_nccl.h"
#include "worker/backend/cuda/plugin/nvtx_ranges.h"
#include "worker/backend/plugin/plugin.h"
#include "worker/collective/nccl/nccl_collective.h"

namespace accrue {
namespace {

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(int ordinal) {
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<cuda::CudaBackend> backend, cuda::CreateCudaBackend(ordinal));
  return std::unique_ptr<Backend>(std::move(backend));
}

// The name of the network interface that has this address; empty where none has.
std::string InterfaceOf(const std::string& address) {
  addrinfo* wanted = nullptr;
  ifaddrs* interfaces = nullptr;
  std::string name;
  if (getaddrinfo(address.c_str(), nullptr, nullptr, &wanted) != 0) return name;
  if (getifaddrs(&interfaces) == 0) {
    for (const ifaddrs* at = interfaces; at != nullptr && name.empty(); at = at->ifa_next) {
      if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != wanted->ai_family) continue;
      if (wanted->ai_family == AF_INET &&
          reinterpret_cast<const sockaddr_in*>(at->ifa_addr)->sin_addr.s_addr ==
              reinterpret_cast<const sockaddr_in*>(wanted->ai_addr)->sin_addr.s_addr) {
        name = at->ifa_name;
      }
      if (wanted->ai_family == AF_INET6 &&
          std::memcmp(&reinterpret_cast<const sockaddr_in6*>(at->ifa_addr)->sin6_addr,
                      &reinterpret_cast<const sockaddr_in6*>(wanted->ai_addr)->sin6_addr, sizeof(in6_addr)) == 0) {
        name = at->ifa_name;
      }
    }
    freeifaddrs(interfaces);
  }
  freeaddrinfo(wanted);
  return name;
}

// What the user has set stays.
void SetDefault(const char* name, const std::string& value) {
  if (!value.empty()) setenv(name, value.c_str(), /*overwrite=*/0);
}

// Before NCCL's first call, which reads these: it stays on the interface of the workers' own address; its services
// beside communicators stay off; who shares a GPU looks like a host of its own.
void PrepareNccl(const std::string& address, int slot) {
  const std::string interface = InterfaceOf(address);
  if (!interface.empty()) SetDefault("NCCL_SOCKET_IFNAME", "=" + interface);
  SetDefault("NCCL_RAS_ENABLE", "0");
  SetDefault("NCCL_MNNVL_ENABLE", "0");
  if (slot == 0) return;
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  SetDefault("NCCL_HOSTID", absl::StrCat("accrue-", host, "-", slot));
}

// A factory with all that it is made of.
class CudaCollectives : public CollectiveFactory {
 public:
  CudaCollectives(std::unique_ptr<nccl::Calls> calls, std::unique_ptr<CollectiveFactory> factory)
      : calls_(std::move(calls)), factory_(std::move(factory)) {}

  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string& name, int rank, int size,
                                                       int64_t deadline_ms) override {
    return factory_->Create(name, rank, size, deadline_ms);
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string& name, int rank, int size,
                                                            int64_t deadline_ms) override {
    return factory_->CreateAhead(name, rank, size, deadline_ms);
  }

 private:
  const std::unique_ptr<nccl::Calls> calls_;
  const std::unique_ptr<CollectiveFactory> factory_;
};

absl::StatusOr<std::unique_ptr<CollectiveFactory>> CreateCollectives(Backend& backend,
                                                                     const PluginCollectiveOptions& options,
                                                                     RendezvousStore* store) {
  cuda::CudaDevice& device = static_cast<cuda::CudaBackend&>(backend).device();
  PrepareNccl(options.bind_address, options.slot);
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<nccl::Calls> calls, cuda::CreateNcclCalls(device));
  ACCRUE_ASSIGN_OR_RETURN(
      std::unique_ptr<CollectiveFactory> factory,
      nccl::CreateNcclFactory({.bind_address = options.bind_address}, *calls, Clock::Real(), store));
  return std::unique_ptr<CollectiveFactory>(
      std::make_unique<CudaCollectives>(std::move(calls), std::move(factory)));
}

const BackendPlugin kPlugin{.build = ACCRUE_PLUGIN_BUILD,
                                .version = kVersion,
                                .kernel_revision = kKernelRevision,
                                .name = "cuda",
                                .needs = cuda::CudaNeeds,
                                .create_backend = CreateBackend,
                                .create_collectives = CreateCollectives,
                            .profiler_ranges = cuda::NvtxRanges()};

}  // namespace
}  // namespace accrue

extern "C" __attribute__((visibility("default"))) const accrue::BackendPlugin* accrue_backend_plugin_1() {
  return &accrue::kPlugin;
}
