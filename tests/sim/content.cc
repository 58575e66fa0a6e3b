// What simulated units, windows and evaluations come out as.
#include "common/philox.h"
#include "tests/sim/simulator.h"

namespace accrue::core {

// The draw of rare things must not depend on the digest, or a broken digest would show elsewhere first.
uint64_t Simulator::DrawOf(int64_t window, int64_t unit) const {
  return SplitMix64(config_.content_seed * 1'000'003 + static_cast<uint64_t>(window) * 65'537 +
                    static_cast<uint64_t>(unit));
}

uint64_t Simulator::GradientOf(uint64_t digest, int64_t window, int64_t unit,
                               const std::vector<int>& exponents) const {
  uint64_t gradient = SplitMix64(digest ^ DrawOf(window, unit));
  for (int exponent : exponents) gradient = SplitMix64(gradient + static_cast<uint64_t>(exponent));
  return gradient;
}

UnitReport Simulator::UnitOf(uint64_t digest, int64_t window, int64_t unit,
                             const std::vector<int>& exponents) const {
  const uint64_t draw = DrawOf(window, unit);
  const double chance = static_cast<double>(draw >> 11) * 0x1p-53;
  const double window_chance =
      static_cast<double>(SplitMix64(config_.content_seed + 77 + static_cast<uint64_t>(window)) >> 11) *
      0x1p-53;
  const uint64_t gradient = GradientOf(digest, window, unit, exponents);
  UnitReport report;
  report.unit = unit;
  report.loss_sum = static_cast<double>(gradient % 10'000) / 16;
  const int64_t tokens = config_.job.sequences_per_unit * config_.job.sequence_length;
  report.valid_tokens =
      window_chance < config_.empty ? 0 : static_cast<int64_t>(draw % static_cast<uint64_t>(tokens)) + 1;
  report.non_finite = chance < config_.non_finite;
  const bool overflow = chance > 1 - config_.overflows;
  report.max_exponents = {static_cast<int>(draw % 3) + (overflow ? 20 : 0), static_cast<int>(draw % 5) - 4};
  for (int64_t b = 0; b < kSimulatedBuckets; ++b) report.bucket_checksums.push_back(SimulatedGradient(gradient, b));
  report.compute_ns = 1;
  return report;
}

// A fault that comes and goes: of one unit it shows once. (Two workers that stand by different results end the job.)
void Simulator::MaybeLie(const SimulatedWorker& worker, UnitReport& report, uint64_t& gradient) {
  if (!worker.faulty || Uniform() >= config_.lies) return;
  if (!lied_about_.emplace(worker.state().window, report.unit).second) return;
  ++result_.lies;
  if (config_.lie == SimulationConfig::Lie::kGradient) {
    gradient ^= Random();
    for (int64_t b = 0; b < kSimulatedBuckets; ++b) {
      report.bucket_checksums[static_cast<size_t>(b)] = SimulatedGradient(gradient, b);
    }
  } else if (config_.lie == SimulationConfig::Lie::kNotFinite) {
    report.non_finite = true;
  } else {
    report.max_exponents[Random() % 2] += 100;
  }
}

EvaluationReport Simulator::EvaluationOf(uint64_t digest, int64_t unit) const {
  const uint64_t draw = SplitMix64(digest + static_cast<uint64_t>(unit));
  return {unit, static_cast<double>(draw % 10'000) / 7, static_cast<int64_t>(draw % 50) + 1};
}

}  // namespace accrue::core
