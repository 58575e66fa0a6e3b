// What a backend that is loaded at run time (libaccrue_cuda.so) gives to the program: one C function, found by its
// name, which carries the version of this page; and what that returns.
//
// Objects of C++ pass between the two, so both must be built from the same sources, with the same compiler and
// libraries: `build` says with what, and is compared before anything else is looked at.
//
// Thread-safe. A plugin is never unloaded: what came from it lives as long as the process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/config.h"
#include "absl/status/statusor.h"
#include "common/profiler_ranges.h"
#include "worker/backend/backend.h"
#include "worker/backend/plugin/gpu_probe.h"
#include "worker/collective/collective.h"

namespace accrue {

#define ACCRUE_PLUGIN_STRING_INNER(text) #text
#define ACCRUE_PLUGIN_STRING(text) ACCRUE_PLUGIN_STRING_INNER(text)

// The product's version, and the kernels' revision, are added where it is compared with a plugin's.
#define ACCRUE_PLUGIN_BUILD                                                                            \
  "plugin 1, compiler " __VERSION__ ", abseil " ACCRUE_PLUGIN_STRING(ABSL_LTS_RELEASE_VERSION) "." \
      ACCRUE_PLUGIN_STRING(ABSL_LTS_RELEASE_PATCH_LEVEL)

struct PluginCollectiveOptions {
  std::string bind_address = "127.0.0.1";  // a host name or address of this machine that the peers can reach
  int slot = 0;                            // GpuSlot::number of the backend's GPU
};

struct BackendPlugin {
  const char* build = nullptr;    // ACCRUE_PLUGIN_BUILD of the plugin's sources
  const char* version = nullptr;  // kVersion of these
  int kernel_revision = 0;        // kKernelRevision

  const char* name = nullptr;  // of the backend: "cuda"
  GpuNeeds (*needs)() = nullptr;
  // A backend on the GPU of this number, which has passed CheckGpu. Codes of CheckGpu; UNAVAILABLE with the call that
  // failed.
  absl::StatusOr<std::unique_ptr<Backend>> (*create_backend)(int ordinal) = nullptr;
  // Communicators for memory of that backend, which must outlive them, and so must the store.
  absl::StatusOr<std::unique_ptr<CollectiveFactory>> (*create_collectives)(Backend& backend,
                                                                           const PluginCollectiveOptions& options,
                                                                           RendezvousStore* store) = nullptr;
  ProfilerRanges* profiler_ranges = nullptr;  // of the vendor's profiler; null: none
};

inline constexpr char kPluginEntry[] = "accrue_backend_plugin_1";
using PluginEntry = const BackendPlugin* (*)();

}  // namespace accrue
