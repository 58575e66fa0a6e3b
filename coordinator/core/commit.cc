// From the members' steps to the durable record that a window's update is the one that counts.
#include <algorithm>
#include <bit>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

// What members must agree on: digest, bits of the gradient's norm, parameter hash.
using Outcome = std::tuple<std::string, uint64_t, std::string>;

std::string TextOf(const Outcome& outcome) {
  return absl::StrCat(std::get<0>(outcome), " (norm ", std::bit_cast<double>(std::get<1>(outcome)),
                      std::get<2>(outcome).empty() ? "" : ", parameter hash ", std::get<2>(outcome), ")");
}

}  // namespace

void Machine::OnWorkerStepped(const WorkerStepped& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  WindowRun* run = FindRun(*sender->job, event.key);
  if (run == nullptr) return;
  if (!run->sealed || event.key.epoch != run->sealed->epoch) return Drop("seal is old");
  if (sender->worker->role != Role::kMember || run->parts.count(event.from) == 0) {
    return Drop("worker is not a member");
  }
  run->sealed->failed.erase(event.from);
  run->sealed->steps[event.from] = {event.digest, event.gradient_norm, event.clip_coefficient, event.phases,
                                    event.memory_bytes, event.parameter_hash};
  sender->worker->memory_bytes = event.memory_bytes;
}

// All members stepped: equal digests, norms and parameter hashes commit; a strict majority commits without the others;
// without one, nobody's state counts.
bool Machine::TryCommit(Job& job) {
  const Sealed& sealed = *job.current->sealed;
  if (sealed.steps.size() < job.members.size()) return false;
  std::map<Outcome, std::vector<Incarnation>> by_outcome;
  for (const auto& [member, step] : sealed.steps) {
    by_outcome[{step.digest, std::bit_cast<uint64_t>(step.gradient_norm), step.parameter_hash}].push_back(member);
  }
  const auto winner =
      std::max_element(by_outcome.begin(), by_outcome.end(),
                       [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
  if (winner->second.size() * 2 <= job.members.size()) {
    const auto other = winner == by_outcome.begin() ? std::next(winner) : by_outcome.begin();
    RollBack(job, absl::StrCat("window ", job.current->number, " ended in different states, and no majority: ",
                               NameOf(winner->second[0]), " has ", TextOf(winner->first), ", ",
                               NameOf(other->second[0]), " has ", TextOf(other->first)));
    return true;
  }
  const std::string digest = std::get<0>(winner->first);
  const auto recorded = job.recorded.find(job.current->number);
  // Neither fast accumulation nor a mixture of numeric classes promises it.
  if (job.Repeatable() && recorded != job.recorded.end() && recorded->second != digest) {
    EndJob(job, JobState::kFailed,
           absl::StrCat("window ", job.current->number, ", computed again, has digest ", digest,
                        "; recorded was ", recorded->second));
    return true;
  }
  const double gradient_norm = std::bit_cast<double>(std::get<1>(winner->first));
  std::vector<Incarnation> minority;
  for (const auto& [outcome, members] : by_outcome) {
    if (outcome != winner->first) minority.insert(minority.end(), members.begin(), members.end());
  }
  const std::string right = TextOf(winner->first);
  for (Incarnation member : minority) {
    const Step& step = sealed.steps.at(member);
    const std::string theirs =
        TextOf(Outcome(step.digest, std::bit_cast<uint64_t>(step.gradient_norm), step.parameter_hash));
    ExpelWorker(member,
                absl::StrCat("quarantined: after window ", job.current->number, " it holds ", theirs,
                             ", the majority ", right),
                false);
  }
  CommitWindow(job, digest, gradient_norm);
  return true;
}

WindowRecord Machine::RecordOf(const Job& job, const WindowRun& run, const std::string& digest,
                               double gradient_norm) const {
  const Sealed& sealed = *run.sealed;
  const Totals& totals = sealed.totals;
  WindowRecord record;
  record.window = Window(run.number);
  record.loss = totals.valid_tokens > 0 ? totals.loss_sum / static_cast<double>(totals.valid_tokens) : 0;
  record.gradient_norm = gradient_norm;
  record.learning_rate = LearningRate(job.config.schedule, run.number);
  record.tokens = totals.valid_tokens;
  record.digest = digest;
  record.skipped = sealed.verdict == Verdict::kSkip;
  record.attempt = run.attempt;
  record.sequences = job.config.units_per_window * job.config.sequences_per_unit;
  record.clip_coefficient = sealed.steps.begin()->second.clip_coefficient;
  const double elements =
      static_cast<double>(job.config.units_per_window) * static_cast<double>(job.parameters);
  record.vanished_fraction = elements > 0 ? static_cast<double>(totals.vanished_elements) / elements : 0;
  for (const auto& [member, step] : sealed.steps) {
    record.workers.push_back({member, workers_.at(member).identity.name, run.leases.ShareOf(member).leased,
                              run.parts.at(member).gradient_norm, step.phases, step.memory_bytes});
  }
  record.timeline = job.timeline;
  record.epoch = sealed.epoch;
  record.duration_ns = now_ns_ - (job.last_commit_ns >= 0 ? job.last_commit_ns : run.planned_at_ns);
  record.next_exponents = sealed.next_exponents;
  record.steps = job.steps + (record.skipped ? 0 : 1);
  record.loss_scale = job.loss_scale;
  return record;
}

void Machine::CommitWindow(Job& job, const std::string& digest, double gradient_norm) {
  WindowRun run = std::move(*job.current);
  const WindowRecord record = RecordOf(job, run, digest, gradient_norm);
  const bool first_time = job.recorded.emplace(run.number, digest).second;
  if (first_time) {
    job.rollbacks = 0;
    Persist(job, PersistCommit{job.config.id, record});
    if (record.skipped) ++job.windows_skipped;
    job.loss = record.loss;
  }
  std::string& recorded = job.recorded[run.number];
  Record(job, "commit",
         absl::StrCat("window ", run.number, first_time ? "" : ", computed again,", " has digest ", digest,
                      recorded == digest ? "" : absl::StrCat("; it was ", recorded)));
  recorded = digest;
  for (const auto& [member, step] : run.sealed->steps) {
    ++workers_.at(member).windows;
    SendTo(member, Commit{KeyFor(job, member, run.number, run.attempt), digest});
  }

  job.committed = run.number + 1;
  job.steps = record.steps;
  job.digest = digest;
  job.exponents = record.next_exponents;
  job.loss_scale = run.sealed->next_loss_scale;
  job.parameter_hash = run.sealed->steps.begin()->second.parameter_hash;  // who differed is gone
  PersistPositionOf(job);
  job.last_commit_ns = now_ns_;
  job.failed_reduces = 0;
  job.current = std::exchange(job.next, std::nullopt);
  if (job.current) job.current->begun_at_ns = now_ns_;
  if (job.checkpoint && job.checkpoint->name.window == job.committed) CommitCheckpoint(job);
}

}  // namespace accrue::core
