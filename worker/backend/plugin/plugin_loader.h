// Finds and loads a backend's plugin.
//
// Thread-safe: functions without state.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/backend/plugin/plugin.h"

namespace accrue {

inline constexpr char kCudaPlugin[] = "libaccrue_cuda.so";

// Where the plugin is looked for, in this order: beside the program, then in ../lib/accrue from there.
std::vector<std::string> PluginPlaces(const std::string& program_folder);

// The folder of the program that runs; "." where the system does not tell.
std::string ProgramFolder();

// The first of these files that exists. NOT_FOUND names all.
absl::StatusOr<std::string> FindPlugin(const std::vector<std::string>& places);

// FAILED_PRECONDITION: it cannot be loaded, with the loader's words (a library that it needs, which is missing); it is
// no plugin; or it belongs to another build of accrue, with what was found and what is needed.
absl::StatusOr<const BackendPlugin*> LoadPlugin(const std::string& path);

}  // namespace accrue
