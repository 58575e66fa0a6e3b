#include "worker/model/huggingface.h"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/status.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/model/parameters.h"

namespace accrue {
namespace {

using nlohmann::json;

constexpr size_t kMostIndexBytes = size_t{64} << 20;
constexpr size_t kMostTokenizerBytes = size_t{256} << 20;
constexpr char kWeights[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

// A tensor of a folder, with the file that holds it.
struct Source {
  const SafetensorsFile* file = nullptr;
  const SafetensorsTensor* tensor = nullptr;
};

absl::Status Wrong(const SafetensorsFile& file, absl::string_view tensor, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": tensor \"", tensor, "\" ", what));
}

// The shards that an index names, each once, in order.
absl::StatusOr<std::vector<std::string>> ReadIndex(FileSystem& file_system, const std::string& path) {
  ACCRUE_ASSIGN_OR_RETURN(const std::string text, file_system.ReadAll(path, kMostIndexBytes));
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object() || !root.contains("weight_map") || !root["weight_map"].is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected an object with \"weight_map\", from tensor to file"));
  }
  std::vector<std::string> shards;
  for (const auto& [tensor, file] : root["weight_map"].items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": weight_map: tensor \"", tensor, "\" is in ",
                                                     file.dump(-1, ' ', true),
                                                     "; expected the name of a file in the same folder"));
    }
    shards.push_back(name);
  }
  std::sort(shards.begin(), shards.end());
  shards.erase(std::unique(shards.begin(), shards.end()), shards.end());
  return shards;
}

absl::StatusOr<std::vector<SafetensorsFile>> OpenWeights(FileSystem& file_system, const std::string& folder) {
  std::vector<std::string> names;
  if (file_system.Exists(JoinPath(folder, kWeights))) {
    names = {kWeights};
  } else if (file_system.Exists(JoinPath(folder, kIndex))) {
    ACCRUE_ASSIGN_OR_RETURN(names, ReadIndex(file_system, JoinPath(folder, kIndex)));
  } else {
    return absl::NotFoundError(absl::StrCat(folder, ": found neither ", kWeights, " nor ", kIndex,
                                            "; other formats of weights are not read"));
  }
  std::vector<SafetensorsFile> files;
  for (const std::string& name : names) {
    ACCRUE_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(file_system, JoinPath(folder, name)));
    files.push_back(std::move(file));
  }
  return files;
}

// Buffers that old files hold beside the parameters.
bool IsBuffer(absl::string_view name) {
  return absl::EndsWith(name, ".attn.bias") || absl::EndsWith(name, ".attn.masked_bias") ||
         absl::EndsWith(name, ".rotary_emb.inv_freq");
}

class WeightLoader {
 public:
  WeightLoader(const std::string& folder, const ParameterLayout& layout)
      : folder_(folder), layout_(layout), sources_(layout.tensors().size()) {}

  absl::Status Collect(const SafetensorsFile& file) {
    for (const SafetensorsTensor& tensor : file.tensors()) {
      const int index = layout_.TensorIndex(absl::StripPrefix(tensor.name, "transformer."));
      if (index < 0 && IsBuffer(tensor.name)) continue;
      const Source source{&file, &tensor};
      if (index < 0 && tensor.name == "lm_head.weight" && head_copy_.tensor == nullptr) {
        head_copy_ = source;
        continue;
      }
      if (index < 0) return Wrong(file, tensor.name, "is no part of the model that config.json describes");
      if (sources_[index].tensor != nullptr) {
        return Wrong(file, tensor.name,
                     absl::StrCat("is there twice, also in ", sources_[index].file->path()));
      }
      if (tensor.shape != layout_.tensors()[index].shape) {
        return Wrong(file, tensor.name,
                     absl::StrCat("has shape ", tensor.ShapeText(), "; expected [",
                                  absl::StrJoin(layout_.tensors()[index].shape, ", "), "]"));
      }
      sources_[index] = source;
    }
    return absl::OkStatus();
  }

