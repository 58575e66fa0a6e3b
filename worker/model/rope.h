// Rotary position tables.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/model/config.h"

namespace accrue {

// cosine, sine: [positions, head_size / 2] of position x frequency, frequency i = theta^(-2i / head_size),
// stretched as config.rope_scaling says (Hugging Face's `linear` and `llama3`).
struct RopeTables {
  std::vector<float> cosine;
  std::vector<float> sine;
};

RopeTables MakeRopeTables(const ModelConfig& config, int64_t positions);

}  // namespace accrue
