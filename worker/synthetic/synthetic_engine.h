// An engine without a model: units take a fixed time and no processor, and gradients follow from a formula.
//
// For tests of a fleet (recovery, schedules, overhead) where the training itself is of no interest: any job file works,
// hundreds of workers fit on one machine, and digests still tell whether every unit was counted once, on the right
// parameters: of a unit with n valid targets, element i of the arena has the gradient
//
//   n * (p_i / 16 + noise(seed, window, unit, i))       noise: uniform in [-2^-6, 2^-6), a multiple of 2^-29
//
// in binary32, one rounding an operation, p_i being its parameter, and the loss is n * (1 + mean of p_i^2). Both depend
// on nothing else: not on the worker, the thread count or the clock.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/clock.h"
#include "worker/engine/engine.h"

namespace accrue {

struct SyntheticOptions {
  int64_t unit_ns = 0;  // of a unit, for training and evaluation; more if the formula alone takes longer
  int64_t parameters = kDefaultParameters;
  uint64_t seed = 0;
  int64_t vocabulary = 1;

  static constexpr int64_t kDefaultParameters = 65'536;
  static constexpr int64_t kLeastParameters = 2, kMostParameters = int64_t{1} << 32;
};

// "MILLISECONDS" or "MILLISECONDS,PARAMETERS", as --synthetic has it: milliseconds, with a fraction if need be, in
// [0, 3600000]. INVALID_ARGUMENT says what was found and what is expected.
absl::StatusOr<SyntheticOptions> ParseSynthetic(absl::string_view text);

// The clock must outlive the engine. Parameters are in host memory.
absl::StatusOr<std::unique_ptr<Engine>> CreateSyntheticEngine(const SyntheticOptions& options, const Clock& clock);

}  // namespace accrue
