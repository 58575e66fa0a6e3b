#include "common/schedule.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "common/check.h"

namespace accrue {

double DeterministicCosine(double x) {
  constexpr double kPi = 3.14159265358979323846;
  ACCRUE_CHECK(x >= 0 && x <= 3.2);
  // cos(x) = 1 - 2 sin^2(x/2); fold x/2 into [0, pi/4] where the Taylor polynomials below are exact to an ulp.
  const double half = x / 2;
  const bool fold = half > kPi / 4;
  const double y = fold ? kPi / 2 - half : half;
  const double z = y * y;
  double sine = 0, cosine = 0;
  // Horner over (-1)^n z^n / (2n+1)! and / (2n)!; the first term left out is below 2^-60.
  for (int n = 9; n >= 0; --n) {
    sine = 1 - sine * z / ((2 * n + 2.0) * (2 * n + 3.0));
    cosine = 1 - cosine * z / ((2 * n + 1.0) * (2 * n + 2.0));
  }
  sine *= y;
  const double sine_of_half = fold ? cosine : sine;
  return 1 - 2 * sine_of_half * sine_of_half;
}

double BiasCorrection(double beta, int64_t steps) {
  double power = 1, square = beta;
  for (int64_t n = steps; n > 0; n >>= 1) {
    if (n & 1) power *= square;
    square *= square;
  }
  return 1 - power;
}

double LearningRate(const ScheduleConfig& config, int64_t window) {
  constexpr double kPi = 3.14159265358979323846;
  const double peak = config.learning_rate;
  if (window < config.warmup_windows) {
    return peak * static_cast<double>(window + 1) / static_cast<double>(config.warmup_windows);
  }
  const double floor = peak * config.minimum_ratio;
  // Progress through the decay: 0 at its first window, 1 at the job's last.
  const auto progress = [&](int64_t begin) {
    const int64_t span = config.total_windows - 1 - begin;
    if (span <= 0) return window >= config.total_windows - 1 && window > begin ? 1.0 : 0.0;
    return std::clamp(static_cast<double>(window - begin) / static_cast<double>(span), 0.0, 1.0);
  };
  switch (config.kind) {
    case ScheduleKind::kConstant:
      return peak;
    case ScheduleKind::kLinear:
      return peak + (floor - peak) * progress(config.warmup_windows);
    case ScheduleKind::kCosine:
      return floor + 0.5 * (peak - floor) * (1 + DeterministicCosine(kPi * progress(config.warmup_windows)));
    case ScheduleKind::kWarmupStableDecay: {
      const int64_t begin = std::max(config.warmup_windows, config.total_windows - 1 - config.decay_windows);
      return config.decay_windows == 0 || window < begin ? peak : peak + (floor - peak) * progress(begin);
    }
  }
  ACCRUE_CHECK(false);
}

StepScalars ScalarsOf(const ScheduleConfig& config, int64_t window, int64_t steps_before) {
  const auto bits = [](double value) { return std::bit_cast<uint32_t>(static_cast<float>(value)); };
  return {bits(LearningRate(config, window)), bits(BiasCorrection(config.beta1, steps_before + 1)),
          bits(BiasCorrection(config.beta2, steps_before + 1))};
}

}  // namespace accrue
