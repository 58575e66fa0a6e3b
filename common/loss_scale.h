// The power of two that the loss is multiplied by in fp16, so that its small gradients do not vanish in binary16.
// docs/numerics.md, section 12.
//
// Pure functions of integers; thread-safe. The coordinator alone decides it, from unit reports.
#pragma once

#include <cstdint>
#include <string>

namespace accrue {

// Exponents. Below 2^0 there is nothing to gain. The gradient of one token's loss reaches the scale itself, and binary16
// ends at 65504: growth stops where that always fits. A job file may begin above, up to kMostInitialLossScale.
inline constexpr int kLeastLossScale = 0;
inline constexpr int kMostGrownLossScale = 15;
inline constexpr int kMostInitialLossScale = 24;
// Of a job file that says nothing. The loss is a sum over tokens: others, who take its mean, begin with a multiple of this.
inline constexpr int64_t kDefaultInitialLossScale = 1024;
inline constexpr int64_t kDefaultGrowthWindows = 2000;

struct LossScaleConfig {
  int initial_exponent = 10;
  int64_t growth_windows = kDefaultGrowthWindows;
  friend bool operator==(const LossScaleConfig&, const LossScaleConfig&) = default;
};

// State: part of what a digest covers, of checkpoints, of what joiners copy.
struct LossScale {
  int exponent = 0;         // the loss is multiplied by 2^exponent
  int64_t good_windows = 0;  // that stepped in a row since it changed last
  friend bool operator==(const LossScale&, const LossScale&) = default;

  bool IsPossible() const {
    return exponent >= kLeastLossScale && exponent <= kMostInitialLossScale && good_windows >= 0;
  }
  int64_t Value() const { return int64_t{1} << exponent; }  // requires IsPossible()
};

// What became of a window, as far as the scale cares.
enum class WindowEnd {
  kStepped,
  kNonFinite,  // skipped, for a gradient that is not finite
  kEmpty,      // skipped, without a valid token
};

inline LossScale FirstLossScale(const LossScaleConfig& config) { return {config.initial_exponent, 0}; }

// Of the window after one that ended so.
inline LossScale NextLossScale(const LossScaleConfig& config, const LossScale& scale, WindowEnd end) {
  switch (end) {
    case WindowEnd::kNonFinite:
      return {scale.exponent > kLeastLossScale ? scale.exponent - 1 : kLeastLossScale, 0};
    case WindowEnd::kEmpty:
      return scale;
    case WindowEnd::kStepped:
      break;
  }
  const int64_t good = scale.good_windows + 1;
  if (good < config.growth_windows || scale.exponent >= kMostGrownLossScale) {
    return {scale.exponent, good < config.growth_windows ? good : config.growth_windows};
  }
  return {scale.exponent + 1, 0};
}

}  // namespace accrue
