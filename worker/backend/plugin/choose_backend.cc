#include "worker/backend/plugin/choose_backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "worker/backend/plugin/plugin_loader.h"

namespace accrue {
namespace {

// found_gpus: whether there was any, whatever becomes of it.
absl::StatusOr<ChosenBackend> ChooseGpu(const BackendOptions& options, const BackendSources& sources,
                                        bool& found_gpus) {
  ACCRUE_ASSIGN_OR_RETURN(const std::string path, sources.find_plugin());
  ACCRUE_ASSIGN_OR_RETURN(const GpuReport report, sources.probe_gpus());
  found_gpus = !report.gpus.empty();
  ACCRUE_ASSIGN_OR_RETURN(const BackendPlugin* const plugin, sources.load_plugin(path));
  ACCRUE_ASSIGN_OR_RETURN(const GpuInfo gpu, CheckGpu(report, plugin->needs(), options.gpu));
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, plugin->create_backend(options.gpu));
  return ChosenBackend{.name = plugin->name,
                       .backend = std::move(backend),
                       .plugin = plugin,
                       .reason = absl::StrCat("GPU ", options.gpu, " (", gpu.name, ") can be used")};
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
