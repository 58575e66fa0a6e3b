// list, describe, checkpoint list, cancel, pause, resume: one call each, shown as text or JSON.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/checkpoint_source.h"
#include "client/commands.h"
#include "client/format.h"
#include "client/job_client.h"
#include "client/workers.h"
#include "common/spec/job_spec.h"
#include "common/status.h"

namespace accrue {
namespace {

std::string LossOrDash(bool known, double loss) { return known ? FormatLoss(loss) : "-"; }

void PrintJson(const CommandContext& context, const google::protobuf::Message& message) {
  *context.out << ToJson(message).dump() << "\n";
}

void List(CommandContext& context) {
  const absl::StatusOr<v1::ListResponse> response = context.Connect()->List();
  if (!response.ok()) return context.Fail(response.status());
  if (context.json()) return PrintJson(context, *response);
  if (response->jobs().empty()) {
    *context.out << "No jobs. Submit one: accrue submit JOB.yaml\n";
    return;
  }
  std::vector<std::vector<std::string>> rows = {
      {"JOB", "STATE", "WINDOW", "OF", "LOSS", "VALIDATION", "TOKENS/S", "WORKERS", "ETA"}};
  for (const v1::JobStatus& job : response->jobs()) {
    const bool running = job.state() == v1::JOB_STATE_RUNNING;
    rows.push_back(
        {job.job_id(), StateName(job.state()), FormatCount(job.window()), FormatCount(job.total_windows()),
         LossOrDash(job.window() > 0, job.loss()),
         LossOrDash(job.has_validation_loss(), job.validation_loss()),
         job.tokens_per_second() > 0 ? FormatCount(static_cast<int64_t>(job.tokens_per_second())) : "-",
         FormatCount(job.workers()),
         running && job.eta_seconds() > 0 ? FormatDuration(job.eta_seconds()) : "-"});
  }
  *context.out << FormatTable(rows);
}

// Two columns: what it is, and its value.
std::string DescribeStatus(const v1::JobStatus& status, int64_t now_unix_ns) {
  std::string text;
  const auto add = [&text](absl::string_view name, const std::string& value) {
    absl::StrAppend(&text, name, std::string(14 - name.size(), ' '), value, "\n");
  };
  const auto [state, reason] = std::pair(StateName(status.state()), Printable(status.reason()));
  add("job", absl::StrCat(status.job_id(), " (", status.name(), ")"));
  add("state", reason.empty() ? state : absl::StrCat(state, ": ", reason));
  add("window", absl::StrCat(FormatCount(status.window()), " of ", FormatCount(status.total_windows())));
  if (status.window() > 0) add("loss", FormatLoss(status.loss()));
  if (status.has_validation_loss()) add("validation", FormatLoss(status.validation_loss()));
  if (status.tokens_per_second() > 0) {
    add("speed", absl::StrCat(FormatCount(static_cast<int64_t>(status.tokens_per_second())), " tokens/s"));
  }
  if (!HasEnded(status.state()) && status.eta_seconds() > 0) add("eta", FormatDuration(status.eta_seconds()));
  if (status.parameters() > 0) add("parameters", FormatParameters(status.parameters()));
  add("workers", FormatCount(status.workers()));
  if (status.synthetic()) add("synthetic", "yes: nothing is learnt");
  const std::string why = Printable(status.irreproducible_reason());
  add("reproducible", status.reproducible() ? "yes" : why.empty() ? "no" : absl::StrCat("no: ", why));
  if (!status.digest().empty()) add("digest", status.digest());
  add("replays", FormatCount(status.restarts_of_windows()));
  add("skipped", FormatCount(status.windows_skipped()));
  add("epoch", absl::StrCat(status.epoch(), ", timeline ", status.timeline()));
  if (status.submitted_unix_ns() > 0) {
    const double age_seconds = static_cast<double>(now_unix_ns - status.submitted_unix_ns()) / 1e9;
    add("submitted",
        absl::StrCat(FormatTime(status.submitted_unix_ns()), " (", FormatDuration(age_seconds), " ago)"));
  }
  add("output", status.output_directory());
  return text;
}

void Describe(CommandContext& context, const std::string& job) {
  const absl::StatusOr<v1::DescribeResponse> response = context.Connect()->Describe(job);
  if (!response.ok()) return context.Fail(response.status());
  if (context.json()) return PrintJson(context, *response);
  *context.out << DescribeStatus(response->status(), context.clock->WallNowUnixNs());
  int64_t tokens = 0;
  for (const v1::ShardPin& shard : response->job().train()) tokens += static_cast<int64_t>(shard.tokens());
  const auto shards = [](int count) { return absl::StrCat(count, count == 1 ? " shard" : " shards"); };
  *context.out << "data          " << shards(response->job().train_size()) << ", " << FormatCount(tokens) << " tokens; "
               << shards(response->job().validation_size()) << " for validation\n";
  if (!response->workers().empty()) *context.out << "\n" << WorkersTable(response->workers());
  *context.out << "\nspec\n" << FormatFields(ToJson(response->job().spec()), "  ");
}

// Of a run's folder, without a coordinator. A checkpoint has a manifest only once its files were verified.
absl::StatusOr<v1::ListCheckpointsResponse> LocalCheckpoints(CommandContext& context,
                                                             const std::string& folder) {
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<CheckpointEntry> entries, FindCheckpoints(context, folder));
  v1::ListCheckpointsResponse response;
  for (const CheckpointEntry& entry : entries) {
    v1::CheckpointInfo& info = *response.add_checkpoints();
    info.set_window(entry.window);
    info.set_directory(entry.directory);
    const absl::StatusOr<CheckpointManifest> manifest = ReadManifest(*context.file_system, entry.directory);
    if (!manifest.ok()) continue;  // listed, as not verified
    info.set_verified(true);
    info.set_digest(manifest->digest);
    for (const CheckpointFileInfo& file : manifest->files)
      info.set_size_bytes(info.size_bytes() + file.size_bytes);
  }
  return response;
}

void CheckpointList(CommandContext& context, const std::string& job) {
  if (!NamesFolder(*context.file_system, job) && job.find('/') != std::string::npos) {
    return context.Fail(kExitNotFound, absl::StrCat(job, ": no such folder; expected a run's output folder, or a job"));
  }
  const absl::StatusOr<v1::ListCheckpointsResponse> response = NamesFolder(*context.file_system, job)
                                                                   ? LocalCheckpoints(context, job)
                                                                   : context.Connect()->ListCheckpoints(job);
  if (!response.ok()) return context.Fail(response.status());
  if (context.json()) return PrintJson(context, *response);
  if (response->checkpoints().empty()) {
    *context.out << "No checkpoints yet.\n";
    return;
  }
  std::vector<std::vector<std::string>> rows = {
      {"WINDOW", "VERIFIED", "SIZE", "WRITTEN", "DIGEST", "FOLDER"}};
  for (const v1::CheckpointInfo& checkpoint : response->checkpoints()) {
    rows.push_back({FormatCount(checkpoint.window()), checkpoint.verified() ? "yes" : "no",
                    FormatBytes(checkpoint.size_bytes()),
                    checkpoint.written_unix_ns() > 0 ? FormatTime(checkpoint.written_unix_ns()) : "-",
                    checkpoint.digest(), checkpoint.directory()});
  }
  *context.out << FormatTable(rows);
}

// What a command that is to bring a job into a state answers; `until` says what the job does before it is there.
void PrintChanged(CommandContext& context, const absl::StatusOr<v1::JobStatus>& status, v1::JobState wanted,
                  absl::string_view until, absl::string_view hint) {
  if (!status.ok()) return context.Fail(status.status());
  if (context.json()) return PrintJson(context, *status);
  *context.out << status->job_id() << " is " << StateName(status->state()) << " at window "
               << FormatCount(status->window()) << " of " << FormatCount(status->total_windows());
  if (status->state() != wanted && !HasEnded(status->state()) && !until.empty()) {
    *context.out << ": " << until;
  } else if (!status->reason().empty()) {
    *context.out << ": " << Printable(status->reason());
  }
  *context.out << "\n";
  if (!hint.empty()) *context.err << hint << "\n";
}

CLI::App* AddJobCommand(CLI::App& app, const std::string& name, const std::string& description,
                        const std::string& examples, std::shared_ptr<std::string> job) {
  CLI::App* const command = AddCommand(app, name, description, examples);
  command->add_option("JOB", *job, "The job's id, or its name (the newest of that name)")->required();
  return command;
}

}  // namespace

