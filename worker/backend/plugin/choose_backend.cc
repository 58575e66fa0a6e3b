#include "worker/backend/plugin/choose_backend.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "worker/backend/plugin/plugin_loader.h"

namespace accrue {
namespace {

// The same for every process of the machine.
std::string KeyOf(const GpuReport& report, int ordinal) {
  const std::string& uuid = report.gpus[ordinal].uuid;
  return uuid.empty() ? absl::StrCat("number-", ordinal) : uuid;
}

// Those that may be taken: the one that was asked for, or all that will do.
absl::StatusOr<std::vector<int>> UsableGpus(const BackendOptions& options, const GpuReport& report,
                                            const GpuNeeds& needs) {
  std::vector<int> usable;
  if (options.gpu < 0) {
    for (int ordinal = 0; ordinal < static_cast<int>(report.gpus.size()); ++ordinal) {
      if (CheckGpu(report, needs, ordinal).ok()) usable.push_back(ordinal);
    }
    if (!usable.empty()) return usable;
  }
  const int ordinal = std::max(options.gpu, 0);
  ACCRUE_RETURN_IF_ERROR(CheckGpu(report, needs, ordinal).status());
  return std::vector<int>{ordinal};
}

// found_gpus: whether there was any, whatever becomes of it.
absl::StatusOr<ChosenBackend> ChooseGpu(const BackendOptions& options, const BackendSources& sources,
                                        bool& found_gpus) {
  ACCRUE_ASSIGN_OR_RETURN(const std::string path, sources.find_plugin());
  ACCRUE_ASSIGN_OR_RETURN(const GpuReport report, sources.probe_gpus());
  found_gpus = !report.gpus.empty();
  ACCRUE_ASSIGN_OR_RETURN(const BackendPlugin* const plugin, sources.load_plugin(path));
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<int> usable, UsableGpus(options, report, plugin->needs()));
  std::vector<std::string> keys;
  for (int ordinal : usable) keys.push_back(KeyOf(report, ordinal));
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<GpuSlot> slot, sources.take_slot(keys));
  const int ordinal = usable[slot->gpu()];
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, plugin->create_backend(ordinal));
  const std::string others = slot->number() == 0 ? "" : absl::StrCat(", which ", slot->number(), " others use too");
  return ChosenBackend{.name = plugin->name,
                       .backend = std::move(backend),
                       .plugin = plugin,
                       .slot = std::move(slot),
                       .reason = absl::StrCat("GPU ", ordinal, " (", report.gpus[ordinal].name, ") can be used", others)};
}

}  // namespace

BackendSources RealBackendSources(const BackendOptions& options) {
  return {.find_plugin = [options]() -> absl::StatusOr<std::string> {
            if (options.plugin.empty()) return FindPlugin(PluginPlaces(ProgramFolder()));
            return FindPlugin({options.plugin});
          },
          .probe_gpus = []() -> absl::StatusOr<GpuReport> {
            ACCRUE_ASSIGN_OR_RETURN(const DriverFunctions driver, LoadDriver());
            return ProbeGpus(driver);
          },
          .load_plugin = LoadPlugin,
          .take_slot = [](const std::vector<std::string>& gpus) { return GpuSlot::TakeLeastUsed("/tmp", gpus); },
          .create_cpu = [options] { return CreateCpuBackend(options.threads); }};
}

absl::StatusOr<ChosenBackend> ChooseBackend(const BackendOptions& options, const BackendSources& sources) {
  ChosenBackend cpu{.name = "cpu", .reason = "asked for"};
  if (options.choice != BackendChoice::kCpu) {
    absl::StatusOr<ChosenBackend> gpu = ChooseGpu(options, sources, cpu.is_fallback);
    if (gpu.ok() || options.choice == BackendChoice::kCuda) return gpu;
    cpu.reason = std::string(gpu.status().message());
  }
  cpu.backend = sources.create_cpu();
  return cpu;
}

}  // namespace accrue
