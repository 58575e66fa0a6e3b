// validate and submit: what begins with a job file.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/commands.h"
#include "client/format.h"
#include "client/job_client.h"
#include "client/job_file.h"
#include "client/watch.h"
#include "common/available_memory.h"
#include "common/option_checks.h"
#include "common/spec/huggingface_config.h"
#include "common/status.h"
#include "worker/app/job_parts.h"
#include "worker/app/memory_estimate.h"

namespace accrue {
namespace {

using nlohmann::ordered_json;

// What cannot be checked here, or is valid and yet without effect.
std::vector<std::string> WarningsAbout(CommandContext& context, const JobFile& file,
                                       const v1::JobSpec& spec) {
  std::vector<std::string> warnings = SpecWarnings(spec);
  const auto check = [&](absl::string_view name, const auto& patterns) {
    for (const std::string& pattern : patterns) {
      if (Glob(*context.file_system, JoinPath(file.directory, pattern)).ok()) continue;
      warnings.push_back(absl::StrCat(name, ": nothing matches ", pattern, " relative to the job file (submit looks under the coordinator's data roots)"));
    }
  };
  check("data.train", spec.data().train());
  check("data.validation", spec.data().validation());
  return warnings;
}

// What a job takes, and on what.
struct MemoryReport {
  MemoryEstimate estimate;
  std::vector<LevelEstimate> levels;
  std::optional<int64_t> memory_bytes;  // of the device; not known: no level says what fits
  bool this_machine = true;             // the memory is what is available here, not what was asked about
};

absl::StatusOr<MemoryReport> ReportMemory(CommandContext& context, const v1::JobSpec& spec,
                                          std::optional<int64_t> memory_bytes) {
  MemoryReport report;
  report.this_machine = !memory_bytes.has_value();
  if (report.this_machine) {
    if (const auto available = AvailableMemoryBytes(*context.file_system)) memory_bytes = *available;
  }
  report.memory_bytes = memory_bytes;
  ACCRUE_ASSIGN_OR_RETURN(report.estimate, EstimateMemory(spec));
  ACCRUE_ASSIGN_OR_RETURN(report.levels, EstimateLevels(spec, report.estimate, memory_bytes.value_or(0)));
  return report;
}

ordered_json JsonOf(const v1::JobSpec& spec, const MemoryReport& report) {
  const MemoryEstimate& memory = report.estimate;
  ordered_json object = {{"parameters_bytes", memory.parameter_bytes},
                         {"compute_copy_bytes", memory.compute_copy_bytes},
                         {"optimizer_bytes", memory.optimizer_bytes},
                         {"accumulator_bytes", memory.accumulator_bytes},
                         {"activations_bytes", memory.activation_bytes},
                         {"gradients_bytes", memory.gradient_bytes},
                         {"reduce_staging_bytes", memory.staging_bytes},
                         {"total_bytes", memory.total_bytes},
                         {"checkpoint_bytes", memory.checkpoint_bytes},
                         {"joining_bytes", memory.joining_bytes},
                         {"recompute", spec.recompute()}};
  object["available_bytes"] = report.memory_bytes.has_value() ? ordered_json(*report.memory_bytes) : nullptr;
  object["levels"] = ordered_json::array();
  for (const LevelEstimate& level : report.levels) {
    ordered_json fits = nullptr, largest = nullptr;
    if (report.memory_bytes.has_value()) {
      fits = level.total_bytes <= *report.memory_bytes;
      largest = level.largest_micro_batch;
    }
    object["levels"].push_back({{"recompute", RecomputeName(level.recompute)},
                                {"activations_bytes", level.activation_bytes},
                                {"total_bytes", level.total_bytes},
                                {"fits", fits},
                                {"largest_micro_batch", largest}});
  }
  return object;
}

void PrintLevels(std::ostream& out, const v1::JobSpec& spec, const MemoryReport& report) {
  std::vector<std::vector<std::string>> rows = {{"recompute", "activations", "total"}};
  if (report.memory_bytes.has_value()) rows[0].push_back("largest micro_batch");
  rows[0].push_back("");
  for (const LevelEstimate& level : report.levels) {
    std::vector<std::string> row = {RecomputeName(level.recompute), FormatBytes(level.activation_bytes),
                                    FormatBytes(level.total_bytes)};
    if (report.memory_bytes.has_value()) {
      row.push_back(level.largest_micro_batch > 0 ? FormatCount(level.largest_micro_batch) : "none");
    }
    row.push_back(spec.recompute() == RecomputeName(level.recompute) ? "<- this job" : "");
    rows.push_back(std::move(row));
  }
  out << "\nWhat recompute would take, in more time and with the same results:\n\n";
  for (const absl::string_view line : absl::StrSplit(FormatTable(rows), '\n', absl::SkipEmpty()))
    out << "  " << line << "\n";
  if (!report.memory_bytes.has_value()) {
    out << "\nHow much memory this machine has available is not known; --memory says what a device has.\n";
    return;
  }
  out << "\nThe largest micro_batch is of those that divide batch.sequences, "
      << FormatCount(spec.batch().sequences()) << ", the one that fits in "
      << FormatBytes(*report.memory_bytes)
      << (report.this_machine ? ", which this machine has available" : "") << ".\n";
  if (report.estimate.total_bytes > *report.memory_bytes) out << "The job as it is does not fit.\n";
}

void PrintMemory(std::ostream& out, const v1::JobSpec& spec, const MemoryReport& report) {
  const MemoryEstimate& memory = report.estimate;
  const std::string unit = absl::StrCat("one unit: ", FormatCount(spec.batch().micro_batch()), " x ",
                                        FormatCount(spec.batch().sequence_length()), " tokens");
  std::vector<std::vector<std::string>> rows = {
      {"parameters", FormatBytes(memory.parameter_bytes), FormatParameters(memory.parameters) + " in fp32"}};
  if (memory.compute_copy_bytes > 0) {
    rows.push_back({spec.precision() + " copy", FormatBytes(memory.compute_copy_bytes), "what is computed with"});
  }
  rows.push_back({"optimizer", FormatBytes(memory.optimizer_bytes), spec.optimizer().name() + ", fp32"});
  rows.push_back({"accumulator", FormatBytes(memory.accumulator_bytes),
                  spec.accumulation().mode() == "fast" ? "fp32" : "int64: exact"});
  rows.push_back({"activations", FormatBytes(memory.activation_bytes), unit});
  rows.push_back({"gradients", FormatBytes(memory.gradient_bytes), "scratch of one unit"});
  rows.push_back({"staging", FormatBytes(memory.staging_bytes), "a bucket in the all-reduce, with two workers or more"});
  rows.push_back({"total", FormatBytes(memory.total_bytes), "and the process itself"});
  out << "A worker needs memory, whatever the number of workers:\n\n";
  for (const std::vector<std::string>& row : rows) {
    out << "  " << row[0] << std::string(13 - row[0].size() + std::max<size_t>(row[1].size(), 10) - row[1].size(), ' ')
        << row[1] << "  " << row[2] << "\n";
  }
  const int64_t elements = memory.parameter_bytes / static_cast<int64_t>(sizeof(float));
  out << "\nParameters, optimizer and accumulator are " << memory.StateBytes() / elements
      << " bytes a parameter.\n";
  PrintLevels(out, spec, report);
  out << "\nWriting a checkpoint takes " << FormatBytes(memory.checkpoint_bytes)
      << " more for that time, shared among the workers.\n";
  if (memory.joining_bytes > 0) {
    out << "A worker that sends its state to one that joins needs " << FormatBytes(memory.joining_bytes)
        << " more for that time.\n";
  }
}

struct ValidateOptions {
  std::string path;
  bool only_estimate = false;
  std::string memory;  // of a device, as given; empty: this machine's
};

void Validate(CommandContext& context, const ValidateOptions& options) {
  const std::string& path = options.path;
  const std::unique_ptr<JobFile> file = LoadJobFile(context, path);
  if (file == nullptr) {
    if (context.json()) *context.out << ordered_json{{"valid", false}, {"file", path}}.dump() << "\n";
    return;
  }
  v1::JobSpec spec = file->job.spec;
  std::vector<std::string> warnings;
  if (!spec.model().from().empty()) {
    const std::string folder = JoinPath(file->directory, spec.model().from());
    const absl::Status status = CompleteModel(*context.file_system, folder, *spec.mutable_model());
    if (status.code() == absl::StatusCode::kNotFound) {
      warnings.push_back(absl::StrCat("model.from is not checked: ", status.message()));
    } else if (!status.ok()) {
      return context.Fail(kExitInvalidSpec, status.message());
    }
  }
  if (const absl::Status status = FillDefaults(spec); !status.ok()) return context.Fail(status);
  if (const absl::Status status = ValidateSpec(spec, &file->job.source); !status.ok())
    return context.Fail(status);
  for (std::string& warning : WarningsAbout(context, *file, spec)) warnings.push_back(std::move(warning));

  const bool shaped = !spec.model().architecture().empty();
  std::optional<MemoryReport> memory;
  if (shaped) {
    std::optional<int64_t> memory_bytes;
    if (!options.memory.empty()) memory_bytes = *ParseBytes(options.memory);  // checked when it was read
    absl::StatusOr<MemoryReport> report = ReportMemory(context, spec, memory_bytes);
    if (!report.ok()) return context.Fail(kExitInvalidSpec, report.status().message());
    memory = *std::move(report);
  }
  if (options.only_estimate && !memory.has_value()) {
    return context.Fail(kExitNotFound, "the model's shape is not known here, so there is nothing to estimate");
  }
  if (context.json()) {
    ordered_json object = {{"valid", true}, {"file", path}, {"units_per_window", UnitsPerWindow(spec)}};
    object["tokens_per_window"] = shaped ? ordered_json(TokensPerWindow(spec)) : nullptr;
    object["parameters"] = shaped ? ordered_json(memory->estimate.parameters) : nullptr;
    object["memory"] = memory.has_value() ? JsonOf(spec, *memory) : ordered_json(nullptr);
    object["warnings"] = warnings;
    object["spec"] = ToJson(spec);
    *context.out << object.dump() << "\n";
    return;
  }
  for (const std::string& warning : warnings) context.Warn(warning);
  if (options.only_estimate) return PrintMemory(*context.out, spec, *memory);
  *context.out << path << " is valid. With every default:\n\n";
  *context.out << FormatFields(ToJson(spec), "  ");
  *context.out << "\nA window has " << FormatCount(UnitsPerWindow(spec)) << " units";
  if (shaped) {
    *context.out << " and " << FormatCount(TokensPerWindow(spec)) << " tokens; the model has "
                 << FormatParameters(memory->estimate.parameters) << " parameters";
  }
  *context.out << ".\n";
  if (memory.has_value()) PrintMemory(*context.out << "\n", spec, *memory);
}

struct SubmitOptions {
  std::string path, output;
  std::optional<int64_t> resume_from, until;
  bool fresh = false, watch = false;
};

void Submit(CommandContext& context, const SubmitOptions& options) {
  const std::unique_ptr<JobFile> file = LoadJobFile(context, options.path);
  if (file == nullptr) return;
  v1::SubmitRequest request;
  *request.mutable_spec() = file->job.spec;
  if (!options.output.empty()) request.set_output_directory(AbsolutePath(options.output));
  request.set_fresh(options.fresh);
  if (options.resume_from.has_value()) request.set_resume_from(*options.resume_from);
  if (options.until.has_value()) request.set_until(*options.until);

  const std::unique_ptr<JobClient> client = context.Connect();
  const absl::StatusOr<v1::SubmitResponse> response = client->Submit(request);
  if (!response.ok()) return context.Fail(response.status());
  for (const std::string& warning : response->warnings()) context.Warn(Printable(warning));
  if (options.watch) return WatchJob(context, *client, response->job_id(), {});
  if (context.json()) {
    *context.out << ToJson(*response).dump() << "\n";
    return;
  }
  *context.out << "Submitted " << response->job_id();
  if (response->first_window() > 0)
    *context.out << ", resuming at window " << FormatCount(response->first_window());
  *context.out << ".\n";
  *context.err << "Watch it: accrue watch " << response->job_id() << "\n";
}

}  // namespace

void RegisterSpecCommands(CLI::App& app, CommandContext& context) {
  CLI::App* const validate =
      AddCommand(app, "validate",
                 "Check a job file without running it: all errors at once, each with "
                 "line and column; then every default, and the memory that a worker needs.",
                 "accrue validate job.yaml\naccrue validate --estimate --memory 80GiB job.yaml",
                 /*asks_coordinator=*/false);
  const auto validated = std::make_shared<ValidateOptions>();
  validate->add_option("JOB.yaml", validated->path, "The job file")->required();
  validate->add_flag("--estimate", validated->only_estimate, "Print only the memory that a worker needs");
  validate
      ->add_option("--memory", validated->memory,
                   "Memory of a worker's device, such as 80GiB, 80GB (thousands) or a number of bytes (default: what "
                   "this machine has available)")
      ->check([](const std::string& text) { return std::string(ParseBytes(text).status().message()); }, "")
      ->type_name("SIZE");
  validate->callback([&context, validated] { Validate(context, *validated); });

  CLI::App* const submit = AddCommand(
      app, "submit",
      "Hand a job to the coordinator. It runs as soon as there are workers, whether you watch or not.",
      "accrue submit job.yaml\naccrue submit job.yaml --watch");
  const auto options = std::make_shared<SubmitOptions>();
  submit
      ->add_option("JOB.yaml", options->path,
                   "The job file; data paths are under the coordinator's data roots")
      ->required();
  submit
      ->add_option("--output", options->output,
                   "Folder for checkpoints and windows.jsonl; it resumes what the folder holds of this job. "
                   "Default: a folder of the coordinator's, which accrue describe names")
      ->type_name("DIR");
  submit->add_option("--resume-from", options->resume_from, "Resume from the checkpoint of this window")
      ->check(NonNegativeNumber());
  submit->add_option("--until", options->until, "Stop, with a checkpoint, once this many windows of the job are done (default: all)")
      ->check(PositiveNumber());
  submit->add_flag("--fresh", options->fresh, "Discard what the output folder holds of this job");
  submit->add_flag("--watch", options->watch, "Follow the job until it ends");
  submit->callback([&context, options] { Submit(context, *options); });
}

}  // namespace accrue
