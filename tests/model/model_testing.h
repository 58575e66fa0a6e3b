// What the tests of the model share: tiny configs, an engine with its parameters, a sink that keeps
// gradients.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/check.h"
#include "common/philox.h"
#include "worker/backend/backend.h"
#include "worker/model/transformer.h"

namespace accrue {

inline ModelConfig TinyGpt2() {
  return {.architecture = Architecture::kGpt2,
          .vocabulary = 13,
          .context = 7,
          .layers = 2,
          .heads = 2,
          .kv_heads = 2,
          .width = 8,
          .hidden = 20};
}

inline ModelConfig TinyLlama() {
  return {.architecture = Architecture::kLlama,
          .vocabulary = 11,
          .context = 6,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .width = 16,
          .hidden = 12,
          .tie_embeddings = false,
          .qkv_bias = true,
          .norm_epsilon = 1e-6};
}

class KeepingSink : public GradientSink {
 public:
  explicit KeepingSink(const ParameterLayout& layout)
      : layout_(layout), gradient(layout.arena_elements()), times_added(layout.tensors().size()) {}

  void Add(int tensor, const float* values) override {
    const TensorInfo& info = layout_.tensors()[tensor];
    for (int64_t i = 0; i < info.elements; ++i) gradient[info.arena_offset + i] += values[i];
    ++times_added[tensor];
  }

 private:
  const ParameterLayout& layout_;

 public:
  std::vector<float> gradient;  // laid out as the arena
  std::vector<int> times_added;
};

// An engine whose every parameter is away from its neutral value, so that every gradient is exercised.
struct TestModel {
  TestModel(const TransformerOptions& options, Backend& backend) {
    auto created = CreateTransformer(options, backend);
    ACCRUE_CHECK(created.ok());
    engine = *std::move(created);
    parameters.resize(engine->layout().arena_elements());
    engine->InitializeParameters(7, parameters.data());
    for (size_t i = 0; i < parameters.size(); ++i) {
      parameters[i] +=
          0.3f *
          (static_cast<float>(Philox4x32({static_cast<uint32_t>(i), 0, 0, 0}, 5)[0]) * 0x1p-32f - 0.5f);
    }
    engine->BindParameters(parameters.data());
    engine->ParametersChanged();
  }

  std::unique_ptr<Engine> engine;
  std::vector<float> parameters;
};

// Pseudo-random tokens and targets; every fifth target is masked when asked.
struct TestUnit {
  TestUnit(const TransformerOptions& options, uint32_t salt, bool masked)
      : rows(options.rows), T(options.sequence_length) {
    for (int64_t i = 0; i < rows * T; ++i) {
      const PhiloxBlock block = Philox4x32({static_cast<uint32_t>(i), salt, 0, 0}, 3);
      tokens.push_back(static_cast<int32_t>(block[0] % options.model.vocabulary));
      targets.push_back(masked && i % 5 == 2 ? -1
                                             : static_cast<int32_t>(block[1] % options.model.vocabulary));
    }
  }
  UnitInput Input(int64_t window = 0, int64_t unit = 0) const {
    return {.rows = rows,
            .sequence_length = T,
            .tokens = tokens.data(),
            .targets = targets.data(),
            .window = window,
            .unit = unit};
  }

  int64_t rows, T;
  std::vector<int32_t> tokens, targets;
};

}  // namespace accrue
