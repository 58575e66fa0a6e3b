// workers and worker drain: who computes, who is slow, and who is to go.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands.h"
#include "client/format.h"
#include "client/job_client.h"
#include "client/workers.h"
#include "common/slow_workers.h"

namespace accrue {
namespace {

// "1.0x", "3.2x slow": its unit time over the median of its job's workers.
std::string AgainstMedian(double relative) {
  if (relative <= 0) return "-";
  return absl::StrFormat("%.1fx%s", relative, relative >= kSlowFactor ? " slow" : "");
}

void Workers(CommandContext& context) {
  const absl::StatusOr<v1::ListWorkersResponse> response = context.Connect()->ListWorkers();
  if (!response.ok()) return context.Fail(response.status());
  if (context.json()) {
    *context.out << ToJson(*response).dump() << "\n";
    return;
  }
  if (response->workers().empty()) {
    *context.out << "No workers. Start one: accrue-worker --coordinator " << context.coordinator << "\n";
    return;
  }
  *context.out << WorkersTable(response->workers());
}

struct DrainOptions {
  std::string worker, reason = "drained with accrue worker drain";
  bool now = false;
};

void Drain(CommandContext& context, const DrainOptions& options) {
  v1::DrainWorkerRequest request;
  request.set_worker(options.worker);
  request.set_at_once(options.now);
  request.set_reason(options.reason);
  const absl::StatusOr<v1::WorkerStatus> worker = context.Connect()->DrainWorker(request);
  if (!worker.ok()) return context.Fail(worker.status());
  if (context.json()) {
    *context.out << ToJson(*worker).dump() << "\n";
    return;
  }
  const char* const what = worker->job_id().empty() ? "has no job; its process ends"
                           : options.now            ? "hands its units back and ends"
                                                    : "finishes the window on the way, then ends";
  *context.out << Printable(worker->name()) << " (incarnation " << worker->incarnation() << ") " << what << "\n";
}

}  // namespace

std::string WorkersTable(const google::protobuf::RepeatedPtrField<v1::WorkerStatus>& workers) {
  std::vector<std::vector<std::string>> rows = {
      {"WORKER", "INCARNATION", "STATE", "JOB", "DEVICE", "UNIT", "VS MEDIAN", "MEMORY", "WINDOWS"}};
  for (const v1::WorkerStatus& worker : workers) {
    rows.push_back({Printable(worker.name()), absl::StrCat(worker.incarnation()), Printable(worker.state()),
                    worker.job_id().empty() ? "-" : Printable(worker.job_id()), Printable(worker.device()),
                    worker.unit_seconds() > 0 ? absl::StrFormat("%.1f ms", worker.unit_seconds() * 1e3) : "-",
                    AgainstMedian(worker.relative_unit_time()), FormatBytes(worker.memory_bytes()),
                    FormatCount(worker.windows())});
  }
  return FormatTable(rows);
}

void RegisterWorkerCommands(CLI::App& app, CommandContext& context) {
  AddCommand(app, "workers",
             "List the workers that are connected: what they do, how long a unit takes them, and who is slow against "
             "the median of its job.",
             "accrue workers")
      ->callback([&context] { Workers(context); });

  CLI::App* const worker = AddCommand(app, "worker", "Steer a worker.", "");
  worker->require_subcommand(1);
  CLI::App* const drain = AddCommand(
      *worker, "drain",
      "Let a worker finish the window on the way, then end its process. The job goes on with the others.",
      "accrue worker drain host-4711\naccrue worker drain 12 --now");
  const auto options = std::make_shared<DrainOptions>();
  drain->add_option("WORKER", options->worker, "Its name or its incarnation, as accrue workers shows them")->required();
  drain->add_flag("--now", options->now, "Do not wait for the window's end: its units are computed by others");
  drain->add_option("--reason", options->reason, "Why, for the job's ledger")->capture_default_str();
  drain->callback([&context, options] { Drain(context, *options); });
}

}  // namespace accrue
