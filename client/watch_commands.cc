// watch and wait: what follows a job.
#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/format.h"
#include "client/interrupts.h"
#include "client/watch.h"
#include "common/option_checks.h"

namespace accrue {
namespace {

constexpr int64_t kRepaintMs = 100;
constexpr int64_t kPatienceNs = 3'000'000'000;

void Wait(CommandContext& context, const std::string& job, std::optional<double> timeout_seconds) {
  const std::unique_ptr<JobClient> client = context.Connect();
  Follower follower(*client, job, std::numeric_limits<int64_t>::max() / 2);  // of windows, none
  const int64_t begin_ns = context.clock->SteadyNowNs();
  v1::JobStatus status;
  FollowEvent event;
  while (true) {
    int64_t wait_ms = 1000;
    if (timeout_seconds.has_value()) {
      const double left =
          *timeout_seconds - static_cast<double>(context.clock->SteadyNowNs() - begin_ns) / 1e9;
      if (left <= 0) {
        return context.Fail(kExitError, absl::StrCat(job, " has not ended within ",
                                                     FormatDuration(*timeout_seconds), "; it goes on"));
      }
      wait_ms = std::clamp<int64_t>(static_cast<int64_t>(left * 1000) + 1, 1, 1000);
    }
    if (!follower.Next(event, wait_ms)) continue;
    if (event.kind == FollowEvent::Kind::kUpdate && event.update.has_status()) status = event.update.status();
    if (event.kind == FollowEvent::Kind::kLost) context.Warn("connection lost; trying again");
    if (event.kind == FollowEvent::Kind::kEnded) break;
  }
  if (!event.status.ok()) return context.Fail(event.status);
  *context.out << (context.json() ? ToJson(status).dump() : EndLine(status)) << "\n";
  context.exit_code = OutcomeOf(status);
}

}  // namespace

std::string EndLine(const v1::JobStatus& status) {
  std::string line = absl::StrCat(status.job_id(), " ", StateName(status.state()), " after window ",
                                  FormatCount(status.window()));
  // A job that goes on from a later window than it was to stop at has more than its total.
  if (status.window() <= status.total_windows()) absl::StrAppend(&line, " of ", FormatCount(status.total_windows()));
  if (status.window() > 0) absl::StrAppend(&line, ", loss ", FormatLoss(status.loss()));
  if (status.has_validation_loss())
    absl::StrAppend(&line, ", validation ", FormatLoss(status.validation_loss()));
  if (!status.reason().empty()) absl::StrAppend(&line, ": ", Printable(status.reason()));
  return line;
}

ExitCode OutcomeOf(const v1::JobStatus& status) {
  if (status.state() == v1::JOB_STATE_SUCCEEDED) return kExitOk;
  return status.state() == v1::JOB_STATE_CANCELLED ? kExitJobCancelled : kExitJobFailed;
}

Presenter::Options PresenterOptions(const CommandContext& context, int64_t every) {
  Presenter::Options options;
  options.out = context.out;
  options.err = context.err;
  options.terminal = context.out_terminal;
  options.every = every;
  options.clock = context.clock;
  options.mode = context.json()                     ? Presenter::Mode::kJson
                 : context.out_terminal.interactive ? Presenter::Mode::kLive
                                                    : Presenter::Mode::kPlain;
  return options;
}

void WatchJob(CommandContext& context, JobClient& client, const std::string& job,
              const WatchOptions& options) {
  const Interrupts interrupts;
  Follower follower(client, job, options.first_window);
  CheckpointPoller checkpoints;
  absl::Status status;
  {
    Presenter presenter(PresenterOptions(context, options.every));
    FollowEvent event;
    bool ended = false, told = false;
    const int64_t begin_ns = context.clock->SteadyNowNs();
    while (!ended && Interrupts::Count() == 0) {
      if (follower.Next(event, kRepaintMs)) {
        presenter.Apply(event);
        ended = event.kind == FollowEvent::Kind::kEnded;
        // Paint once for all that has come.
        while (!ended && Interrupts::Count() == 0 && follower.Next(event, 0)) {
          presenter.Apply(event);
          ended = event.kind == FollowEvent::Kind::kEnded;
        }
      }
      if (presenter.model().status().job_id().empty()) {  // nothing to show yet
        if (!told && context.clock->SteadyNowNs() - begin_ns > kPatienceNs) {
          context.Warn(absl::StrCat("no answer yet from the coordinator at ", context.coordinator));
          told = true;
        }
        continue;
      }
      if (!ended) checkpoints.MaybePoll(*context.clock, client, job, presenter);
      presenter.Paint();
    }
    if (!ended) {
      presenter.SetNotice("");
      *context.err << job << " goes on. Watch it again: accrue watch " << job << std::endl;
      return;
    }
    status = event.status;
    if (status.ok() && !context.json()) *context.out << EndLine(presenter.model().status()) << std::endl;
    if (status.ok()) context.exit_code = OutcomeOf(presenter.model().status());
  }
  if (!status.ok()) context.Fail(status);
}

void RegisterWatchCommands(CLI::App& app, CommandContext& context) {
  const auto job = std::make_shared<std::string>();
  const auto add_job = [job](CLI::App* command) {
    command->add_option("JOB", *job, "The job's id, or its name (the newest of that name)")->required();
  };

  CLI::App* const watch =
      AddCommand(app, "watch",
                 "Follow a job until it ends: a live view on a terminal, plain lines elsewhere, one JSON "
                 "object a line with -o json. "
                 "Ctrl-C leaves the job running.",
                 "accrue watch headers\naccrue watch headers --from 500 --every 10 > log.txt");
  add_job(watch);
  const auto options = std::make_shared<WatchOptions>();
  watch->add_option("--from", options->first_window, "Begin with this window, counted from 0 (default: 0)")->check(NonNegativeNumber());
  watch
      ->add_option("--every", options->every,
                   "Plain lines: print every Nth window (default: about a hundred lines)")
      ->check(PositiveNumber());
  watch->callback([&context, job, options] { WatchJob(context, *context.Connect(), *job, *options); });

  CLI::App* const wait = AddCommand(
      app, "wait", "Wait in silence until a job ends; the exit code says how: 0 succeeded, 10 failed, 11 cancelled.",
      "accrue wait headers && accrue export headers weights");
  add_job(wait);
  const auto timeout = std::make_shared<std::optional<double>>();
  wait->add_option("--timeout", *timeout, "Give up after this many seconds, with exit code 1 (default: never)")
      ->check(PositiveNumber())
      ->type_name("SECONDS");
  wait->callback([&context, job, timeout] { Wait(context, *job, *timeout); });
}

}  // namespace accrue
