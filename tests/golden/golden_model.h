// Reads a golden file of tests/golden/make_goldens.py and repeats its formulas for parameters and tokens.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/philox.h"
#include "nlohmann/json.hpp"
#include "worker/engine/engine.h"
#include "worker/model/transformer.h"

namespace accrue {

enum class GoldenSalt : uint64_t { kParameter = 1, kDirection = 2, kToken = 3, kTarget = 4, kMask = 5 };

inline uint64_t GoldenDraw(GoldenSalt salt, int64_t stream, int64_t i) {
  return SplitMix64((static_cast<uint64_t>(salt) << 56 | static_cast<uint64_t>(stream) << 40) +
                    static_cast<uint64_t>(i));
}

// A multiple of 2^-24 in [-0.5, 0.5).
inline float GoldenCentered(GoldenSalt salt, int64_t stream, int64_t i) {
  return static_cast<float>(static_cast<int64_t>(GoldenDraw(salt, stream, i) >> 40) - (1 << 23)) * 0x1p-24f;
}

struct GoldenUnit {
  std::vector<int32_t> tokens, targets;
  UnitInput input;  // points into the vectors
};

class GoldenModel {
 public:
  // The test's working folder is the source's root.
  explicit GoldenModel(const std::string& name) {
    std::ifstream file("tests/golden/data/" + name + ".json");
    ACCRUE_CHECK(file.good());
    json = nlohmann::json::parse(file);
    const nlohmann::json& m = json["model"];
    options.model = {.architecture = m["architecture"] == "gpt2" ? Architecture::kGpt2 : Architecture::kLlama,
                     .vocabulary = m["vocabulary"],
                     .context = m["context"],
                     .layers = m["layers"],
                     .heads = m["heads"],
                     .kv_heads = m["kv_heads"],
                     .head_size = m["head_size"],
                     .width = m["width"],
                     .hidden = m["hidden"],
                     .tie_embeddings = m["tie_embeddings"],
                     .qkv_bias = m["qkv_bias"],
                     .rope_theta = m.value("rope_theta", 10000.0),
                     .norm_epsilon = m["norm_epsilon"]};
    if (m.contains("rope_scaling")) {
      const nlohmann::json& scaling = m["rope_scaling"];
      options.model.rope_scaling = {.kind = RopeScalingKind::kLlama3,
                                    .factor = scaling["factor"],
                                    .low_frequency_factor = scaling["low_frequency_factor"],
                                    .high_frequency_factor = scaling["high_frequency_factor"],
                                    .original_context = scaling["original_context"]};
    }
    options.rows = m["rows"];
    options.sequence_length = m["sequence_length"];
  }

  std::vector<float> Parameters(const ParameterLayout& layout) const {
    std::vector<float> arena(layout.arena_elements());
    for (size_t stream = 0; stream < layout.tensors().size(); ++stream) {
      const TensorInfo& tensor = layout.tensors()[stream];
      const bool norm = tensor.name.ends_with("weight") && (tensor.name.find("ln_") != std::string::npos ||
                                                            tensor.name.find("norm") != std::string::npos);
      for (int64_t i = 0; i < tensor.elements; ++i) {
        arena[tensor.arena_offset + i] =
            0.5f * GoldenCentered(GoldenSalt::kParameter, static_cast<int64_t>(stream), i) +
            (norm ? 1.0f : 0.0f);
      }
    }
    return arena;
  }

  GoldenUnit Unit(int64_t window, int64_t unit) const {
    const int64_t stream = window * json.value("units", int64_t{3}) + unit;
    const uint64_t vocabulary = static_cast<uint64_t>(options.model.vocabulary);
    GoldenUnit result;
    for (int64_t i = 0; i < options.rows * options.sequence_length; ++i) {
      const bool masked = GoldenDraw(GoldenSalt::kMask, stream, i) % static_cast<uint64_t>(2 + unit) == 0;
      result.tokens.push_back(static_cast<int32_t>(GoldenDraw(GoldenSalt::kToken, stream, i) % vocabulary));
      result.targets.push_back(
          masked ? -1 : static_cast<int32_t>(GoldenDraw(GoldenSalt::kTarget, stream, i) % vocabulary));
    }
    result.input = {.rows = options.rows,
                    .sequence_length = options.sequence_length,
                    .tokens = result.tokens.data(),
                    .targets = result.targets.data(),
                    .window = window,
                    .unit = unit};
    return result;
  }

  nlohmann::json json;
  TransformerOptions options;
};

}  // namespace accrue
