#include "worker/model/parameters.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/hash.h"
#include "common/philox.h"
#include "worker/model/elementary.h"

namespace accrue {
namespace {

constexpr double kDeviation = 0.02;

class Describer {
 public:
  explicit Describer(const ModelConfig& config) : c_(config) {}

  TransformerTensors Describe() {
    const bool gpt2 = c_.architecture == Architecture::kGpt2;
    t_.token_table = Normal(gpt2 ? "wte.weight" : "model.embed_tokens.weight", {c_.vocabulary, c_.width});
    if (gpt2) t_.position_table = Normal("wpe.weight", {c_.context, c_.width});
    for (int64_t i = 0; i < c_.layers; ++i) t_.layers.push_back(gpt2 ? Gpt2Layer(i) : LlamaLayer(i));
    t_.final_norm = gpt2 ? LayerNorm("ln_f") : RmsNorm("model.norm");
    t_.head = {.weight = t_.token_table, .in = c_.width, .out = c_.vocabulary};
    if (!c_.tie_embeddings) t_.head.weight = Normal("lm_head.weight", {c_.vocabulary, c_.width});
    return std::move(t_);
  }

 private:
  int Add(std::string name, std::vector<int64_t> shape, InitialValue initial) {
    t_.shapes.push_back({std::move(name), std::move(shape)});
    t_.initial.push_back(initial);
    return static_cast<int>(t_.shapes.size()) - 1;
  }
  int Normal(std::string name, std::vector<int64_t> shape, double deviation = kDeviation) {
    return Add(std::move(name), std::move(shape), {.deviation = deviation});
  }

  NormTensors LayerNorm(const std::string& prefix) {
    const int gamma = Add(prefix + ".weight", {c_.width}, {.constant = 1});
    return {.gamma = gamma, .beta = Add(prefix + ".bias", {c_.width}, {})};
  }
  NormTensors RmsNorm(const std::string& prefix) {
    return {.gamma = Add(prefix + ".weight", {c_.width}, {.constant = 1})};
  }

  // GPT-2's Conv1D, [in, out] with a bias.
  LinearTensors Conv1D(const std::string& prefix, int64_t in, int64_t out, double deviation = kDeviation) {
    LinearTensors linear{.in = in, .out = out, .layout = WeightLayout::kInOut};
    linear.weight = Normal(prefix + ".weight", {in, out}, deviation);
    linear.bias = Add(prefix + ".bias", {out}, {});
    return linear;
  }
  LinearTensors Linear(const std::string& prefix, int64_t in, int64_t out, bool bias = false) {
    LinearTensors linear{.in = in, .out = out, .layout = WeightLayout::kOutIn};
    linear.weight = Normal(prefix + ".weight", {out, in});
    if (bias) linear.bias = Add(prefix + ".bias", {out}, {});
    return linear;
  }

  LayerTensors Gpt2Layer(int64_t i) {
    const std::string prefix = absl::StrCat("h.", i, ".");
    // Projections into the residual stream start smaller, so that its variance does not grow with depth
    // (GPT-2 paper, section 2.3, as Hugging Face has it).
    const double residual = kDeviation / std::sqrt(2.0 * static_cast<double>(c_.layers));
    LayerTensors layer;
    layer.attention_norm = LayerNorm(prefix + "ln_1");
    layer.attention_in = {Conv1D(prefix + "attn.c_attn", c_.width, 3 * c_.width)};
    layer.attention_out = Conv1D(prefix + "attn.c_proj", c_.width, c_.width, residual);
    layer.mlp_norm = LayerNorm(prefix + "ln_2");
    layer.mlp_in = {Conv1D(prefix + "mlp.c_fc", c_.width, c_.hidden)};
    layer.mlp_out = Conv1D(prefix + "mlp.c_proj", c_.hidden, c_.width, residual);
    return layer;
  }

  LayerTensors LlamaLayer(int64_t i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    const int64_t q = c_.heads * c_.HeadSize(), kv = c_.kv_heads * c_.HeadSize();
    LayerTensors layer;
    layer.attention_norm = RmsNorm(prefix + "input_layernorm");
    layer.attention_in.push_back(Linear(prefix + "self_attn.q_proj", c_.width, q, c_.qkv_bias));
    layer.attention_in.push_back(Linear(prefix + "self_attn.k_proj", c_.width, kv, c_.qkv_bias));
    layer.attention_in.push_back(Linear(prefix + "self_attn.v_proj", c_.width, kv, c_.qkv_bias));
    layer.attention_out = Linear(prefix + "self_attn.o_proj", q, c_.width);
    layer.mlp_norm = RmsNorm(prefix + "post_attention_layernorm");
    layer.mlp_in.push_back(Linear(prefix + "mlp.gate_proj", c_.width, c_.hidden));
    layer.mlp_in.push_back(Linear(prefix + "mlp.up_proj", c_.width, c_.hidden));
    layer.mlp_out = Linear(prefix + "mlp.down_proj", c_.hidden, c_.width);
    return layer;
  }

  const ModelConfig& c_;
  TransformerTensors t_;
};

// 53 random bits as a multiple of 2^-53 in [0, 1).
double Uniform(uint32_t high, uint32_t low) {
  return static_cast<double>(((uint64_t{high} << 32) | low) >> 11) * 0x1p-53;
}

void FillNormal(uint64_t seed, uint32_t name_hash, double deviation, int64_t elements, float* values) {
  for (int64_t e = 0; e < elements; e += 2) {
    const uint64_t pair = static_cast<uint64_t>(e) / 2;
    const PhiloxBlock block =
        Philox4x32({static_cast<uint32_t>(pair), static_cast<uint32_t>(pair >> 32), name_hash, 0}, seed);
    // Box-Muller; the first uniform is moved into (0, 1] for the logarithm.
    const double radius = std::sqrt(-2 * PortableLog(Uniform(block[0], block[1]) + 0x1p-53));
    const SineCosine angle = PortableSineCosine(Uniform(block[2], block[3]));
    values[e] = static_cast<float>(radius * angle.cosine * deviation);
    if (e + 1 < elements) values[e + 1] = static_cast<float>(radius * angle.sine * deviation);
  }
}

}  // namespace

TransformerTensors DescribeTensors(const ModelConfig& config) { return Describer(config).Describe(); }

uint32_t NameHash(absl::string_view name) {
  const Hash128 hash = HashBytes(name.data(), name.size());
  return uint32_t{hash.bytes[0]} << 24 | uint32_t{hash.bytes[1]} << 16 | uint32_t{hash.bytes[2]} << 8 |
         hash.bytes[3];
}

void InitializeArena(const ParameterLayout& layout, const std::vector<InitialValue>& initial, uint64_t seed,
                     float* arena) {
  ACCRUE_CHECK(initial.size() == layout.tensors().size());
  std::fill(arena, arena + layout.arena_elements(), 0.0f);
  for (size_t i = 0; i < initial.size(); ++i) {
    const TensorInfo& tensor = layout.tensors()[i];
    float* values = arena + tensor.arena_offset;
    if (initial[i].deviation > 0) {
      FillNormal(seed, NameHash(tensor.name), initial[i].deviation, tensor.elements, values);
    } else {
      std::fill(values, values + tensor.elements, initial[i].constant);
    }
  }
}

}  // namespace accrue
