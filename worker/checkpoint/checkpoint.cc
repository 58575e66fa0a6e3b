#include "worker/checkpoint/checkpoint.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/exponents.h"
#include "common/fault_points.h"
#include "common/status.h"
#include "worker/checkpoint/safetensors.h"

namespace accrue {
namespace {

std::string ArrayName(absl::string_view tensor, char array) {
  return absl::StrCat(tensor, "|", absl::string_view(&array, 1));
}

// Shard of each array: largest first, to the shard that has least; ties go to the first array and the first
// shard.
std::vector<int> DealArrays(const std::vector<StateArray>& arrays, int shards) {
  std::vector<size_t> order(arrays.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return arrays[a].elements > arrays[b].elements; });
  std::vector<int64_t> held(shards);
  std::vector<int> shard_of(arrays.size());
  for (size_t index : order) {
    const auto least = std::min_element(held.begin(), held.end());
    *least += arrays[index].elements;
    shard_of[index] = static_cast<int>(least - held.begin());
  }
  return shard_of;
}

absl::StatusOr<CheckpointFileInfo> WriteShard(FileSystem& file_system, const std::string& path,
                                              const CheckpointSnapshot& snapshot) {
  std::vector<SafetensorsTensor> tensors;
  for (const StateArray& array : snapshot.arrays) {
    tensors.push_back({.name = ArrayName(array.tensor, array.array), .shape = array.shape});
  }
  ACCRUE_ASSIGN_OR_RETURN(
      const std::unique_ptr<SafetensorsWriter> writer,
      SafetensorsWriter::Create(file_system, path, std::move(tensors), {{"format", "accrue-state-1"}}));
  for (size_t i = 0; i < snapshot.values.size(); ++i) {
    ACCRUE_RETURN_IF_ERROR(writer->Append(snapshot.values[i].data(), snapshot.values[i].size() * sizeof(float)));
    if (i == snapshot.values.size() / 2) PassFaultPoint(FaultPoint::kWorkerShardHalf);
  }
  ACCRUE_RETURN_IF_ERROR(writer->Finish());

  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> written, file_system.Map(path));
  if (written->size_bytes() != writer->size_bytes() ||
      HashBytes(written->data(), written->size_bytes()) != writer->hash()) {
    return absl::DataLossError(
        absl::StrCat(path, ": what was read back is not what was written; is the disk failing?"));
  }
  return CheckpointFileInfo{.name = ShardFileName(snapshot.shard, snapshot.shards),
                            .size_bytes = writer->size_bytes(),
                            .xxh3_128 = writer->hash().Hex()};
}

absl::Status Damaged(absl::string_view where, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(where, ": damaged checkpoint: ", what));
}

// The arrays of all of a checkpoint's files by name.
class ArrayFiles {
 public:
  static absl::StatusOr<ArrayFiles> Open(FileSystem& file_system, const std::string& directory,
                                         const CheckpointManifest& manifest) {
    ArrayFiles result;
    result.directory_ = directory;
    for (const CheckpointFileInfo& info : manifest.files) {
      absl::StatusOr<SafetensorsFile> file =
          SafetensorsFile::Open(file_system, JoinPath(directory, info.name));
      if (!file.ok()) return Damaged(directory, file.status().message());
      result.files_.push_back(std::make_unique<SafetensorsFile>(*std::move(file)));
      for (const SafetensorsTensor& tensor : result.files_.back()->tensors()) {
        if (tensor.dtype != SafetensorsDType::kF32) {
          return Damaged(result.files_.back()->path(), absl::StrCat("array ", tensor.name, " is not F32"));
        }
        if (!result.arrays_.insert({tensor.name, {result.files_.back().get(), &tensor}}).second) {
          return Damaged(directory, absl::StrCat("array ", tensor.name, " is in it twice"));
        }
      }
    }
    return result;
  }

  struct Array {
    const SafetensorsFile* file = nullptr;
    const SafetensorsTensor* tensor = nullptr;
  };

