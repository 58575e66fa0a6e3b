#include "worker/model/spec/model_spec.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace accrue {

namespace {

RopeScaling RopeScalingFromSpec(const v1::RopeScalingSpec& spec) {
  if (spec.type() == "linear") return {.kind = RopeScalingKind::kLinear, .factor = spec.factor()};
  return {.kind = RopeScalingKind::kLlama3,
          .factor = spec.factor(),
          .low_frequency_factor = spec.low_freq_factor(),
          .high_frequency_factor = spec.high_freq_factor(),
          .original_context = spec.original_max_position_embeddings()};
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfigFromSpec(const v1::ModelSpec& spec) {
  const bool gpt2 = spec.architecture() == "gpt2";
  if (!gpt2 && spec.architecture() != "llama") {
    return absl::InvalidArgumentError(
        absl::StrCat("model.architecture is \"", spec.architecture(), "\"; expected gpt2 or llama"));
  }
  ModelConfig config{.architecture = gpt2 ? Architecture::kGpt2 : Architecture::kLlama,
                     .vocabulary = spec.vocabulary(),
                     .context = spec.context(),
                     .layers = spec.layers(),
                     .heads = spec.heads(),
                     .kv_heads = spec.has_kv_heads() ? spec.kv_heads() : spec.heads(),
                     .width = spec.width(),
                     .hidden = spec.hidden(),
                     .dropout = spec.dropout(),
                     .tie_embeddings = spec.has_tie_embeddings() ? spec.tie_embeddings() : gpt2,
                     .qkv_bias = !gpt2 && spec.qkv_bias()};
  if (spec.has_rope_theta()) config.rope_theta = spec.rope_theta();
  if (spec.has_norm_epsilon()) config.norm_epsilon = spec.norm_epsilon();
  if (spec.has_rope_scaling() && !gpt2) config.rope_scaling = RopeScalingFromSpec(spec.rope_scaling());
  ACCRUE_RETURN_IF_ERROR(ValidateModelConfig(config));
  return config;
}

}  // namespace accrue
