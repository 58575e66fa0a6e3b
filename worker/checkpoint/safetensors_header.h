// The JSON header of a safetensors file, parsed and checked. For worker/checkpoint/safetensors.cc.
//
// Pure function; thread-safe. Nothing throws.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/checkpoint/safetensors.h"

namespace accrue {

struct SafetensorsHeader {
  std::vector<SafetensorsTensor> tensors;  // in the order of their data
  std::map<std::string, std::string> metadata;
};

// data_bytes: size of the part after the header. INVALID_ARGUMENT, without the file's path, for anything that
// breaks an invariant of SafetensorsFile.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json, uint64_t data_bytes);

}  // namespace accrue