  absl::Status Read(float* arena) const {
    for (size_t i = 0; i < sources_.size(); ++i) {
      if (sources_[i].tensor == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(folder_, ": tensor \"", layout_.tensors()[i].name,
                                                       "\" is missing from the weights"));
      }
    }
    std::fill(arena, arena + layout_.arena_elements(), 0.0f);
    for (size_t i = 0; i < sources_.size(); ++i) {
      const TensorInfo& info = layout_.tensors()[i];
      ACCRUE_RETURN_IF_ERROR(ReadTensor(sources_[i], arena + info.arena_offset));
    }
    return CheckHeadCopy(arena);
  }

 private:
  static absl::Status ReadTensor(const Source& source, float* values) {
    const SafetensorsDType dtype = source.tensor->dtype;
    if (dtype != SafetensorsDType::kF32 && dtype != SafetensorsDType::kBF16 &&
        dtype != SafetensorsDType::kF16) {
      return Wrong(*source.file, source.tensor->name,
                   absl::StrCat("has type ", SafetensorsDTypeName(dtype), "; expected F32, BF16 or F16"));
    }
    return source.file->ReadFloats(*source.tensor, values);
  }

  // A file of a tied model may hold the head too; then it must be the token table.
  absl::Status CheckHeadCopy(const float* arena) const {
    if (head_copy_.tensor == nullptr) return absl::OkStatus();
    const TensorInfo& table = layout_.tensors()[0];
    std::vector<float> head;
    if (head_copy_.tensor->shape == table.shape) {
      head.resize(table.elements);
      ACCRUE_RETURN_IF_ERROR(ReadTensor(head_copy_, head.data()));
    }
    if (head.empty() || !std::equal(head.begin(), head.end(), arena + table.arena_offset)) {
      return Wrong(*head_copy_.file, head_copy_.tensor->name,
                   absl::StrCat("differs from \"", table.name,
                                "\", to which config.json ties it; set tie_word_embeddings to false there"));
    }
    return absl::OkStatus();
  }

  const std::string& folder_;
  const ParameterLayout& layout_;
  std::vector<Source> sources_;  // per tensor of the layout
  Source head_copy_;
};

json TokenOrNull(const absl::optional<int64_t>& token) { return token ? json(*token) : json(nullptr); }

json Gpt2Config(const ModelConfig& m) {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"activation_function", "gelu_new"},
          {"vocab_size", m.vocabulary},
          {"n_positions", m.context},
          {"n_ctx", m.context},
          {"n_embd", m.width},
          {"n_layer", m.layers},
          {"n_head", m.heads},
          {"n_inner", m.hidden},
          {"layer_norm_epsilon", m.norm_epsilon},
          {"embd_pdrop", m.dropout},
          {"attn_pdrop", m.dropout},
          {"resid_pdrop", m.dropout}};
}

json RopeScalingConfig(const RopeScaling& scaling) {
  if (scaling.kind == RopeScalingKind::kNone) return nullptr;
  if (scaling.kind == RopeScalingKind::kLinear) {
    return {{"type", "linear"}, {"rope_type", "linear"}, {"factor", scaling.factor}};
  }
  return {{"rope_type", "llama3"},
          {"factor", scaling.factor},
          {"low_freq_factor", scaling.low_frequency_factor},
          {"high_freq_factor", scaling.high_frequency_factor},
          {"original_max_position_embeddings", scaling.original_context}};
}

json LlamaConfig(const ModelConfig& m) {
  json config = {{"architectures", {m.qkv_bias ? "Qwen2ForCausalLM" : "LlamaForCausalLM"}},
                 {"model_type", m.qkv_bias ? "qwen2" : "llama"},
                 {"hidden_act", "silu"},
                 {"vocab_size", m.vocabulary},
                 {"max_position_embeddings", m.context},
                 {"hidden_size", m.width},
                 {"intermediate_size", m.hidden},
                 {"num_hidden_layers", m.layers},
                 {"num_attention_heads", m.heads},
                 {"num_key_value_heads", m.kv_heads},
                 {"head_dim", m.HeadSize()},
                 {"rms_norm_eps", m.norm_epsilon},
                 {"rope_theta", m.rope_theta},
                 {"rope_scaling", RopeScalingConfig(m.rope_scaling)},
                 {"attention_dropout", m.dropout}};
  if (m.qkv_bias) {
    config["use_sliding_window"] = false;
  } else {
    config["attention_bias"] = false;
    config["mlp_bias"] = false;
  }
  return config;
}

