#include "worker/app/job_factory.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/log.h"
#include "common/status.h"
#include "worker/app/job_parts.h"
#include "worker/app/memory_estimate.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/data/unit_reader.h"
#include "worker/model/huggingface.h"

namespace accrue {
namespace {

bool IsUnder(const std::string& path, const std::string& root) {
  return path == root || absl::StartsWith(path, absl::EndsWith(root, "/") ? root : absl::StrCat(root, "/"));
}

}  // namespace

NativeJobFactory::NativeJobFactory(const JobFactoryOptions& options, FileSystem& file_system,
                                   std::shared_ptr<Backend> backend)
    : options_(options), file_system_(file_system), backend_(std::move(backend)) {}

absl::StatusOr<std::unique_ptr<Job>> NativeJobFactory::Load(const v1::AssignJob& assignment) {
  const v1::ResolvedJob& resolved = assignment.job();
  const v1::JobSpec& spec = resolved.spec();
  const v1::BatchSpec& batch = spec.batch();
  if (batch.micro_batch() < 1 || batch.sequence_length() < 1 || batch.sequences() < batch.micro_batch()) {
    return absl::InvalidArgumentError("the job has no batch shape: expected batch.sequences, micro_batch and "
                                      "sequence_length of at least 1");
  }
  auto job = std::make_unique<Job>();
  job->backend = backend_;
  const DataOrder order = spec.data().order() == "sequential" ? DataOrder::kSequential : DataOrder::kShuffled;
  ACCRUE_ASSIGN_OR_RETURN(job->train, OpenData(spec, resolved.train(), order));
  if (resolved.validation_size() > 0) {
    ACCRUE_ASSIGN_OR_RETURN(job->validation, OpenData(spec, resolved.validation(), DataOrder::kSequential));
  }
  job->units = std::make_unique<UnitReader>(job->train.get(), job->validation.get(),
                                            UnitShape{.sequences_per_window = batch.sequences(),
                                                      .rows = batch.micro_batch(),
                                                      .sequence_length = batch.sequence_length()});

  // An engine of somebody's own allocates what nobody here knows.
  if (!options_.make_engine) ACCRUE_RETURN_IF_ERROR(ReserveMemory(spec, *backend_));
  ACCRUE_ASSIGN_OR_RETURN(job->engine,
                          options_.make_engine ? options_.make_engine(spec) : MakeTransformer(spec, *backend_));
  const ParameterLayout& layout = job->engine->layout();
  ACCRUE_ASSIGN_OR_RETURN(job->state, MakeState(spec, layout, *backend_));
  ACCRUE_ASSIGN_OR_RETURN(job->accumulator, MakeAccumulator(spec, layout, *backend_));
  ACCRUE_RETURN_IF_ERROR(FillState(assignment, *job));
  job->engine->BindParameters(job->state->parameters());
  job->engine->ParametersChanged();
  LogInfo("job loaded", {{"job", resolved.job_id()}, {"parameters", layout.parameters()},
                         {"sequences", job->train->sequences()}, {"holds_state", job->holds_state}});
  return job;
}

absl::StatusOr<std::unique_ptr<Dataset>> NativeJobFactory::OpenData(
    const v1::JobSpec& spec, const google::protobuf::RepeatedPtrField<v1::ShardPin>& pins, DataOrder order) {
  std::vector<ShardReference> shards;
  for (const v1::ShardPin& pin : pins) {
    ShardReference shard{.size_bytes = pin.size_bytes(), .xxh3_128 = pin.xxh3_128(),
                         .mask_xxh3_128 = pin.mask_xxh3_128()};
    ACCRUE_ASSIGN_OR_RETURN(shard.path, ResolvePath(pin.path()));
    if (!pin.mask_path().empty()) {
      ACCRUE_ASSIGN_OR_RETURN(shard.mask_path, ResolvePath(pin.mask_path()));
    }
    shards.push_back(std::move(shard));
  }
  return Dataset::Open(file_system_, shards,
                       {.sequence_length = spec.batch().sequence_length(),
                        .order = order,
                        .seed = spec.seed(),
                        .vocabulary = spec.model().vocabulary()});
}

absl::StatusOr<std::string> NativeJobFactory::ResolvePath(const std::string& path) const {
  const std::vector<std::string>& roots = options_.data_roots;
  if (absl::StrContains(absl::StrCat("/", path, "/"), "/../")) {
    return absl::PermissionDeniedError(absl::StrCat("data path \"", path, "\" has a \"..\" in it"));
  }
  if (absl::StartsWith(path, "/")) {
    for (const std::string& root : roots) {
      if (IsUnder(path, root)) return path;
    }
    if (roots.empty()) return path;
    return absl::PermissionDeniedError(absl::StrCat("data path \"", path, "\" is under none of this worker's data roots (",
                                                    absl::StrJoin(roots, ", "), "): add one with --data-root"));
  }
  for (const std::string& root : roots) {
    if (std::string candidate = JoinPath(root, path); file_system_.Exists(candidate)) return candidate;
  }
  return absl::NotFoundError(absl::StrCat("data path \"", path, "\" is relative and under none of this worker's ",
                                          roots.size(), " data roots (", absl::StrJoin(roots, ", "),
                                          "): add one with --data-root"));
}

absl::Status NativeJobFactory::FillState(const v1::AssignJob& assignment, Job& job) {
  switch (assignment.start_case()) {
    case v1::AssignJob::kFromMembers:
      return absl::OkStatus();  // a StateSync follows
    case v1::AssignJob::kCheckpointDirectory:
      ACCRUE_RETURN_IF_ERROR(LoadCheckpoint(file_system_, assignment.checkpoint_directory(), *job.state));
      break;
    case v1::AssignJob::kFromScratch: {
      const v1::JobSpec& spec = assignment.job().spec();
      const ParameterLayout& layout = job.engine->layout();
      std::vector<float> values(static_cast<size_t>(layout.arena_elements()));
      if (spec.model().from().empty() || options_.make_engine) {
        job.engine->InitializeParameters(spec.seed(), values.data());
      } else {
        ACCRUE_RETURN_IF_ERROR(LoadHuggingFaceWeights(file_system_, spec.model().from(), layout, values.data()));
      }
      job.state->Start(values.data());
      break;
    }
    case v1::AssignJob::START_NOT_SET:
      return absl::InvalidArgumentError("the assignment does not say what to start from");
  }
  job.holds_state = true;
  return absl::OkStatus();
}

}  // namespace accrue
