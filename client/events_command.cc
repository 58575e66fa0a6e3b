// events: a job's ledger, entry by entry, for as long as the job lives.
#include <poll.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/commands.h"
#include "client/format.h"
#include "client/job_client.h"
#include "common/option_checks.h"

namespace accrue {
namespace {

constexpr int kFirstPauseMs = 100, kLongestPauseMs = 400;

struct EventsOptions {
  std::string job;
  int64_t first_sequence = 0;
  bool follow = true;
  std::vector<std::string> kinds;  // none: all

  bool Shows(const v1::LedgerEntry& entry) const { return kinds.empty() || absl::c_linear_search(kinds, entry.kind()); }
};

// The detail is JSON already; what is none is shown as it is.
nlohmann::ordered_json JsonOf(const v1::LedgerEntry& entry) {
  nlohmann::ordered_json object = ToJson(entry);
  if (entry.detail().empty()) {
    object["detail"] = nullptr;
  } else if (nlohmann::ordered_json detail = nlohmann::ordered_json::parse(entry.detail(), nullptr, false);
             !detail.is_discarded()) {
    object["detail"] = std::move(detail);
  }
  return object;
}

std::string EventLine(const v1::LedgerEntry& entry) {
  std::string line = absl::StrCat(FormatTime(entry.unix_ns()), "  #", entry.sequence(), "  ",
                                  Printable(entry.kind()), "  window ", entry.window());
  if (entry.attempt() > 0) absl::StrAppend(&line, "  attempt ", entry.attempt());
  if (entry.timeline() > 0) absl::StrAppend(&line, "  timeline ", entry.timeline());
  if (entry.epoch() > 0) absl::StrAppend(&line, "  epoch ", entry.epoch());
  if (entry.incarnation() > 0) absl::StrAppend(&line, "  worker ", entry.incarnation());
  if (!entry.reason().empty()) absl::StrAppend(&line, "  ", Printable(entry.reason()));
  if (!entry.detail().empty()) absl::StrAppend(&line, "  ", Printable(entry.detail()));
  return line;
}

// Reads the ledger to its end. A connection that breaks is made again for as long as it takes: the follow ends when the
// job has, and never in silence.
class LedgerReader {
 public:
  LedgerReader(CommandContext& context, const EventsOptions& options)
      : context_(context), options_(options), client_(context.Connect()), next_(options.first_sequence) {}

  absl::Status Run() {
    const absl::StatusOr<v1::DescribeResponse> job = client_->Describe(options_.job);
    if (!job.ok()) return job.status();
    id_ = job->status().job_id();  // a newer job may take the name meanwhile
    if (absl::Status status = Follow(); !status.ok()) return status;
    for (const std::string& kind : options_.kinds) {
      if (seen_kinds_.count(kind) > 0) continue;
      context_.Warn(absl::StrCat("no entry is of kind \"", kind, "\"; the kinds here are: ",
                                 absl::StrJoin(seen_kinds_, ", ")));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Follow() {
    int pause_ms = kFirstPauseMs;
    while (true) {
      const int64_t before = next_;
      const absl::Status status = ReadOneStream();
      if (!options_.follow || (status.ok() && JobIsOver())) return status;
      if (!status.ok() && !MayPass(status)) return status;
      if (!lost_) context_.Warn(absl::StrCat("connection lost; trying again from entry ", next_));
      lost_ = true;
      if (next_ > before) pause_ms = kFirstPauseMs;
      poll(nullptr, 0, pause_ms);
      pause_ms = std::min(2 * pause_ms, kLongestPauseMs);
      client_->AwaitConnection(kLongestPauseMs);
    }
  }

  absl::Status ReadOneStream() {
    const auto stream = client_->Events(id_, next_, options_.follow);
    v1::EventsResponse response;
    while (stream->Read(&response)) {
      const v1::LedgerEntry& entry = response.entry();
      if (lost_) *context_.err << "accrue: connected again, from entry " << next_ << std::endl;
      lost_ = false;
      if (entry.sequence() < next_) continue;  // told before
      next_ = entry.sequence() + 1;
      seen_kinds_.insert(entry.kind());
      if (options_.Shows(entry)) Show(entry);
    }
    return stream->Finish();
  }

  void Show(const v1::LedgerEntry& entry) {
    *context_.out << (context_.json() ? JsonOf(entry).dump() : EventLine(entry)) << std::endl;
  }

  bool JobIsOver() {
    const absl::StatusOr<v1::DescribeResponse> job = client_->Describe(id_);
    return job.ok() && HasEnded(job->status().state());
  }

  CommandContext& context_;
  const EventsOptions options_;
  const std::unique_ptr<JobClient> client_;
  std::string id_;
  int64_t next_;
  std::set<std::string> seen_kinds_;
  bool lost_ = false;
};

}  // namespace

void RegisterEventsCommand(CLI::App& app, CommandContext& context) {
  CLI::App* const command = AddCommand(
      app, "events",
      "Follow a job's ledger until the job ends: every decision (members, plans, moves, seals, aborts, replays, audits, "
      "commits, checkpoints, states) with its reason.",
      "accrue events headers\naccrue events headers --no-follow --kind worker,epoch\naccrue events headers --no-follow -o json > ledger.jsonl");
  const auto options = std::make_shared<EventsOptions>();
  command->add_option("JOB", options->job, "The job's id, or its name (the newest of that name)")->required();
  command->add_option("--from", options->first_sequence, "Begin with the entry of this number (default: 1)")
      ->check(NonNegativeNumber());
  command->add_option("--kind", options->kinds, "Show only entries of this kind, such as commit or worker; may be repeated, or KIND,KIND")
      ->delimiter(',')
      ->allow_extra_args(false);
  const auto follow = std::make_shared<bool>(false), stop = std::make_shared<bool>(false);
  CLI::Option* const no_follow = command->add_flag("--no-follow", *stop, "End after the entries that are there");
  command->add_flag("--follow", *follow, "Go on with new entries until the job ends: the default")->excludes(no_follow);
  command->callback([&context, options, follow, stop] {
    options->follow = !*stop;
    const absl::Status status = LedgerReader(context, *options).Run();
    if (!status.ok()) context.Fail(status);
  });
}

}  // namespace accrue