  size_t size() const { return arrays_.size(); }
  absl::StatusOr<Array> Find(absl::string_view tensor, char array) const {
    const std::string name = ArrayName(tensor, array);
    const auto it = arrays_.find(name);
    if (it == arrays_.end())
      return Damaged(directory_, absl::StrCat("array ", name, " is in none of its files"));
    return it->second;
  }
  absl::Status CheckCount(size_t expected) const {
    if (size() == expected) return absl::OkStatus();
    return Damaged(directory_, absl::StrCat("its files hold ", size(), " arrays, expected ", expected));
  }

 private:
  std::string directory_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  absl::flat_hash_map<std::string, Array> arrays_;
};

// What the manifest says must fit the state before anything is read.
absl::Status CheckFits(const CheckpointManifest& manifest, const std::string& directory,
                       const TrainingState& state) {
  const std::vector<TensorInfo>& tensors = state.layout().tensors();
  const bool same_names =
      std::equal(tensors.begin(), tensors.end(), manifest.tensors.begin(), manifest.tensors.end(),
                 [](const TensorInfo& info, const std::string& name) { return info.name == name; });
  if (!same_names) {
    return Damaged(directory, absl::StrCat("its ", manifest.tensors.size(), " tensors are not the model's ",
                                           tensors.size()));
  }
  const size_t arrays_per_tensor = manifest.optimizer == "adamw" ? 3 : 2;
  if (state.arrays().size() != arrays_per_tensor * tensors.size()) {
    return Damaged(directory, absl::StrCat("it was trained with ", manifest.optimizer,
                                           ", the job uses another optimizer"));
  }
  if (state.mode() == AccumulationMode::kFast && !manifest.exponents.empty()) {
    return Damaged(directory, "it has exponents, the job's accumulation is fast");
  }
  return absl::OkStatus();
}

}  // namespace

CheckpointSnapshot TakeSnapshot(const TrainingState& state, int shard, int shards) {
  ACCRUE_CHECK(shards >= 1 && shard >= 0 && shard < shards);
  CheckpointSnapshot snapshot{.shard = shard, .shards = shards};
  const std::vector<int> shard_of = DealArrays(state.arrays(), shards);
  for (size_t index = 0; index < shard_of.size(); ++index) {
    if (shard_of[index] != shard) continue;
    snapshot.arrays.push_back(state.arrays()[index]);
    snapshot.values.emplace_back(state.arrays()[index].elements);
    state.ReadArray(static_cast<int>(index), snapshot.values.back().data());
  }
  return snapshot;
}

absl::StatusOr<CheckpointFileInfo> WriteSnapshot(FileSystem& file_system, const std::string& directory,
                                                 const CheckpointSnapshot& snapshot) {
  ACCRUE_RETURN_IF_ERROR(file_system.CreateDirectories(directory));
  ACCRUE_RETURN_IF_ERROR(file_system.SyncDirectory(DirectoryOf(directory)));
  const std::string path = JoinPath(directory, ShardFileName(snapshot.shard, snapshot.shards));
  const std::string temporary = absl::StrCat(path, ".partial");
  absl::StatusOr<CheckpointFileInfo> info = WriteShard(file_system, temporary, snapshot);
  absl::Status status = info.status();
  if (status.ok()) status = file_system.Rename(temporary, path);
  if (status.ok()) status = file_system.SyncDirectory(directory);
  if (status.ok()) return info;
  file_system.RemoveAll(temporary).IgnoreError();
  file_system.RemoveAll(path).IgnoreError();
  return Annotate(status, "cannot write a checkpoint");
}

