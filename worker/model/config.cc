#include "worker/model/config.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace accrue {
namespace {

// Generous for any model of today, and small enough that no product of two sizes overflows.
constexpr int64_t kLargestSize = int64_t{1} << 24;
constexpr int64_t kMostLayers = 4096;
constexpr double kMostParameters = 0x1p40;

absl::Status Wrong(absl::string_view field, absl::string_view found, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat("model.", field, " is ", found, "; expected ", expected));
}

absl::Status CheckSize(absl::string_view field, int64_t value, int64_t largest = kLargestSize) {
  if (value >= 1 && value <= largest) return absl::OkStatus();
  return Wrong(field, absl::StrCat(value), absl::StrCat("1 to ", largest));
}

absl::Status CheckPositive(absl::string_view field, double value) {
  if (value > 0 && std::isfinite(value)) return absl::OkStatus();
  return Wrong(field, absl::StrCat(value), "a finite number above 0");
}

absl::Status CheckRope(const ModelConfig& c) {
  if (c.HeadSize() % 2 != 0) {
    return Wrong("width", absl::StrCat(c.width, " (heads of ", c.HeadSize(), ")"),
                 "heads of an even size, which rotary positions need");
  }
  ACCRUE_RETURN_IF_ERROR(CheckPositive("rope_theta", c.rope_theta));
  const RopeScaling& scaling = c.rope_scaling;
  if (scaling.kind == RopeScalingKind::kNone) return absl::OkStatus();
  ACCRUE_RETURN_IF_ERROR(CheckPositive("rope_scaling.factor", scaling.factor));
  if (scaling.kind == RopeScalingKind::kLinear) return absl::OkStatus();
  ACCRUE_RETURN_IF_ERROR(CheckPositive("rope_scaling.low_freq_factor", scaling.low_frequency_factor));
  if (!(scaling.high_frequency_factor > scaling.low_frequency_factor)) {
    return Wrong("rope_scaling.high_freq_factor", absl::StrCat(scaling.high_frequency_factor),
                 absl::StrCat("more than low_freq_factor, ", scaling.low_frequency_factor));
  }
  return CheckSize("rope_scaling.original_max_position_embeddings", scaling.original_context);
}

}  // namespace

absl::Status ValidateModelConfig(const ModelConfig& c) {
  ACCRUE_RETURN_IF_ERROR(CheckSize("vocabulary", c.vocabulary));
  ACCRUE_RETURN_IF_ERROR(CheckSize("context", c.context));
  ACCRUE_RETURN_IF_ERROR(CheckSize("layers", c.layers, kMostLayers));
  ACCRUE_RETURN_IF_ERROR(CheckSize("heads", c.heads));
  ACCRUE_RETURN_IF_ERROR(CheckSize("kv_heads", c.kv_heads));
  ACCRUE_RETURN_IF_ERROR(CheckSize("width", c.width));
  ACCRUE_RETURN_IF_ERROR(CheckSize("hidden", c.hidden));
  if (c.head_size != 0) ACCRUE_RETURN_IF_ERROR(CheckSize("head_size", c.head_size));
  if (c.head_size == 0 && c.width % c.heads != 0) {
    return Wrong("width", absl::StrCat(c.width), absl::StrCat("a multiple of heads, ", c.heads));
  }
  ACCRUE_RETURN_IF_ERROR(CheckSize("heads x head_size", c.heads * c.HeadSize()));
  if (c.heads % c.kv_heads != 0) {
    return Wrong("kv_heads", absl::StrCat(c.kv_heads), absl::StrCat("a divisor of heads, ", c.heads));
  }
  const double matrices =
      c.layers * (1.0 * c.width * c.HeadSize() * (2.0 * c.heads + 2.0 * c.kv_heads) +
                  (c.architecture == Architecture::kLlama ? 3.0 : 2.0) * c.width * c.hidden);
  if (const double parameters = matrices + 2.0 * c.vocabulary * c.width; parameters > kMostParameters) {
    return absl::InvalidArgumentError(absl::StrCat("the model's sizes make ", parameters,
                                                   " parameters; expected at most ", kMostParameters));
  }
  if (!(c.dropout >= 0 && c.dropout < 1))
    return Wrong("dropout", absl::StrCat(c.dropout), "0 <= dropout < 1");
  ACCRUE_RETURN_IF_ERROR(CheckPositive("norm_epsilon", c.norm_epsilon));
  if (c.architecture == Architecture::kLlama) return CheckRope(c);
  if (c.kv_heads != c.heads) {
    return Wrong("kv_heads", absl::StrCat(c.kv_heads),
                 absl::StrCat("heads, ", c.heads, ": gpt2 has no grouped queries"));
  }
  if (c.HeadSize() * c.heads != c.width) {
    return Wrong("head_size", absl::StrCat(c.head_size), "width / heads in gpt2");
  }
  return absl::OkStatus();
}

}  // namespace accrue
