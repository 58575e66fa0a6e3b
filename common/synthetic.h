// What tells a synthetic job (worker/synthetic) from a real one wherever it is shown or kept.
#pragma once

#include "absl/strings/string_view.h"

namespace accrue {

// Begins the names of all tensors of a synthetic job; no model has such a tensor.
inline constexpr absl::string_view kSyntheticPrefix = "synthetic.";
// Hello.backend of a worker that computes synthetic units.
inline constexpr absl::string_view kSyntheticBackend = "synthetic";

}  // namespace accrue
