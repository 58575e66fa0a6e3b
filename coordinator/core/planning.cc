// Who computes what: plans of whole windows, one ahead, and leases of units that have lost their holder.
#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

// The next window is planned once this part of the current one is reported: late enough to have measured,
// early enough that data is there in time.
constexpr int64_t kPlanAheadDivisor = 2;
// How true the time of a worker without units still is after a window.
constexpr double kBeliefInIdle = 0.98;
// In a reason for people.
constexpr size_t kMaxSharesShown = 16;

}  // namespace

bool Machine::MayPlan(const Job& job) const {
  return !job.pause_requested && static_cast<int64_t>(job.members.size()) >= job.config.min_workers &&
         job.leaving_members < static_cast<int64_t>(job.members.size());
}

bool Machine::PlanWindows(Job& job) {
  const auto members = static_cast<int64_t>(job.members.size());
  if (members < job.config.min_workers) {
    SetState(job, JobState::kWaiting,
             absl::StrCat("waits for workers: ", members, " of at least ", job.config.min_workers,
                          "; they keep the state of window ", job.committed));
    return false;
  }
  if (job.pause_requested && !job.current) {
    SetState(job, JobState::kPaused, absl::StrCat("paused after ", Counted(job.committed, "window")));
    return false;
  }
  SetState(job, JobState::kRunning, "");
  if (!MayPlan(job)) return false;
  if (!job.current) {
    if (job.config.exact && job.exponents.empty()) return OrderProbe(job);
    PlanWindow(job, job.committed);
    return true;
  }
  if (job.next || job.committed + 1 >= job.EndWindow()) return false;
  if (job.current->leases.done() * kPlanAheadDivisor < job.current->leases.size()) return false;
  PlanWindow(job, job.committed + 1);
  return true;
}

// Exponents come from the gradients of the last window; before the first one, from a probe of unit 0.
bool Machine::OrderProbe(Job& job) {
  if (job.prober != Incarnation()) return false;
  job.prober = job.members.front();
  Note(job, "plan", absl::StrCat(NameOf(job.prober), " probes unit 0 for the first exponents"), job.prober);
  SendTo(job.prober, ProbeOrder{KeyFor(job, job.prober, job.committed, Attempt()), job.loss_scale});
  return true;
}

// Who is given units: members that stay; all of them if none does.
std::vector<Incarnation> Machine::Lessees(const Job& job) const {
  if (job.leaving_members == 0 || job.leaving_members == static_cast<int64_t>(job.members.size()))
    return job.members;
  std::vector<Incarnation> lessees;
  for (Incarnation member : job.members) {
    if (!workers_.at(member).leaving) lessees.push_back(member);
  }
  return lessees;
}

std::vector<Load> Machine::LoadsOf(const std::vector<Incarnation>& workers, const Leases* pending) const {
  std::vector<Load> loads;
  loads.reserve(workers.size());
  for (Incarnation worker : workers) {
    const Leases::Share share = pending == nullptr ? Leases::Share() : pending->ShareOf(worker);
    loads.push_back({workers_.at(worker).unit_ns * workers_.at(worker).belief, share.leased - share.done});
  }
  return loads;
}

void Machine::PlanWindow(Job& job, int64_t number) {
  const JobConfig& config = job.config;
  const bool ahead = number > job.committed;
  WindowRun run(number, config.units_per_window, job.buckets);
  run.planned_at_ns = now_ns_;
  if (!ahead) run.begun_at_ns = now_ns_;
  // Ahead, the window before is taken to step; SealWindow corrects this if it is skipped.
  run.scalars = ScalarsOf(config.schedule, number, job.steps + (ahead ? 1 : 0));

  std::vector<Incarnation> lessees = Lessees(job);
  const std::vector<Load> loads = LoadsOf(lessees, nullptr);
  const std::vector<int64_t> previous = lessees == job.lessees ? job.shares : std::vector<int64_t>();
  const std::vector<int64_t> counts =
      ApportionSteadily(config.units_per_window, loads, previous, options_.plan_threshold);
  std::string shares;
  for (size_t i = 0; i < counts.size() && i < kMaxSharesShown; ++i) {
    absl::StrAppend(&shares, i == 0 ? "" : " ", counts[i]);
  }
  Note(job, "plan",
       absl::StrCat("window ", number, ": ", Counted(config.units_per_window, "unit"), " over ",
                    Counted(lessees.size(), "worker"), " (", shares, counts.size() > kMaxSharesShown ? " ..." : "", ")",
                    counts == previous ? ", as before" : ", by measured unit times"));

  std::map<Incarnation, std::vector<UnitRange>> evaluation_shares;
  if (EvaluationDue(job, number)) {
    run.evaluation.emplace(number, config.evaluation_units);
    LeaseEvaluation(job, *run.evaluation, evaluation_shares);
  }
  std::map<Incarnation, std::vector<UnitRange>> units;
  for (size_t i = 0; i < lessees.size(); ++i) units[lessees[i]] = run.Grant(lessees[i], counts[i]);
  DoubtIdle(lessees, counts);
  ChooseAudits(job, run);
  job.lessees = std::move(lessees);
  job.shares = counts;

  WindowRun& planned = ahead ? job.next.emplace(std::move(run)) : job.current.emplace(std::move(run));
  for (Incarnation member : job.members) {
    planned.parts[member];
    const bool sealed_before = workers_.at(member).sealed_window == number - 1;
    SendPlan(job, planned, member, std::move(units[member]), std::move(evaluation_shares[member]),
             ahead || sealed_before ? Scales() : ScalesOf(job));
  }
}

