// Draws tokens from a model's logits: temperature and top-k, from a counter-based generator, so that one seed
// gives one text whatever the number of threads.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

namespace accrue {

struct SamplerOptions {
  double temperature = 0.8;  // 0: always the likeliest
  int64_t top_k = 0;         // 0: all
  uint64_t seed = 0;
};

class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options) : options_(options) {}
  // One of the first `count` ids. Requires count >= 1; logits that are not finite are never drawn unless all
  // are.
  int32_t Draw(const float* logits, int64_t count);

 private:
  const SamplerOptions options_;
  uint32_t draws_ = 0;
  std::vector<int32_t> order_;
};

}  // namespace accrue