absl::Status WriteConfigs(FileSystem& file_system, const std::string& folder,
                          const HuggingFaceExport& description) {
  const ModelConfig& m = description.model;
  json config = m.architecture == Architecture::kGpt2 ? Gpt2Config(m) : LlamaConfig(m);
  json generation = {{"bos_token_id", TokenOrNull(description.bos_token)},
                     {"eos_token_id", TokenOrNull(description.eos_token)}};
  config.update(generation);
  config["tie_word_embeddings"] = m.tie_embeddings;
  config["initializer_range"] = 0.02;
  config["use_cache"] = true;
  config["torch_dtype"] = "float32";
  ACCRUE_RETURN_IF_ERROR(file_system.WriteAtomically(JoinPath(folder, "config.json"), config.dump(2) + "\n"));
  return file_system.WriteAtomically(JoinPath(folder, "generation_config.json"), generation.dump(2) + "\n");
}

// transformers takes GPT-2's names without their prefix only where the head is not beside them.
std::string ExportedName(const ModelConfig& model, const std::string& name) {
  const bool prefixed =
      model.architecture == Architecture::kGpt2 && !model.tie_embeddings && name != "lm_head.weight";
  return prefixed ? absl::StrCat("transformer.", name) : name;
}

absl::Status WriteWeights(FileSystem& file_system, const std::string& path, const ModelConfig& model,
                          const ParameterLayout& layout, const TensorReader& read) {
  std::vector<SafetensorsTensor> tensors;
  for (const TensorInfo& info : layout.tensors()) {
    tensors.push_back(
        {.name = ExportedName(model, info.name), .shape = info.shape, .elements = info.elements});
  }
  ACCRUE_ASSIGN_OR_RETURN(
      const std::unique_ptr<SafetensorsWriter> writer,
      SafetensorsWriter::Create(file_system, path, std::move(tensors), {{"format", "pt"}}));
  std::vector<float> values;
  for (size_t i = 0; i < layout.tensors().size(); ++i) {
    values.resize(layout.tensors()[i].elements);
    ACCRUE_RETURN_IF_ERROR(read(static_cast<int>(i), values.data()));
    ACCRUE_RETURN_IF_ERROR(writer->Append(values.data(), values.size() * sizeof(float)));
  }
  return writer->Finish();
}

bool HasShapesOf(const ParameterLayout& layout, const ModelConfig& model) {
  const std::vector<TensorShape> shapes = DescribeTensors(model).shapes;
  return std::equal(
      shapes.begin(), shapes.end(), layout.tensors().begin(), layout.tensors().end(),
      [](const TensorShape& a, const TensorInfo& b) { return a.name == b.name && a.shape == b.shape; });
}

}  // namespace

absl::Status LoadHuggingFaceWeights(FileSystem& file_system, const std::string& folder,
                                    const ParameterLayout& layout, float* host_arena) {
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<SafetensorsFile> files, OpenWeights(file_system, folder));
  WeightLoader loader(folder, layout);
  for (const SafetensorsFile& file : files) ACCRUE_RETURN_IF_ERROR(loader.Collect(file));
  return loader.Read(host_arena);
}

absl::Status WriteHuggingFaceFolder(FileSystem& file_system, const std::string& folder,
                                    const HuggingFaceExport& description, const ParameterLayout& layout,
                                    const TensorReader& read) {
  ACCRUE_RETURN_IF_ERROR(ValidateModelConfig(description.model));
  if (!HasShapesOf(layout, description.model)) {
    return absl::InvalidArgumentError("the tensors to export are not those of the model that is described");
  }
  ACCRUE_RETURN_IF_ERROR(file_system.CreateDirectories(folder));
  ACCRUE_RETURN_IF_ERROR(WriteConfigs(file_system, folder, description));
  for (const std::string& path : description.tokenizer_files) {
    ACCRUE_ASSIGN_OR_RETURN(const std::string contents, file_system.ReadAll(path, kMostTokenizerBytes));
    ACCRUE_RETURN_IF_ERROR(file_system.WriteAtomically(JoinPath(folder, BaseName(path)), contents));
  }
  const std::string path = JoinPath(folder, kWeights), temporary = path + ".tmp";
  absl::Status status = WriteWeights(file_system, temporary, description.model, layout, read);
  if (status.ok()) status = file_system.Rename(temporary, path);
  if (!status.ok()) {
    file_system.RemoveAll(temporary).IgnoreError();
    return status;
  }
  return file_system.SyncDirectory(folder);
}

}  // namespace accrue