absl::Status LoadCheckpoint(FileSystem& file_system, const std::string& directory, TrainingState& state) {
  ACCRUE_ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(file_system, directory));
  ACCRUE_RETURN_IF_ERROR(CheckFits(manifest, directory, state));
  ACCRUE_RETURN_IF_ERROR(VerifyFiles(file_system, directory, manifest));
  ACCRUE_ASSIGN_OR_RETURN(const ArrayFiles files, ArrayFiles::Open(file_system, directory, manifest));
  ACCRUE_RETURN_IF_ERROR(files.CheckCount(state.arrays().size()));
  std::vector<float> values;
  for (size_t index = 0; index < state.arrays().size(); ++index) {
    const StateArray& array = state.arrays()[index];
    ACCRUE_ASSIGN_OR_RETURN(const ArrayFiles::Array found, files.Find(array.tensor, array.array));
    if (found.tensor->shape != array.shape) {
      const SafetensorsTensor expected{.shape = array.shape};
      return Damaged(found.file->path(),
                     absl::StrCat("array ", found.tensor->name, " has shape ", found.tensor->ShapeText(),
                                  ", the model's is ", expected.ShapeText()));
    }
    values.resize(array.elements);
    ACCRUE_RETURN_IF_ERROR(found.file->ReadFloats(*found.tensor, values.data()));
    state.WriteArray(static_cast<int>(index), values.data());
  }
  state.SetProgress(manifest.window, manifest.steps, manifest.exponents);
  state.SetLossScale(manifest.loss_scale);
  if (const std::string digest = state.Digest().Hex(); digest != manifest.digest) {
    return Damaged(directory,
                   absl::StrCat("the state's digest is ", digest, ", its manifest says ", manifest.digest));
  }
  return absl::OkStatus();
}

absl::StatusOr<Hash128> ComputeCheckpointDigest(FileSystem& file_system, const std::string& directory) {
  ACCRUE_ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(file_system, directory));
  ACCRUE_ASSIGN_OR_RETURN(const ArrayFiles files, ArrayFiles::Open(file_system, directory, manifest));
  const absl::string_view kinds = manifest.optimizer == "adamw" ? "pmv" : "pm";
  ACCRUE_RETURN_IF_ERROR(files.CheckCount(kinds.size() * manifest.tensors.size()));
  std::string header = absl::StrCat("accrue-state-1\nwindow ", manifest.window, "\nsteps ", manifest.steps,
                                    "\noptimizer ", manifest.optimizer, "\n");
  if (manifest.loss_scale) {
    absl::StrAppend(&header, "loss_scale ", manifest.loss_scale->exponent, " ", manifest.loss_scale->good_windows, "\n");
  }
  std::string hashes;
  for (size_t t = 0; t < manifest.tensors.size(); ++t) {
    const std::string& name = manifest.tensors[t];
    ACCRUE_ASSIGN_OR_RETURN(const ArrayFiles::Array parameter, files.Find(name, 'p'));
    const int64_t elements = parameter.tensor->elements;
    absl::StrAppend(&header, "tensor ", name, " ", elements, " ");
    absl::StrAppend(&header, manifest.exponents.empty() ? "-" : absl::StrCat(manifest.exponents[t]), "\n");
    for (char kind : kinds) {
      ACCRUE_ASSIGN_OR_RETURN(const ArrayFiles::Array array, files.Find(name, kind));
      if (array.tensor->shape != parameter.tensor->shape) {
        return Damaged(array.file->path(),
                       absl::StrCat("array ", array.tensor->name, " has shape ", array.tensor->ShapeText(),
                                    ", its parameter's is ", parameter.tensor->ShapeText()));
      }
      const uint8_t* bytes = array.file->Data(*array.tensor);
      for (int64_t begin = 0; begin < elements; begin += kChunkElements) {
        const Hash128 hash = HashBytes(bytes + begin * sizeof(float),
                                       std::min(kChunkElements, elements - begin) * sizeof(float));
        hashes.append(reinterpret_cast<const char*>(hash.bytes.data()), hash.bytes.size());
      }
    }
  }
  header += hashes;
  return HashBytes(header.data(), header.size());
}

}  // namespace accrue
