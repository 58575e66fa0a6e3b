// The one verdict of a window: replay, skip or reduce.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/exponents.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/machine.h"

namespace accrue::core {

// Every unit reported, every member's accumulator proved to hold its leases and nothing else, nobody on the
// way in: the cover is disjoint (a unit has one holder) and complete (all are done). What workers that are gone have
// done is in there once more only if some member holds all buckets final.
bool Machine::TrySeal(Job& job) {
  if (!job.current || job.sync || AwaitsCopy(job) || now_ns_ < job.seal_not_before_ns) return false;
  const WindowRun& run = *job.current;
  if (!run.leases.complete() || run.evaluation) return false;
  if (run.computed < static_cast<int64_t>(job.members.size())) return false;
  int64_t covered = 0;
  for (Incarnation member : job.members) {
    ACCRUE_CHECK(run.parts.at(member).computed);
    covered += run.leases.ShareOf(member).done;
  }
  ACCRUE_CHECK(covered + run.leases.orphans() == run.leases.size());
  ACCRUE_CHECK(run.leases.orphans() == 0 || run.FinalBuckets() == run.buckets);
  // Where a job has its checkpoints is the job file's to say, not the disk's: the next one waits for the last.
  if (CheckpointPlanned(job, run.number + 1) && !MayOrderCheckpoint(job)) return false;
  if (!ParameterHashesAgree(job)) return true;
  if (!run.audits.settled()) return false;

  Totals totals = run.Sum();
  const int64_t units = run.leases.size();
  // A skip is decided before a replay: the exponent of a gradient that is not finite says nothing.
  const bool skipped = totals.non_finite || totals.valid_tokens == 0;
  const bool replayed = !skipped && job.config.exact && NeedsReplay(units, totals.max_exponents, job.exponents);
  if (CheckCauses(job, totals)) return true;
  if (replayed) {
    VoidByOverflow(job, totals);
  } else {
    SealWindow(job, std::move(totals));
  }
  return true;
}

// True if every member computed with the parameters of the last commit; where their hash is not known, with the same
// ones. Else whoever did not (or disagrees with a strict majority) is sent away, and its units are computed anew; if
// nobody is left, or nobody can tell, all give up the state.
bool Machine::ParameterHashesAgree(Job& job) {
  std::map<std::string, int64_t> votes;
  for (Incarnation member : job.members) ++votes[job.current->parts.at(member).parameter_hash];
  const std::string& committed = job.parameter_hash;
  if (votes.size() == 1 && (committed.empty() || votes.count(committed) > 0)) return true;
  if (votes.count(committed) > 0 && !committed.empty()) {
    QuarantineByHash(job, committed, "the last commit's");
    return false;
  }
  std::string seen;
  for (const auto& [hash, count] : votes) {
    if (committed.empty() && count * 2 > static_cast<int64_t>(job.members.size())) {
      QuarantineByHash(job, std::string(hash), "the majority's");
      return false;
    }
    absl::StrAppend(&seen, seen.empty() ? "" : " and ", hash);
  }
  RollBack(job, absl::StrCat("window ", job.current->number, " was computed with parameters of hash ", seen,
                             committed.empty() ? ", and no majority"
                                               : absl::StrCat(", the last commit's is ", committed)));
  return false;
}

void Machine::QuarantineByHash(Job& job, const std::string& right, const std::string& whose) {
  for (Incarnation member : std::vector(job.members)) {
    const std::string hash = job.current->parts.at(member).parameter_hash;
    if (hash == right) continue;
    ExpelWorker(member,
                absl::StrCat("quarantined: window ", job.current->number, " was computed with parameters of hash ",
                             hash, ", ", whose, " is ", right),
                false);
  }
}

void Machine::VoidByOverflow(Job& job, const Totals& totals) {
  const int64_t units = job.config.units_per_window;
  const std::vector<int> exponents = NextExponents(units, totals.max_exponents);
  if (NeedsReplay(units, totals.max_exponents, exponents)) {
    EndJob(job, JobState::kFailed,
           absl::StrCat("gradients of window ", job.current->number, " are too large for any exponent"));
    return;
  }
  size_t tensor = 0;
  while (!NeedsReplay(units, totals.max_exponents[tensor], job.exponents[tensor])) ++tensor;
  ++job.replays;
  StartAttempt(job, exponents, "replay",
               absl::StrCat("tensor ", tensor, " reached 2^", totals.max_exponents[tensor], ", its exponent ",
                            job.exponents[tensor], " leaves room up to 2^",
                            QuantizedLimitExponent(units) - job.exponents[tensor]));
}

std::string Machine::SkipReason(const Job& job, const Totals& totals) const {
  if (!totals.non_finite) return "no target is valid";
  if (!job.loss_scale) return "a gradient is not finite";
  if (job.loss_scale->exponent > kLeastLossScale) {
    return absl::StrCat("a gradient is not finite with loss scale ", job.loss_scale->Value(),
                        ", which is too high: as fp16 has it at times");
  }
  return "a gradient is not finite with loss scale 1, the least: activations leave the range of fp16, or the model has "
         "diverged; go back to a checkpoint with a lower learning rate, or compute in bf16 or fp32";
}

std::optional<LossScale> Machine::DecideLossScale(Job& job, WindowEnd end) {
  if (!job.loss_scale) return std::nullopt;
  const LossScale next = NextLossScale(*job.config.loss_scale, *job.loss_scale, end);
  if (next.exponent < job.loss_scale->exponent) {
    Note(job, "loss_scale", absl::StrCat("halved to ", next.Value()));
  } else if (next.exponent > job.loss_scale->exponent) {
    Note(job, "loss_scale", absl::StrCat("doubled to ", next.Value(), ": ",
                                         Counted(job.config.loss_scale->growth_windows, "window"),
                                         " stepped in a row"));
  }
  return next;
}

void Machine::SealWindow(Job& job, Totals totals) {
  WindowRun& run = *job.current;
  if (job.communicator.empty())
    SetMembers(job, job.members, "a fresh communicator after a reduce that was given up");
  Sealed sealed;
  sealed.epoch = job.epoch;
  sealed.communicator = job.communicator;
  const bool skipped = totals.non_finite || totals.valid_tokens == 0;
  sealed.verdict = skipped ? Verdict::kSkip : Verdict::kReduce;
  if (!skipped) job.formed_ahead = false;
  if (job.config.exact) {
    sealed.next_exponents =
        skipped ? job.exponents : NextExponents(job.config.units_per_window, totals.max_exponents);
  }
  if (CheckpointDue(job, run.number + 1)) {
    if (MayOrderCheckpoint(job)) {
      BeginCheckpoint(job, run.number + 1);
    } else {
      job.checkpoint_owed = true;
    }
  }

  Seal seal;
  seal.verdict = sealed.verdict;
  seal.members = job.members;
  seal.communicator = job.communicator;
  seal.valid_tokens = totals.valid_tokens;
  seal.loss_sum = totals.loss_sum;
  seal.vanished_elements = totals.vanished_elements;
  seal.bucket_checksums = totals.bucket_checksums;
  seal.next_exponents = sealed.next_exponents;
  seal.reason = skipped ? SkipReason(job, totals) : "the members' units cover the window once";
  Note(job, skipped ? "skip" : "seal", seal.reason);
  sealed.next_loss_scale = DecideLossScale(job, !skipped            ? WindowEnd::kStepped
                                                : totals.non_finite ? WindowEnd::kNonFinite
                                                                    : WindowEnd::kEmpty);
  seal.next_loss_scale = sealed.next_loss_scale;
  if (run.FinalBuckets() > 0) {
    std::vector<int64_t> final_buckets;
    for (Incarnation member : job.members) final_buckets.push_back(run.parts.at(member).final_buckets);
    seal.final_buckets = std::move(final_buckets);
  }
  for (Incarnation member : job.members) {
    seal.key = KeyFor(job, member, run.number, run.attempt);
    if (job.checkpoint && job.checkpoint->name.window == run.number + 1) {
      seal.checkpoint = CheckpointOrder{Window(run.number + 1), job.checkpoint->shard_of.at(member),
                                        static_cast<int>(job.checkpoint->files.size())};
    }
    SendTo(member, seal);
    workers_.at(member).sealed_window = run.number;
  }
  sealed.totals = std::move(totals);
  run.sealed = std::move(sealed);

  if (skipped && job.next) {  // its bias corrections were those after a step
    job.next->scalars = ScalarsOf(job.config.schedule, job.next->number, job.steps);
    for (Incarnation member : job.members) SendPlan(job, *job.next, member, {}, {}, {});
  }
}

}  // namespace accrue::core
