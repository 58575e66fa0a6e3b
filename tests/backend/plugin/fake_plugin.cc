// A plugin for tests that computes on the CPU. FAKE_BUILD: what it says it was built with.
#include <memory>
#include <utility>

#include "common/version.h"
#include "worker/backend/plugin/plugin.h"
#include "worker/collective/gloo_collective.h"

#ifndef FAKE_BUILD
#define FAKE_BUILD ACCRUE_PLUGIN_BUILD
#endif

namespace accrue {
namespace {

GpuNeeds Needs() { return {.driver_version = 13000, .architectures = {80, 90}, .memory_bytes = int64_t{1} << 30}; }

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(int) { return CreateCpuBackend(1); }

absl::StatusOr<std::unique_ptr<CollectiveFactory>> CreateCollectives(Backend&,
                                                                     const PluginCollectiveOptions& options,
                                                                     RendezvousStore* store) {
  return CreateGlooFactory({.bind_address = options.bind_address}, store);
}

constexpr BackendPlugin kPlugin{.build = FAKE_BUILD,
                                .version = kVersion,
                                .kernel_revision = kKernelRevision,
                                .name = "cuda",
                                .needs = Needs,
                                .create_backend = CreateBackend,
                                .create_collectives = CreateCollectives};

}  // namespace
}  // namespace accrue

extern "C" const accrue::BackendPlugin* accrue_backend_plugin_1() { return &accrue::kPlugin; }
