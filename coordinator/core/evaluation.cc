// Held-out loss: its units ride in a window's plan, or stand alone after the last window.
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/machine.h"

namespace accrue::core {

// Of the state after `window` windows.
bool Machine::EvaluationDue(const Job& job, int64_t window) const {
  const JobConfig& config = job.config;
  if (config.evaluation_every <= 0 || config.evaluation_units <= 0 || window == 0) return false;
  if (job.evaluated.count(window) > 0) return false;
  return window >= job.EndWindow() || window % config.evaluation_every == 0;
}

// Leases what is free, adding to `shares` what each member gets.
void Machine::LeaseEvaluation(Job& job, Evaluation& evaluation,
                              std::map<Incarnation, std::vector<UnitRange>>& shares) {
  if (evaluation.leases.free() == 0) return;
  const std::vector<Incarnation> lessees = Lessees(job);
  const std::vector<int64_t> counts =
      Apportion(evaluation.leases.free(), LoadsOf(lessees, &evaluation.leases));
  for (size_t i = 0; i < lessees.size(); ++i) {
    for (const UnitRange& range : evaluation.leases.Grant(lessees[i], counts[i]))
      shares[lessees[i]].push_back(range);
  }
}

void Machine::OnEvaluationReported(const EvaluationReported& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  Job& job = *sender->job;
  std::optional<Evaluation>* evaluation = nullptr;
  for (std::optional<Evaluation>* candidate :
       {job.current ? &job.current->evaluation : nullptr, job.next ? &job.next->evaluation : nullptr,
        &job.final_evaluation}) {
    if (candidate != nullptr && *candidate && (*candidate)->window == event.key.window.value())
      evaluation = candidate;
  }
  if (evaluation == nullptr) return Drop("evaluation is not on the way");
  if (job.current && job.current->parts.count(event.from) > 0) {
    job.current->NoteProgress(event.from, now_ns_);  // it comes before its units
  }
  for (const EvaluationReport& report : event.reports) {
    if (!(*evaluation)->leases.Holds(event.from, report.unit)) {
      Drop("evaluation unit is not leased to the worker");
      continue;
    }
    if ((*evaluation)->leases.Done(report.unit)) {
      Drop("evaluation unit is reported twice");
      continue;
    }
    (*evaluation)->leases.MarkDone(report.unit);
    (*evaluation)->reports[static_cast<size_t>(report.unit)] = report;
  }
  if (!(*evaluation)->leases.complete()) return;
  const Evaluation finished = *std::exchange(*evaluation, std::nullopt);
  FinishEvaluation(job, finished);
}

void Machine::FinishEvaluation(Job& job, const Evaluation& evaluation) {
  double loss_sum = 0;
  int64_t tokens = 0;
  for (const EvaluationReport& report : evaluation.reports) {  // in unit order, whoever computed them
    loss_sum += report.loss_sum;
    tokens += report.valid_tokens;
  }
  const double loss = tokens > 0 ? loss_sum / static_cast<double>(tokens) : 0;
  job.evaluated[evaluation.window] = loss;
  job.validation_loss = loss;
  Persist(job, PersistEvaluation{job.config.id, Window(evaluation.window), loss, tokens});
  Record(job, "evaluation",
         absl::StrCat("after window ", evaluation.window, ": loss ", loss, " over ", Counted(tokens, "token")));
}

// True when something was leased.
bool Machine::EvaluateAtEnd(Job& job) {
  if (!job.final_evaluation) {
    if (!EvaluationDue(job, job.committed)) return false;
    job.final_evaluation.emplace(job.committed, job.config.evaluation_units);
  }
  if (job.final_evaluation->leases.free() == 0) return false;
  std::map<Incarnation, std::vector<UnitRange>> shares;
  LeaseEvaluation(job, *job.final_evaluation, shares);
  for (auto& [member, ranges] : shares) {
    Plan plan;
    plan.key = KeyFor(job, member, job.committed, Attempt());
    plan.evaluation_units = std::move(ranges);
    plan.evaluation_only = true;
    SendTo(member, std::move(plan));
  }
  return true;
}

}  // namespace accrue::core
