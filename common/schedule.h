// The learning-rate schedule and the optimizer scalars of a window: evaluated by the coordinator alone and sent as
// bits. docs/numerics.md, section 7. Pure functions; no libm (cosine is the project's own).
#pragma once

#include <cstdint>
#include <string>

namespace accrue {

enum class ScheduleKind { kConstant, kLinear, kCosine, kWarmupStableDecay };

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::kCosine;
  double learning_rate = 1e-3;  // peak, the batch rule already applied
  int64_t warmup_windows = 0;
  int64_t total_windows = 1;
  int64_t decay_windows = 0;    // of kWarmupStableDecay
  double minimum_ratio = 0.1;
  double beta1 = 0.9, beta2 = 0.95;
};

// Bits of binary32 values.
struct StepScalars {
  uint32_t learning_rate_bits = 0;
  uint32_t bias_correction1_bits = 0;
  uint32_t bias_correction2_bits = 0;
};

// Warmup: window w < warmup runs at rate * (w + 1) / warmup. Then constant; linear or cosine from rate to
// rate * minimum_ratio at the last window; or stable, then linear over the last decay_windows.
double LearningRate(const ScheduleConfig& config, int64_t window);

// steps_before: windows that stepped before this one.
StepScalars ScalarsOf(const ScheduleConfig& config, int64_t window, int64_t steps_before);

// cos(x) for 0 <= x <= pi, by basic operations of binary64 only; error below 1e-15.
double DeterministicCosine(double x);

// 1 - beta^steps by repeated squaring in binary64.
double BiasCorrection(double beta, int64_t steps);

}  // namespace accrue
