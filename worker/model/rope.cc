#include "worker/model/rope.h"

#include "worker/model/elementary.h"

namespace accrue {
namespace {

constexpr double kTwoPi = 6.28318530717958647692528676656;

// Source: Hugging Face's `_compute_llama3_parameters`: long waves are stretched, short ones kept, those
// between are mixed.
double Stretch(const RopeScaling& scaling, double frequency) {
  if (scaling.kind == RopeScalingKind::kNone) return frequency;
  if (scaling.kind == RopeScalingKind::kLinear) return frequency / scaling.factor;
  const double wavelength = kTwoPi / frequency;
  const double context = static_cast<double>(scaling.original_context);
  if (wavelength > context / scaling.low_frequency_factor) return frequency / scaling.factor;
  if (wavelength < context / scaling.high_frequency_factor) return frequency;
  const double smooth = (context / wavelength - scaling.low_frequency_factor) /
                        (scaling.high_frequency_factor - scaling.low_frequency_factor);
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency;
}

}  // namespace

RopeTables MakeRopeTables(const ModelConfig& config, int64_t positions) {
  const int64_t half = config.HeadSize() / 2;
  RopeTables tables{std::vector<float>(positions * half), std::vector<float>(positions * half)};
  const double log_theta = PortableLog(config.rope_theta);
  for (int64_t i = 0; i < half; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(config.HeadSize());
    const double frequency = Stretch(config.rope_scaling, PortableExp(exponent * log_theta));
    for (int64_t position = 0; position < positions; ++position) {
      const SineCosine value = PortableSineCosine(static_cast<double>(position) * frequency / kTwoPi);
      tables.cosine[position * half + i] = static_cast<float>(value.cosine);
      tables.sine[position * half + i] = static_cast<float>(value.sine);
    }
  }
  return tables;
}

}  // namespace accrue
