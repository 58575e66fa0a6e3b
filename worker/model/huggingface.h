// Hugging Face folders: weights into an arena, and back out as a folder that
// AutoModelForCausalLM.from_pretrained takes.
//
// Thread-safe: the functions share nothing. What is read is untrusted: every name, shape and size is checked
// before it is used.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "common/file_system.h"
#include "worker/engine/layout.h"
#include "worker/model/config.h"

namespace accrue {

// Fills host_arena, layout.arena_elements() with zero padding, from model.safetensors, or from the shards
// that model.safetensors.index.json names. F32 is taken as it is, BF16 and F16 are widened. Names may begin
// with "transformer."; the masks that old GPT-2 files hold, old Llamas' rotary frequencies, and a copy of the
// token table under the tied head's name are passed over. NOT_FOUND when there are no weights;
// INVALID_ARGUMENT for missing, surplus, doubled or wrong-shaped tensors, a type that is not one of those, or
// a damaged file, with file and tensor.
absl::Status LoadHuggingFaceWeights(FileSystem& file_system, const std::string& folder,
                                    const ParameterLayout& layout, float* host_arena);

// Of a tensor of the layout, `elements` values.
using TensorReader = std::function<absl::Status(int tensor, float* values)>;

struct HuggingFaceExport {
  ModelConfig model;
  absl::optional<int64_t> bos_token, eos_token;
  std::vector<std::string> tokenizer_files;  // copied into the folder under their own names
};

// Writes config.json, generation_config.json, model.safetensors (F32) and the tokenizer's files, each
// atomically. Tensors have the layout's names; in a GPT-2 with a head of its own all others begin with
// "transformer.", as transformers wants them there. The file system's errors, the reader's, and
// INVALID_ARGUMENT for a layout that is not the model's.
absl::Status WriteHuggingFaceFolder(FileSystem& file_system, const std::string& folder,
                                    const HuggingFaceExport& description, const ParameterLayout& layout,
                                    const TensorReader& read);

}  // namespace accrue
