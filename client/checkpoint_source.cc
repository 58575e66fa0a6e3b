#include "client/checkpoint_source.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/job_client.h"
#include "client/job_file.h"
#include "client/run_history.h"
#include "common/data/data_manifest.h"
#include "common/spec/huggingface_config.h"
#include "common/spec/job_spec.h"
#include "common/status.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/model/parameters.h"
#include "worker/model/spec/model_spec.h"

namespace accrue {
namespace {

// From the job that a run's folder belongs to: the folder's job.json, two levels above a checkpoint.
std::string TokenizerOfRun(FileSystem& file_system, const std::string& checkpoint_directory) {
  const std::string run = DirectoryOf(DirectoryOf(checkpoint_directory));
  const absl::StatusOr<v1::ResolvedJob> job = ReadJobOfFolder(file_system, run);
  if (!job.ok()) return "";
  if (!job->tokenizer_directory().empty()) return job->tokenizer_directory();
  return job->train().empty() ? "" : TokenizerDirectoryOf(file_system, job->train(0).path());
}

// Finds every parameter array of a checkpoint and checks its shape.
absl::StatusOr<TensorReader> ReaderOfCheckpoint(FileSystem& file_system, const std::string& directory,
                                                const CheckpointManifest& manifest,
                                                const ParameterLayout& layout) {
  auto files = std::make_shared<std::vector<SafetensorsFile>>();
  for (const CheckpointFileInfo& info : manifest.files) {
    ACCRUE_ASSIGN_OR_RETURN(SafetensorsFile file,
                            SafetensorsFile::Open(file_system, JoinPath(directory, info.name)));
    files->push_back(std::move(file));
  }
  struct Place {
    const SafetensorsFile* file = nullptr;
    const SafetensorsTensor* tensor = nullptr;
  };
  std::vector<Place> places;
  for (const TensorInfo& tensor : layout.tensors()) {
    Place place;
    for (const SafetensorsFile& file : *files) {
      if (const SafetensorsTensor* found = file.Find(absl::StrCat(tensor.name, "|p"))) place = {&file, found};
    }
    if (place.file == nullptr || place.tensor->shape != tensor.shape) {
      return absl::DataLossError(absl::StrCat(directory, ": expected ", tensor.name, " of shape [",
                                              absl::StrJoin(tensor.shape, ", "), "], found ",
                                              place.file == nullptr ? "none" : place.tensor->ShapeText()));
    }
    places.push_back(place);
  }
  return TensorReader([files, places](int tensor, float* values) {
    return places[tensor].file->ReadFloats(*places[tensor].tensor, values);
  });
}

absl::StatusOr<ParameterLayout> LayoutOf(const ModelConfig& model) {
  return ParameterLayout::Build(DescribeTensors(model).shapes);
}

absl::StatusOr<WeightSource> OpenCheckpoint(FileSystem& file_system, const CheckpointEntry& entry) {
  ACCRUE_ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(file_system, entry.directory));
  ACCRUE_RETURN_IF_ERROR(VerifyFiles(file_system, entry.directory, manifest));
  ACCRUE_ASSIGN_OR_RETURN(const v1::JobSpec spec, SpecFromJson(manifest.spec_json));
  ACCRUE_ASSIGN_OR_RETURN(const ModelConfig model, ModelConfigFromSpec(spec.model()));
  ACCRUE_ASSIGN_OR_RETURN(ParameterLayout layout, LayoutOf(model));
  ACCRUE_ASSIGN_OR_RETURN(TensorReader reader,
                          ReaderOfCheckpoint(file_system, entry.directory, manifest, layout));
  return WeightSource{absl::StrCat("window ", manifest.window, " of ", entry.directory),
                      manifest.window,
                      model,
                      std::move(layout),
                      TokenizerOfRun(file_system, entry.directory),
                      std::move(reader)};
}

absl::StatusOr<WeightSource> OpenHuggingFace(FileSystem& file_system, const std::string& folder) {
  ACCRUE_ASSIGN_OR_RETURN(v1::ModelSpec spec, ReadHuggingFaceConfig(file_system, folder));
  ACCRUE_ASSIGN_OR_RETURN(const ModelConfig model, ModelConfigFromSpec(spec));
  ACCRUE_ASSIGN_OR_RETURN(ParameterLayout layout, LayoutOf(model));
  auto arena = std::make_shared<std::vector<float>>(static_cast<size_t>(layout.arena_elements()));
  ACCRUE_RETURN_IF_ERROR(LoadHuggingFaceWeights(file_system, folder, layout, arena->data()));
  TensorReader reader = [arena, tensors = layout.tensors()](int tensor, float* values) {
    const TensorInfo& info = tensors[tensor];
    std::copy_n(arena->data() + info.arena_offset, info.elements, values);
    return absl::OkStatus();
  };
  return WeightSource{folder, 0, model, std::move(layout), folder, std::move(reader)};
}

}  // namespace

bool NamesFolder(FileSystem& file_system, const std::string& source) {
  if (!file_system.IsDirectory(source)) return false;
  if (source.find('/') != std::string::npos || source == "." || source == "..") return true;
  for (const char* part : {kManifestName, "checkpoints", "job.json", "windows.jsonl"}) {
    if (file_system.Exists(JoinPath(source, part))) return true;
  }
  return false;
}

absl::StatusOr<std::vector<CheckpointEntry>> FindCheckpoints(CommandContext& context,
                                                             const std::string& source) {
  FileSystem& file_system = *context.file_system;
  std::string root;
  if (NamesFolder(file_system, source)) {
    const std::string folder = AbsolutePath(source);
    if (file_system.Exists(JoinPath(folder, kManifestName))) {
      ACCRUE_ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(file_system, folder));
      return std::vector<CheckpointEntry>{{manifest.window, folder}};
    }
    root = JoinPath(folder, "checkpoints");
  } else {
    if (source.find('/') != std::string::npos) {
      return absl::NotFoundError(
          absl::StrCat(source, ": no such folder; expected a checkpoint, a run's output, or a job"));
    }
    absl::StatusOr<v1::DescribeResponse> job = context.Connect()->Describe(source);
    if (!job.ok()) {
      return Annotate(job.status(), absl::StrCat(source, " is no run's folder, and as a job's name"));
    }
    root = JoinPath(job->status().output_directory(), "checkpoints");
  }
  ACCRUE_ASSIGN_OR_RETURN(std::vector<CheckpointEntry> entries, ListCheckpoints(file_system, root));
  if (entries.empty()) return absl::NotFoundError(absl::StrCat(root, " holds no checkpoint"));
  return entries;
}

absl::StatusOr<WeightSource> OpenWeights(CommandContext& context, const std::string& source,
                                         std::optional<int64_t> window) {
  FileSystem& file_system = *context.file_system;
  if (file_system.Exists(JoinPath(source, "config.json")) &&
      !file_system.Exists(JoinPath(source, kManifestName))) {
    return OpenHuggingFace(file_system, AbsolutePath(source));
  }
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<CheckpointEntry> entries, FindCheckpoints(context, source));
  if (!window.has_value()) return OpenCheckpoint(file_system, entries.back());
  for (const CheckpointEntry& entry : entries) {
    if (entry.window == *window) return OpenCheckpoint(file_system, entry);
  }
  return absl::NotFoundError(absl::StrCat(
      source, " has no checkpoint at window ", *window, "; it has ",
      absl::StrJoin(entries, ", ",
                    [](std::string* out, const CheckpointEntry& e) { absl::StrAppend(out, e.window); })));
}

}  // namespace accrue
