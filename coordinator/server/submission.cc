#include "coordinator/server/submission.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/spec/huggingface_config.h"
#include "common/spec/job_spec.h"
#include "common/status.h"

namespace accrue {
namespace {

// Defaults, the shape of a model that is read from a folder, and every check of the spec itself.
absl::Status CompleteSpec(FileSystem& file_system, const PathRules& rules, v1::JobSpec& spec) {
  if (!spec.model().from().empty()) {
    ACCRUE_ASSIGN_OR_RETURN(const std::string folder, ResolvePath(file_system, rules, spec.model().from()));
    spec.mutable_model()->set_from(folder);
    if (!file_system.Exists(JoinPath(folder, "model.safetensors")) &&
        !file_system.Exists(JoinPath(folder, "model.safetensors.index.json"))) {
      return absl::NotFoundError(absl::StrCat("model.from: expected model.safetensors or model.safetensors.index.json in ",
                                              folder, ", found neither; other formats of weights are not read"));
    }
    // A client may have completed it already.
    if (spec.model().architecture().empty()) {
      ACCRUE_RETURN_IF_ERROR(CompleteModel(file_system, folder, *spec.mutable_model()));
    }
  }
  ACCRUE_RETURN_IF_ERROR(FillDefaults(spec));
  const absl::Status status = ValidateSpec(spec);
  if (status.ok() || spec.model().from().empty()) return status;
  return absl::Status(status.code(), absl::StrCat(status.message(), " (the model's shape is that of ",
                                                  JoinPath(spec.model().from(), "config.json"), ")"));
}

// Evaluation on what the validation data has: fewer sequences than asked for are used, with a warning.
absl::Status FitEvaluation(int64_t available, v1::JobSpec& spec, std::vector<std::string>& warnings) {
  const int64_t per_unit = spec.batch().micro_batch(), wanted = spec.evaluation().sequences();
  if (EvaluationUnits(spec) == 0 || available >= wanted) return absl::OkStatus();
  const int64_t used = available / per_unit * per_unit;
  if (used == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "data.validation: too little data for one unit: batch.micro_batch is ", per_unit, ", the shards hold ",
        available, " sequences of ", spec.batch().sequence_length(), " tokens; add data, or leave data.validation out"));
  }
  warnings.push_back(absl::StrCat("evaluation.sequences is ", wanted, ", but data.validation holds ", available,
                                  ": evaluating on ", used));
  spec.mutable_evaluation()->set_sequences(used);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ResolvedSubmission> ResolveSubmission(FileSystem& file_system, Journal& journal,
                                                     const std::vector<std::string>& data_roots,
                                                     const v1::SubmitRequest& request) {
  const PathRules rules{request.base_directory(), data_roots};
  ResolvedSubmission submission;
  v1::ResolvedJob& job = submission.job;
  *job.mutable_spec() = request.spec();
  ACCRUE_RETURN_IF_ERROR(CompleteSpec(file_system, rules, *job.mutable_spec()));
  ACCRUE_ASSIGN_OR_RETURN(PinnedData data, PinData(file_system, journal, rules, job.spec()));
  submission.warnings = SpecWarnings(job.spec());
  submission.warnings.insert(submission.warnings.end(), data.warnings.begin(), data.warnings.end());
  ACCRUE_RETURN_IF_ERROR(FitEvaluation(data.validation_sequences, *job.mutable_spec(), submission.warnings));
  job.mutable_train()->Add(data.train.begin(), data.train.end());
  job.mutable_validation()->Add(data.validation.begin(), data.validation.end());
  job.set_tokenizer_directory(data.tokenizer_directory);
  job.set_closed_fleet(request.closed_fleet());
  job.set_total_windows(TotalWindows(job.spec(), data.train_data->sequences()));
  submission.data = std::move(data.train_data);

  submission.until_window = job.total_windows();
  if (request.has_until()) {
    if (request.until() < 1) {
      return absl::InvalidArgumentError(absl::StrCat("until: expected a window from 1 on, found ", request.until()));
    }
    if (request.until() > job.total_windows()) {
      submission.warnings.push_back(
          absl::StrCat("until is ", request.until(), ", but the job ends after ", job.total_windows(),
                       job.total_windows() == 1 ? " window" : " windows"));
    }
    submission.until_window = std::min(request.until(), job.total_windows());
  }
  if (!request.output_directory().empty()) {
    const std::string& output = request.output_directory();
    if (output.front() != '/' && request.base_directory().empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("output_directory: expected an absolute path, found \"", output, "\""));
    }
    std::string normal = std::filesystem::path(JoinPath(request.base_directory(), output)).lexically_normal().string();
    if (normal.size() > 1 && normal.back() == '/') normal.pop_back();
    job.set_output_directory(normal);
  }
  return submission;
}

core::JobConfig ConfigOf(const v1::ResolvedJob& job, int64_t until_window) {
  const v1::JobSpec& spec = job.spec();
  core::JobConfig config;
  config.id = job.job_id();
  config.name = spec.name();
  config.units_per_window = UnitsPerWindow(spec);
  config.total_windows = job.total_windows();
  config.until_window = until_window;
  config.sequences_per_unit = spec.batch().micro_batch();
  config.sequence_length = spec.batch().sequence_length();
  config.evaluation_units = job.validation().empty() ? 0 : EvaluationUnits(spec);
  config.evaluation_every = config.evaluation_units == 0 ? 0 : spec.evaluation().every_windows();
  config.checkpoint_every = spec.checkpoint().every_windows();
  config.min_workers = spec.workers().min();
  config.max_workers = spec.workers().max();
  config.exact = spec.accumulation().mode() != "fast";
  config.precision = PrecisionOf(spec.precision());
  config.loss_scale = LossScaleOf(spec);
  config.mixed_classes = spec.workers().mixed();
  config.closed_fleet = job.closed_fleet();
  config.audit_fraction = spec.audit().fraction();
  config.seed = spec.seed();
  config.schedule = ScheduleOf(spec, job.total_windows());
  return config;
}

std::string ResolvedJobToJson(const v1::ResolvedJob& job) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string text;
  ACCRUE_CHECK(google::protobuf::util::MessageToJsonString(job, &text, options).ok());
  return text;
}

absl::StatusOr<v1::ResolvedJob> ResolvedJobFromJson(const std::string& text) {
  v1::ResolvedJob job;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;  // written by a newer version
  const auto status = google::protobuf::util::JsonStringToMessage(text, &job, options);
  if (status.ok()) return job;
  return absl::DataLossError(
      absl::StrCat("expected a resolved job as JSON: ", std::string(status.message().data(), status.message().size())));
}

}  // namespace accrue