void RegisterJobCommands(CLI::App& app, CommandContext& context) {
  AddCommand(app, "list", "List the coordinator's jobs with their state and progress.",
             "accrue list\naccrue list -o json")
      ->callback([&context] { List(context); });

  const auto job = std::make_shared<std::string>();
  AddJobCommand(app, "describe",
                "Show everything about a job: state, loss, speed, data, workers, its whole spec.",
                "accrue describe headers", job)
      ->callback([&context, job] { Describe(context, *job); });

  CLI::App* const checkpoint = AddCommand(app, "checkpoint", "Look at a job's checkpoints.", "");
  checkpoint->require_subcommand(1);
  CLI::App* const checkpoint_list =
      AddCommand(*checkpoint, "list", "List a job's checkpoints: window, size, digest, folder.",
                 "accrue checkpoint list headers\naccrue checkpoint list runs/headers");
  checkpoint_list->add_option("JOB", *job, "A job, or a run's output folder")->required();
  checkpoint_list->callback([&context, job] { CheckpointList(context, *job); });

  CLI::App* const cancel = AddJobCommand(
      app, "cancel", "Stop a job for good. A checkpoint is written first, unless you say otherwise.",
      "accrue cancel headers\naccrue cancel headers --no-checkpoint --reason 'wrong data'", job);
  const auto reason = std::make_shared<std::string>("cancelled with accrue cancel");
  const auto no_checkpoint = std::make_shared<bool>(false);
  cancel->add_option("--reason", *reason, "Why, for the job's record")->capture_default_str();
  cancel->add_flag("--no-checkpoint", *no_checkpoint,
                   "Stop at once, losing the windows since the last checkpoint");
  cancel->callback([&context, job, reason, no_checkpoint] {
    PrintChanged(context, context.Connect()->Cancel(*job, *reason, !*no_checkpoint), v1::JOB_STATE_CANCELLED,
                 "it writes a checkpoint, then it is cancelled", "");
  });

  AddJobCommand(app, "pause", "Hold a job after its current window; workers keep its state.",
                "accrue pause headers", job)
      ->callback([&context, job] {
        PrintChanged(context, context.Connect()->Pause(*job), v1::JOB_STATE_PAUSED,
                     "it finishes the windows that are planned, then it pauses",
                     absl::StrCat("To go on: accrue resume ", *job));
      });
  AddJobCommand(app, "resume", "Let a paused job go on.", "accrue resume headers", job)
      ->callback([&context, job] { PrintChanged(context, context.Connect()->Resume(*job), v1::JOB_STATE_RUNNING, "", ""); });
}

}  // namespace accrue
