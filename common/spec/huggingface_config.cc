#include "common/spec/huggingface_config.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"

namespace accrue {
namespace {

using nlohmann::json;

constexpr size_t kMaxConfigBytes = 1 << 20;
constexpr char kSupported[] = "GPT2LMHeadModel, LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM";

std::string Shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() > 60 ? absl::StrCat(text.substr(0, 57), "...") : text;
}

// Typed access to one config.json; the first fault is kept.
class Config {
 public:
  Config(std::string path, json root) : path_(std::move(path)), root_(std::move(root)) {}

  const absl::Status& status() const { return status_; }

  bool Has(const char* name) const { return root_.contains(name) && !root_[name].is_null(); }
  const json& Get(const char* name) const { return root_[name]; }

  int64_t Integer(const char* name) {
    if (!Has(name)) return Fail(name, "an integer", "nothing"), 0;
    const json& value = root_[name];
    if (!value.is_number_integer() || value < 1 || value > int64_t{std::numeric_limits<int32_t>::max()}) {
      return Fail(name, "an integer from 1 to 2147483647", Shown(value)), 0;
    }
    return value.get<int64_t>();
  }
  int64_t IntegerOr(const char* name, int64_t absent) { return Has(name) ? Integer(name) : absent; }

  double NumberOr(const char* name, double absent) {
    return Has(name) ? NumberOf(name, root_[name]) : absent;
  }
  double NumberOf(const char* name, const json& value) {
    if (!value.is_number()) return Fail(name, "a number", Shown(value)), 0;
    return value.get<double>();
  }

  bool BoolOr(const char* name, bool absent) {
    if (!Has(name)) return absent;
    if (!root_[name].is_boolean()) return Fail(name, "true or false", Shown(root_[name])), false;
    return root_[name].get<bool>();
  }

  // Refuses a variant of the architecture: the field must be absent or have this value.
  void Require(const char* name, const json& value) {
    if (Has(name) && root_[name] != value) {
      Keep(absl::UnimplementedError(absl::StrCat(path_, ": ", name, " is ", Shown(root_[name]), "; only ",
                                                 Shown(value), " is supported")));
    }
  }

  void Keep(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  void Fail(const char* name, absl::string_view expected, absl::string_view found) {
    Keep(absl::InvalidArgumentError(
        absl::StrCat(path_, ": ", name, ": expected ", expected, ", found ", found)));
  }

 private:
  std::string path_;
  json root_;
  absl::Status status_;
};

v1::ModelSpec ReadGpt2(Config& config) {
  v1::ModelSpec model;
  model.set_architecture("gpt2");
  model.set_vocabulary(config.Integer("vocab_size"));
  model.set_context(config.Integer("n_positions"));
  model.set_layers(config.Integer("n_layer"));
  model.set_heads(config.Integer("n_head"));
  model.set_kv_heads(model.heads());
  model.set_width(config.Integer("n_embd"));
  model.set_hidden(config.IntegerOr("n_inner", 4 * model.width()));
  model.set_tie_embeddings(config.BoolOr("tie_word_embeddings", true));
  model.set_qkv_bias(true);
  model.set_norm_epsilon(config.NumberOr("layer_norm_epsilon", 1e-5));
  config.Require("activation_function", "gelu_new");
  config.Require("scale_attn_weights", true);
  config.Require("scale_attn_by_inverse_layer_idx", false);
  config.Require("add_cross_attention", false);
  return model;
}

// The part of rope_scaling or rope_parameters that stretches the frequencies.
void ReadRopeScaling(Config& config, const char* name, const json& rope, v1::ModelSpec& model) {
  const char* kind = rope.contains("rope_type") ? "rope_type" : "type";
  if (!rope.contains(kind) || rope[kind] == "default") return;
  if (rope[kind] != "linear" && rope[kind] != "llama3") {
    return config.Keep(absl::UnimplementedError(
        absl::StrCat(name, ".", kind, " is ", Shown(rope[kind]), "; linear and llama3 are supported")));
  }
  const auto number = [&](const char* field) {
    return config.NumberOf(absl::StrCat(name, ".", field).c_str(),
                           rope.contains(field) ? rope[field] : json());
  };
  v1::RopeScalingSpec& scaling = *model.mutable_rope_scaling();
  scaling.set_type(rope[kind].get<std::string>());
  scaling.set_factor(number("factor"));
  if (scaling.type() == "linear") return;
  scaling.set_low_freq_factor(number("low_freq_factor"));
  scaling.set_high_freq_factor(number("high_freq_factor"));
  const double original = number("original_max_position_embeddings");
  if (!(original >= 1 && original <= std::numeric_limits<int32_t>::max())) {
    return config.Fail(absl::StrCat(name, ".original_max_position_embeddings").c_str(),
                       "an integer from 1 to 2147483647", absl::StrCat(original));
  }
  scaling.set_original_max_position_embeddings(static_cast<int64_t>(original));
}

// Newer files have rope_parameters: {rope_theta, rope_type}, older ones rope_theta and rope_scaling.
void ReadRope(Config& config, v1::ModelSpec& model) {
  model.set_rope_theta(config.NumberOr("rope_theta", 10000));
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    if (!config.Has(name)) continue;
    const json& rope = config.Get(name);
    if (!rope.is_object()) {
      config.Fail(name, "an object", Shown(rope));
      continue;
    }
    ReadRopeScaling(config, name, rope, model);
    if (rope.contains("rope_theta")) model.set_rope_theta(config.NumberOf("rope_theta", rope["rope_theta"]));
  }
}

v1::ModelSpec ReadLlamaFamily(Config& config, const std::string& architecture) {
  const bool llama = architecture == "LlamaForCausalLM";
  const bool qwen2 = architecture == "Qwen2ForCausalLM";
  v1::ModelSpec model;
  model.set_architecture("llama");
  model.set_vocabulary(config.Integer("vocab_size"));
  model.set_context(config.Integer("max_position_embeddings"));
  model.set_layers(config.Integer("num_hidden_layers"));
  model.set_heads(config.Integer("num_attention_heads"));
  // Only Llama's own default is "as many as heads"; the others' are numbers of their first release.
  model.set_kv_heads(llama ? config.IntegerOr("num_key_value_heads", model.heads())
                           : config.Integer("num_key_value_heads"));
  model.set_width(config.Integer("hidden_size"));
  model.set_hidden(config.Integer("intermediate_size"));
  model.set_tie_embeddings(config.BoolOr("tie_word_embeddings", false));
  model.set_qkv_bias(qwen2);
  model.set_norm_epsilon(config.NumberOr("rms_norm_eps", 1e-6));
  ReadRope(config, model);
  const bool slides =
      qwen2 ? config.BoolOr("use_sliding_window", false) : architecture == "MistralForCausalLM";
  if (slides)
    model.set_context(std::min(model.context(), config.IntegerOr("sliding_window", model.context())));
  config.Require("hidden_act", "silu");
  config.Require("attention_bias", false);  // would add one to the output projection too
  config.Require("mlp_bias", false);
  if (config.status().ok() && model.width() % model.heads() == 0)
    config.Require("head_dim", model.width() / model.heads());
  return model;
}

}  // namespace

