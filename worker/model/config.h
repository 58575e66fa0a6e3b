// What a transformer is: family and sizes. A plain value; ValidateModelConfig says whether it can be built.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace accrue {

// kGpt2: LayerNorm, learned positions, GELU. kLlama: RMSNorm, rotary positions, SwiGLU, grouped queries
// (Llama, Mistral, Qwen2).
enum class Architecture { kGpt2, kLlama };

enum class RopeScalingKind { kNone, kLinear, kLlama3 };

// How rotary frequencies are stretched, as in Hugging Face's `rope_scaling`.
struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 1;
  double low_frequency_factor = 1;   // llama3
  double high_frequency_factor = 4;  // llama3
  int64_t original_context = 8192;   // llama3
  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

struct ModelConfig {
  Architecture architecture = Architecture::kGpt2;
  int64_t vocabulary = 0;
  int64_t context = 0;  // the longest sequence
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;   // kGpt2: equal to heads
  int64_t head_size = 0;  // 0: width / heads. kGpt2: always that
  int64_t width = 0;
  int64_t hidden = 0;  // of the MLP
  double dropout = 0;  // of embeddings, attention probabilities and both branches
  bool tie_embeddings = true;
  bool qkv_bias = false;  // kLlama only; kGpt2 always has its biases
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  double norm_epsilon = 1e-5;
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;

  int64_t HeadSize() const { return head_size != 0 ? head_size : width / heads; }
};

// INVALID_ARGUMENT that names the field, what it is and what it may be.
absl::Status ValidateModelConfig(const ModelConfig& config);

}  // namespace accrue
