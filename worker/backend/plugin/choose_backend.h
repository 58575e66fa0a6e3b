// What computes: the CPU, or a GPU by the CUDA plugin; decided when a worker starts, and why.
//
// Thread-safe: functions without state.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"
#include "worker/backend/plugin/gpu_slot.h"
#include "worker/backend/plugin/plugin.h"

namespace accrue {

enum class BackendChoice { kAuto, kCpu, kCuda };

struct BackendOptions {
  BackendChoice choice = BackendChoice::kAuto;
  int threads = 0;      // of the CPU: CreateCpuBackend
  std::string plugin;   // its file; empty: where PluginPlaces says
  int gpu = -1;         // its number; -1: the one that the fewest workers of this machine have taken
};

// What is asked about the machine; tests give their own.
struct BackendSources {
  std::function<absl::StatusOr<std::string>()> find_plugin;  // its file
  std::function<absl::StatusOr<GpuReport>()> probe_gpus;
  std::function<absl::StatusOr<const BackendPlugin*>(const std::string&)> load_plugin;
  std::function<absl::StatusOr<std::unique_ptr<GpuSlot>>(const std::vector<std::string>& gpus)> take_slot;
  std::function<std::unique_ptr<Backend>()> create_cpu;
};

BackendSources RealBackendSources(const BackendOptions& options);

struct ChosenBackend {
  std::string name;                       // "cpu", or the plugin's
  std::shared_ptr<Backend> backend;
  const BackendPlugin* plugin = nullptr;  // null for the CPU, and so is:
  std::shared_ptr<GpuSlot> slot;          // to be kept as long as the backend
  std::string reason;                     // for people
  bool is_fallback = false;               // a GPU was wanted and there, but cannot be used: worth a warning
};

// kAuto: the GPU when the plugin is there and a GPU can be used, else the CPU. kCuda: errors are those of FindPlugin,
// LoadDriver, ProbeGpus, LoadPlugin, CheckGpu and the plugin, in this order, so that what is cheap is asked first.
absl::StatusOr<ChosenBackend> ChooseBackend(const BackendOptions& options, const BackendSources& sources);

}  // namespace accrue
