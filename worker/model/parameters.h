// A transformer's parameter tensors: Hugging Face names and shapes in the order in which the forward pass
// meets them, their initial values, and where each part of the model finds its own.
//
// Plain values, immutable once built; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/backend/model_ops.h"
#include "worker/engine/layout.h"
#include "worker/model/config.h"

namespace accrue {

// How a tensor begins: normal with this deviation, or a constant.
struct InitialValue {
  double deviation = 0;
  float constant = 0;  // where deviation is 0
};

// Indices into the layout; -1: there is none.
struct LinearTensors {
  int weight = -1;
  int bias = -1;
  int64_t in = 0, out = 0;
  WeightLayout layout = WeightLayout::kOutIn;
};

struct NormTensors {
  int gamma = -1;
  int beta = -1;
};

struct LayerTensors {
  NormTensors attention_norm;
  std::vector<LinearTensors>
      attention_in;  // q, k and v; one of three times the width where they share a matrix
  LinearTensors attention_out;
  NormTensors mlp_norm;
  std::vector<LinearTensors> mlp_in;  // gate and up; one matrix before GELU
  LinearTensors mlp_out;
};

struct TransformerTensors {
  std::vector<TensorShape> shapes;    // canonical order
  std::vector<InitialValue> initial;  // one per shape
  int token_table = -1;
  int position_table = -1;
  std::vector<LayerTensors> layers;
  NormTensors final_norm;
  LinearTensors head;  // its weight is token_table where they are tied
};

// Requires a valid config.
TransformerTensors DescribeTensors(const ModelConfig& config);

// docs/numerics.md, section 3. Writes every element of the arena, padding zero.
void InitializeArena(const ParameterLayout& layout, const std::vector<InitialValue>& initial, uint64_t seed,
                     float* arena);

// A stable 32-bit number of a name: the first four bytes of its XXH3-128, big-endian.
uint32_t NameHash(absl::string_view name);

}  // namespace accrue