// Who was so slow that it gets nothing is not measured any more, and would get nothing for ever. So what was
// measured is taken to be a little less true with every window, until it gets a unit and is measured again.
void Machine::DoubtIdle(const std::vector<Incarnation>& lessees, const std::vector<int64_t>& counts) {
  const int64_t units = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  if (units < static_cast<int64_t>(lessees.size())) return;  // there are not enough
  for (size_t i = 0; i < lessees.size(); ++i) {
    if (counts[i] > 0) continue;
    workers_.at(lessees[i]).belief *= kBeliefInIdle;
  }
}

void Machine::SendPlan(Job& job, WindowRun& run, Incarnation worker, std::vector<UnitRange> units,
                       std::vector<UnitRange> evaluation_units, const Scales& scales) {
  run.parts[worker].active_ns = now_ns_;
  Plan plan;
  plan.key = KeyFor(job, worker, run.number, run.attempt);
  plan.units = std::move(units);
  plan.scalars = run.scalars;
  plan.exponents = scales.exponents;
  plan.loss_scale = scales.loss_scale;
  plan.evaluation_units = std::move(evaluation_units);
  SendTo(worker, std::move(plan));
}

// A new member takes part in the windows that are planned already, with zeros until units are free.
void Machine::SendEntryPlans(Job& job, Incarnation worker) {
  if (job.current) {
    job.current->parts[worker];
    SendPlan(job, *job.current, worker, {}, {}, ScalesOf(job));
  }
  if (job.next) {
    job.next->parts[worker];
    SendPlan(job, *job.next, worker, {}, {}, {});
  }
}

bool Machine::LeaseFreeUnits(Job& job) {
  if (static_cast<int64_t>(job.members.size()) < job.config.min_workers) return false;
  bool leased = false;
  for (std::optional<WindowRun>* run : {&job.current, &job.next}) {
    if (!*run) continue;
    const bool evaluation_free = (*run)->evaluation && (*run)->evaluation->leases.free() > 0;
    if ((*run)->leases.free() == 0 && !evaluation_free) continue;
    // What others were asked for at the same time is leased with it: each lease costs a look at everybody.
    const bool more_to_come = (*run)->recalls > 0 && now_ns_ < job.balance_at_ns;
    if (more_to_come && !evaluation_free && (*run)->leases.free() == (*run)->returned) continue;
    LeaseFree(job, **run);
    (*run)->returned = 0;
    leased = true;
  }
  return leased;
}

void Machine::LeaseFree(Job& job, WindowRun& run) {
  const std::vector<Incarnation> lessees = Lessees(job);
  const int64_t free = run.leases.free();
  const std::vector<int64_t> counts = Apportion(free, LoadsNow(run, lessees));
  std::map<Incarnation, std::vector<UnitRange>> evaluation_shares;
  if (run.evaluation) LeaseEvaluation(job, *run.evaluation, evaluation_shares);
  Note(job, "plan",
       absl::StrCat("window ", run.number, ": ", Counted(free, "unit"), " without a holder ", IsOrAre(free),
                    " leased again"));
  for (size_t i = 0; i < lessees.size(); ++i) {
    if (run.Finished(lessees[i])) run.NoteProgress(lessees[i], now_ns_);
    std::vector<UnitRange> units = run.Grant(lessees[i], counts[i]);
    std::vector<UnitRange>& evaluation_units = evaluation_shares[lessees[i]];
    if (units.empty() && evaluation_units.empty()) continue;
    SendPlan(job, run, lessees[i], std::move(units), std::move(evaluation_units), {});
  }
}

}  // namespace accrue::core