absl::StatusOr<v1::ModelSpec> ReadHuggingFaceConfig(FileSystem& file_system, const std::string& folder) {
  const std::string path = JoinPath(folder, "config.json");
  ACCRUE_ASSIGN_OR_RETURN(const std::string text, file_system.ReadAll(path, kMaxConfigBytes));
  json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected a JSON object, found ",
                     root.is_discarded() ? "text that is not JSON" : root.type_name()));
  }
  std::string architecture;
  if (root.contains("architectures") && root["architectures"].is_array() &&
      root["architectures"].size() == 1 && root["architectures"][0].is_string()) {
    architecture = root["architectures"][0].get<std::string>();
  } else if (!root.contains("architectures") && root.contains("model_type") &&
             root["model_type"].is_string()) {
    // Files written without a model class name only the type.
    const std::string type = root["model_type"].get<std::string>();
    architecture = type == "gpt2"      ? "GPT2LMHeadModel"
                   : type == "llama"   ? "LlamaForCausalLM"
                   : type == "mistral" ? "MistralForCausalLM"
                   : type == "qwen2"   ? "Qwen2ForCausalLM"
                                       : type;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": architectures: expected a list of one name, found ",
                     root.contains("architectures") ? Shown(root["architectures"]) : "nothing"));
  }
  Config config(path, std::move(root));
  v1::ModelSpec model;
  if (architecture == "GPT2LMHeadModel") {
    model = ReadGpt2(config);
  } else if (architecture == "LlamaForCausalLM" || architecture == "MistralForCausalLM" ||
             architecture == "Qwen2ForCausalLM") {
    model = ReadLlamaFamily(config, architecture);
  } else {
    return absl::UnimplementedError(absl::StrCat(path, ": architecture ", Shown(architecture),
                                                 " is not supported; supported are ", kSupported));
  }
  if (config.Has("quantization_config")) {
    config.Keep(absl::UnimplementedError(absl::StrCat(path, ": quantized weights are not supported")));
  }
  if (!config.status().ok()) return config.status();
  return model;
}

absl::Status CompleteModel(FileSystem& file_system, const std::string& folder, v1::ModelSpec& model) {
  ACCRUE_ASSIGN_OR_RETURN(v1::ModelSpec shape, ReadHuggingFaceConfig(file_system, folder));
  shape.set_from(model.from());
  if (model.has_dropout()) shape.set_dropout(model.dropout());
  model = std::move(shape);
  return absl::OkStatus();
}

}  // namespace accrue
