// watch, wait and events: what follows a job.
#include <poll.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/format.h"
#include "client/interrupts.h"
#include "client/watch.h"

namespace accrue {
namespace {

constexpr int64_t kRepaintMs = 100;
constexpr int64_t kCheckpointPollNs = 2'000'000'000;

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

std::string EventLine(const v1::LedgerEntry& entry) {
  std::string line = absl::StrCat(FormatTime(entry.unix_ns()), "  #", entry.sequence(), "  ",
                                  Printable(entry.kind()), "  window ", entry.window());
  if (entry.attempt() > 0) absl::StrAppend(&line, "  attempt ", entry.attempt());
  if (entry.timeline() > 0) absl::StrAppend(&line, "  timeline ", entry.timeline());
  if (entry.epoch() > 0) absl::StrAppend(&line, "  epoch ", entry.epoch());
  if (entry.incarnation() > 0) absl::StrAppend(&line, "  worker ", entry.incarnation());
  if (!entry.reason().empty()) absl::StrAppend(&line, "  ", Printable(entry.reason()));
  return line;
}

void Events(CommandContext& context, const std::string& job, int64_t first_sequence, bool follow) {
  const std::unique_ptr<JobClient> client = context.Connect();
  bool connected = false;
  int pause_ms = 100;
  while (true) {
    const auto stream = client->Events(job, first_sequence, follow);
    v1::EventsResponse response;
    while (stream->Read(&response)) {
      const v1::LedgerEntry& entry = response.entry();
      *context.out << (context.json() ? ToJson(entry).dump() : EventLine(entry)) << std::endl;
      first_sequence = entry.sequence() + 1;
      connected = true;
      pause_ms = 100;
    }
    const absl::Status status = stream->Finish();
    if (status.ok()) return;
    if (!follow || !connected || status.code() != absl::StatusCode::kUnavailable) return context.Fail(status);
    if (pause_ms == 100)
      context.Warn(absl::StrCat("connection lost; trying again from entry ", first_sequence));
    poll(nullptr, 0, pause_ms);
    pause_ms = std::min(2 * pause_ms, 3000);
  }
}

}  // namespace

std::string EndLine(const v1::JobStatus& status) {
  std::string line = absl::StrCat(status.job_id(), " ", StateName(status.state()), " after window ",
                                  FormatCount(status.window()), " of ", FormatCount(status.total_windows()));
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

void CheckpointPoller::MaybePoll(const Clock& clock, JobClient& client, const std::string& job,
                                 Presenter& presenter) {
  if (!presenter.live() || clock.SteadyNowNs() < next_ns_) return;
  next_ns_ = clock.SteadyNowNs() + kCheckpointPollNs;
  const absl::StatusOr<v1::ListCheckpointsResponse> response = client.ListCheckpoints(job);
  if (!response.ok() || response->checkpoints().empty()) return;
  const auto& checkpoints = response->checkpoints();
  presenter.SetLastCheckpoint(
      *std::max_element(checkpoints.begin(), checkpoints.end(),
                        [](const auto& a, const auto& b) { return a.window() < b.window(); }));
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
    bool ended = false;
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
      if (presenter.model().status().job_id().empty()) continue;  // nothing to show yet
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
  watch->add_option("--from", options->first_window, "Begin with this window")->check(CLI::NonNegativeNumber);
  watch
      ->add_option("--every", options->every,
                   "Plain lines: print every Nth window (default: about a hundred lines)")
      ->check(CLI::PositiveNumber);
  watch->callback([&context, job, options] { WatchJob(context, *context.Connect(), *job, *options); });

  CLI::App* const wait = AddCommand(
      app, "wait", "Wait in silence until a job ends; the exit code says how: 0, 10 failed, 11 cancelled.",
      "accrue wait headers && accrue export headers weights");
  add_job(wait);
  const auto timeout = std::make_shared<std::optional<double>>();
  wait->add_option("--timeout", *timeout, "Give up after this many seconds, with exit code 1")
      ->check(CLI::PositiveNumber);
  wait->callback([&context, job, timeout] { Wait(context, *job, *timeout); });

  CLI::App* const events = AddCommand(
      app, "events",
      "Print a job's ledger: every decision (plans, seals, replays, commits, checkpoints) with its reason.",
      "accrue events headers\naccrue events headers --follow -o json");
  add_job(events);
  const auto first = std::make_shared<int64_t>(0);
  const auto follow = std::make_shared<bool>(false);
  events->add_option("--from", *first, "Begin with this entry's number")->check(CLI::NonNegativeNumber);
  events->add_flag("--follow", *follow, "Go on with new entries until the job ends");
  events->callback([&context, job, first, follow] { Events(context, *job, *first, *follow); });
}

}  // namespace accrue
