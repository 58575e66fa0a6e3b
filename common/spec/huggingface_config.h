// The shape of a model from the config.json of its Hugging Face folder.
//
// Thread-safe: pure functions of the file. The file is untrusted: at most 1 MiB is read and every value is
// checked.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "accrue/v1/job.pb.h"
#include "common/file_system.h"

namespace accrue {

// The shape fields of GPT2LMHeadModel, LlamaForCausalLM, MistralForCausalLM and Qwen2ForCausalLM; `from` and
// `dropout` stay absent. A sliding window shorter than the context shortens the context to it: within it,
// attention is full. NOT_FOUND without a config.json; INVALID_ARGUMENT, with the file, the field and what was
// expected, for what is not valid; UNIMPLEMENTED for another architecture, or a variant that would be
// computed wrongly (another scaling of rotary positions than linear and llama3, another activation, biases
// that the model here does not have).
absl::StatusOr<v1::ModelSpec> ReadHuggingFaceConfig(FileSystem& file_system, const std::string& folder);

// Merges that shape into a model that is only a `from`. `folder` is where model.from leads.
absl::Status CompleteModel(FileSystem& file_system, const std::string& folder, v1::ModelSpec& model);

}  // namespace accrue
