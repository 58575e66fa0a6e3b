#include "worker/backend/plugin/plugin_loader.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <climits>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/version.h"

namespace accrue {
namespace {

std::string BuildText(const char* version, int kernel_revision, const char* build) {
  return absl::StrCat("accrue ", version, ", kernels ", kernel_revision, ", ", build);
}

}  // namespace

std::vector<std::string> PluginPlaces(const std::string& program_folder) {
  return {absl::StrCat(program_folder, "/", kCudaPlugin), absl::StrCat(program_folder, "/../lib/accrue/", kCudaPlugin)};
}

std::string ProgramFolder() {
  char path[PATH_MAX] = {};
  if (realpath("/proc/self/exe", path) == nullptr) return ".";
  const std::string program(path);
  return program.substr(0, program.rfind('/'));
}

absl::StatusOr<std::string> FindPlugin(const std::vector<std::string>& places) {
  for (const std::string& path : places) {
    if (struct stat entry; stat(path.c_str(), &entry) == 0) return path;
  }
  return absl::NotFoundError(absl::StrCat("the CUDA backend is not installed: looked for ",
                                          absl::StrJoin(places, " and "),
                                          "; docs/cuda.md says how it is built"));
}

absl::StatusOr<const BackendPlugin*> LoadPlugin(const std::string& path) {
  // With a slash in it, so that the loader takes this file and searches nowhere.
  const std::string file = path.find('/') == std::string::npos ? absl::StrCat("./", path) : path;
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("the CUDA backend cannot be loaded: ", dlerror()));
  }
  const auto entry = reinterpret_cast<PluginEntry>(dlsym(library, kPluginEntry));
  const BackendPlugin* const plugin = entry == nullptr ? nullptr : entry();
  if (plugin == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is no backend for this program: it has no function ", kPluginEntry));
  }
  const std::string found = BuildText(plugin->version, plugin->kernel_revision, plugin->build);
  const std::string needed = BuildText(kVersion, kKernelRevision, ACCRUE_PLUGIN_BUILD);
  if (found != needed) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is of another build than this program: found ", found,
                                                      "; needed is ", needed));
  }
  return plugin;
}

}  // namespace accrue
