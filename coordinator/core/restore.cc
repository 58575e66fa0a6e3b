// A coordinator that was restarted while members held the state: awaits them, and goes on from what they
// hold.
//
// The journal gave the newest commit, the epoch's members, and the attempt of the window on the way
// (LiveState); leases, reports and steps are rebuilt from the members' WorkerHolds. docs/recovery.md, "The
// coordinator dies".
#include <algorithm>
#include <bit>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

using Holders = std::vector<const WorkerHolds*>;
using UncommittedStep = WorkerHolds::UncommittedStep;

// What the seal that a step followed has said: the same to all of its members.
auto SealOf(const UncommittedStep& step) {
  return std::make_tuple(step.stepped.key.epoch, step.verdict, step.valid_tokens,
                         std::bit_cast<uint64_t>(step.loss_sum), step.vanished_elements, step.next_exponents,
                         step.next_loss_scale ? step.next_loss_scale->exponent : -1,
                         step.next_loss_scale ? step.next_loss_scale->good_windows : -1);
}

// The units in the accumulator that went into the step: those of a bucket that was not final before.
std::vector<UnitRange> UnitsOf(const WindowComputed& computed) {
  for (auto bucket = computed.buckets.rbegin(); bucket != computed.buckets.rend(); ++bucket) {
    if (!bucket->final) return bucket->units;
  }
  return {};
}

}  // namespace

void Machine::BeginRestoring(Job& job) {
  const LiveState& live = *job.origin.live;
  ACCRUE_CHECK(!live.members.empty() && live.window >= job.origin.window &&
               live.timeline < job.origin.timeline);
  job.restoring.emplace();
  job.restoring->deadline_ns = now_ns_ + options_.reconnect_ns;
  job.restoring->awaited = {live.members.begin(), live.members.end()};
  job.timeline = live.timeline;
  job.epoch = live.epoch;
  job.committed = live.window.value();
  job.steps = live.steps;
  job.digest = live.digest;
  job.parameter_hash = live.parameter_hash;
  job.exponents = live.exponents;
  job.loss_scale = live.loss_scale;
  job.numeric_class = live.layout.numeric_class;
  job.mixed = live.layout.mixed;
  job.tensors = live.layout.tensors;
  job.tensor_elements = live.layout.tensor_elements;
  job.buckets = live.layout.buckets;
  job.parameters = 0;
  for (int64_t elements : job.tensor_elements) job.parameters += elements;
}

std::string Machine::WhyNotAwaited(Incarnation incarnation) const {
  if (workers_.count(incarnation) > 0) return "this incarnation is here already; come back as a new one";
  for (const auto& job : jobs_) {
    if (job->restoring && job->restoring->awaited.count(incarnation) > 0) return "";
  }
  return absl::StrCat(
      "no job awaits incarnation ", incarnation.value(),
      ": it was no member when the coordinator died, or it comes too late; come back as a new one");
}

void Machine::OnWorkerResumed(const WorkerJoined& event) {
  const Incarnation incarnation = event.incarnation;
  if (workers_.count(incarnation) > 0) return Drop("incarnation is here already");
  const std::string refusal = WhyNotAwaited(incarnation);
  if (!refusal.empty()) {
    effects_.push_back(Expel{incarnation, refusal, /*rejoin=*/true});
    return;
  }
  const auto awaiting = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& job) {
    return job->restoring && job->restoring->awaited.count(incarnation) > 0;
  });
  Job& job = **awaiting;
  touched_.insert(&job);
  job.restoring->awaited.erase(incarnation);
  Worker& worker = workers_[incarnation];
  worker.identity = event;
  worker.last_seen_ns = now_ns_;
  worker.job = job.config.id;
  job.attached.insert(incarnation);
  SetRole(job, worker, Role::kResumed);
  if (const std::string refusal = WhyClassRefused(job, event.ClassFor(job.config)); !refusal.empty()) {
    ExpelWorker(incarnation, absl::StrCat("it ", refusal), /*rejoin=*/true);
  }
}

void Machine::OnWorkerHolds(const WorkerHolds& event) {
  const Worker* worker = Seen(event.from);
  if (worker == nullptr) return;
  Job* job = MutableJob(worker->job);
  if (job == nullptr || !job->restoring || worker->role != Role::kResumed)
    return Drop("nothing is awaited of it");
  touched_.insert(job);
  if (job->restoring->holdings.count(event.from) > 0) return Drop("holds twice");
  const std::string wrong = WhyUnusable(*job, event);
  if (!wrong.empty())
    return ExpelWorker(event.from, absl::StrCat("what it holds cannot be used: ", wrong), true);
  job->restoring->holdings[event.from] = event;
}

// "" for holdings that the journal does not contradict.
std::string Machine::WhyUnusable(const Job& job, const WorkerHolds& holds) const {
  const LiveState& live = *job.origin.live;
  const Key& key = holds.key;
  if (key.job != job.config.id) return absl::StrCat("it is of job \"", key.job, "\", not ", job.config.id);
  if (key.incarnation != holds.from) return "it is another incarnation's";
  if (key.term > options_.term)
    return absl::StrCat("it is of term ", key.term.value(), ", this is ", options_.term.value());
  if (key.timeline != live.timeline) {
    return absl::StrCat("it is of timeline ", key.timeline.value(), ", the job of ", live.timeline.value());
  }
  if (holds.digest.empty()) return "it holds no state";
  const bool ahead = key.window == live.window.Next();
  if (key.window != live.window && !ahead) {
    return absl::StrCat("its state has ", Counted(key.window.value(), "window"), " applied, ", live.window.value(),
                        " are committed");
  }
  if (!ahead && holds.digest != live.digest) {
    return absl::StrCat("after window ", live.window.value(), " its state has digest ", holds.digest,
                        ", committed was ", live.digest);
  }
  const std::string& hash = ahead && holds.step ? holds.step->stepped.parameter_hash : live.parameter_hash;
  if (!hash.empty() && !holds.parameter_hash.empty() && holds.parameter_hash != hash) {
    return absl::StrCat("its parameters have hash ", holds.parameter_hash, ", after the step it was ", hash);
  }
  const std::string step = WhyStepUnusable(job, holds);
  if (!step.empty()) return step;
  if (key.attempt > (ahead ? Attempt() : live.attempt)) {
    return absl::StrCat("its accumulator is of attempt ", key.attempt.value(), ", which was never made");
  }
  if (holds.final_buckets < 0 || holds.final_buckets > (ahead ? 0 : job.buckets)) {
    return absl::StrCat("it holds ", holds.final_buckets, " buckets final, of ", job.buckets);
  }
  std::set<int64_t> units;
  for (const UnitReport& report : holds.reports) {
    const std::string wrong = CheckReport(job, report, job.config.units_per_window);
    if (!wrong.empty()) return wrong;
    if (!units.insert(report.unit).second) return absl::StrCat("it holds unit ", report.unit, " twice");
  }
  units.clear();
  for (const EvaluationReport& report : holds.evaluations) {
    if (report.unit < 0 || report.unit >= job.config.evaluation_units || !units.insert(report.unit).second) {
      return absl::StrCat("it holds evaluation unit ", report.unit, ", which is not there or twice");
    }
  }
  return "";
}

// The step into the state held, if its Commit has not come.
std::string Machine::WhyStepUnusable(const Job& job, const WorkerHolds& holds) const {
  const LiveState& live = *job.origin.live;
  const bool ahead = holds.key.window > live.window;
  if (!holds.step) return ahead ? "it does not say how it came to a state that is not committed" : "";
  const Key& key = holds.step->stepped.key;
  if (key.incarnation != holds.from || key.timeline != live.timeline || key.epoch > live.epoch) {
    return "its step is of a seal that it was not given";
  }
  if (key.window.Next() != holds.key.window || holds.step->stepped.digest != holds.digest) {
    return absl::StrCat("its step of window ", key.window.value(), " is not the one into its state");
  }
  if (!ahead) return "";
  if (key.attempt != live.attempt) {
    return absl::StrCat("it stepped with attempt ", key.attempt.value(), " of window ", key.window.value(),
                        ", which was void: the last is ", live.attempt.value());
  }
  const std::optional<LossScale>& next = holds.step->next_loss_scale;
  if (next.has_value() != job.config.loss_scale.has_value() || (next && !next->IsPossible())) {
    const std::string given = next ? absl::StrCat("loss scale 2^", next->exponent) : "no loss scale";
    return absl::StrCat("the seal that it followed gave ", given, ", which the job cannot have");
  }
  std::vector<bool> seen(static_cast<size_t>(job.config.units_per_window), false);
  for (const UnitRange& range : UnitsOf(holds.step->computed)) {
    if (range.first < 0 || range.count < 1 || range.first > job.config.units_per_window - range.count) {
      return absl::StrCat("its accumulator held units from ", range.first, ", ", range.count,
                          " of them; the window has ", job.config.units_per_window);
    }
    for (int64_t unit = range.first; unit < range.first + range.count; ++unit) {
      if (seen[static_cast<size_t>(unit)]) return absl::StrCat("its accumulator held unit ", unit, " twice");
      seen[static_cast<size_t>(unit)] = true;
    }
  }
  return "";
}

// A member that is in the reduce of the window on the way says what it holds when that has ended, which it does only if
// all members are in it. Who was not given the seal, or has left the reduce, will not be.
void Machine::CallOffReduce(Job& job) {
  Restoring& restoring = *job.restoring;
  const Window window = job.origin.live->window;
  const bool somebody_left = std::any_of(restoring.holdings.begin(), restoring.holdings.end(),
                                         [&](const auto& holds) { return holds.second.key.window == window; });
  if (!somebody_left && now_ns_ < restoring.deadline_ns) return;
  for (Incarnation worker : job.attached) {
    if (restoring.holdings.count(worker) > 0 || !restoring.called_off.insert(worker).second) continue;
    SendTo(worker, Abort{KeyFor(job, worker, window.value(), job.origin.live->attempt),
                         "the coordinator was restarted, and not all members are in the reduce"});
  }
}

// All are back, or the time is up: the job goes on from the newest state that somebody holds.
bool Machine::FinishRestoring(Job& job) {
  Restoring& restoring = *job.restoring;
  const bool all_said =
      std::all_of(job.attached.begin(), job.attached.end(),
                  [&](Incarnation worker) { return restoring.holdings.count(worker) > 0; });
  const bool all_back = restoring.awaited.empty() && all_said;
  const LiveState& live = *job.origin.live;
  CallOffReduce(job);
  // Who is back and busy, with a unit or a reduce that is called off, has as long as after an abort.
  const int64_t busy_ns = all_said ? 0 : options_.abort_timeout_ns;
  if (!all_back && now_ns_ < restoring.deadline_ns + busy_ns) {
    SetState(job, JobState::kWaiting,
             absl::StrCat("the coordinator was restarted: waits for the ",
                          Counted(live.members.size(), "worker"), " that held the state of window ", live.window.value()));
    return false;
  }
  const Restoring done = *std::exchange(job.restoring, std::nullopt);
  const int64_t members = static_cast<int64_t>(live.members.size());
  for (Incarnation worker : std::set(job.attached)) {
    if (done.holdings.count(worker) == 0) ExpelWorker(worker, "it did not say in time what it holds", true);
  }
  match_idle_ = true;
  Holders ahead, level;
  for (Incarnation worker : job.attached) {
    const WorkerHolds& holds = done.holdings.at(worker);
    (holds.key.window > live.window ? ahead : level).push_back(&holds);
  }
  Record(job, "restore",
         absl::StrCat(job.attached.size(), " of the ", Counted(members, "member"), " outlived the coordinator; ",
                      ahead.size(), " of them stepped window ", live.window.value()));
  if (!ahead.empty()) {
    AdoptStep(job, std::move(ahead), level);
  } else if (!level.empty()) {
    AdoptWindow(job, std::move(level));
  } else {
    GoBack(job, absl::StrCat("none of the ", members, " came back in time"));
  }
  job.origin.live.reset();
  return true;
}

// Of the state after `window` windows.
void Machine::MakeMembers(Job& job, const Holders& holders, int64_t window) {
  std::vector<Incarnation> members;
  for (const WorkerHolds* holds : holders) {
    members.push_back(holds->from);
    Worker& worker = workers_.at(holds->from);
    SetRole(job, worker, Role::kMember);
    if (!worker.leaving) continue;
    ++job.leaving_members;
    worker.leaves_at = job.committed + 1;
    job.next_leave_at = std::min(job.next_leave_at, worker.leaves_at);
  }
  std::sort(members.begin(), members.end());
  SetMembers(job, members, "they hold the state; the coordinator was restarted");
  // A checkpoint that was on the way is lost, with what is known of its shards.
  const int64_t every = job.config.checkpoint_every;
  job.checkpoint_owed = every > 0 && window / every > job.origin.window.value() / every;
}

// Reports of the accumulators of this attempt count. Who has a unit that another has too cannot stay: neither
// sum can be told to give it up.
WindowRun Machine::AdoptUnits(Job& job, int64_t number, Attempt attempt, int64_t steps, Holders& holders) {
  WindowRun run(number, job.config.units_per_window, job.buckets);
  run.attempt = attempt;
  run.planned_at_ns = run.begun_at_ns = now_ns_;
  run.scalars = ScalarsOf(job.config.schedule, number, steps);
  ChooseAudits(job, run);  // what second workers have reported is lost
  Holders stay;
  for (const WorkerHolds* holds : holders) {
    const bool counts = holds->key.attempt == attempt;
    const auto done = [&](const UnitReport& report) { return run.leases.Done(report.unit); };
    const auto twice = std::find_if(holds->reports.begin(), holds->reports.end(), done);
    if (counts && twice != holds->reports.end()) {
      ExpelWorker(holds->from,
                  absl::StrCat("its accumulator has unit ", twice->unit, ", which another's has too"), true);
      continue;
    }
    stay.push_back(holds);
    Part& part = run.parts[holds->from];
    if (!counts) continue;
    part.final_buckets = holds->final_buckets;
    for (const UnitReport& report : holds->reports) {
      run.leases.GrantUnit(holds->from, report.unit);
      CountUnit(job, run, workers_.at(holds->from), report);
    }
  }
  holders = stay;
  return run;
}

void Machine::AdoptEvaluation(Job& job, std::optional<Evaluation>& evaluation, const Holders& holders) {
  for (const WorkerHolds* holds : holders) {
    for (const EvaluationReport& report : holds->evaluations) {
      if (evaluation->leases.Done(report.unit)) continue;
      evaluation->leases.GrantUnit(holds->from, report.unit);
      evaluation->leases.MarkDone(report.unit);
      evaluation->reports[static_cast<size_t>(report.unit)] = report;
    }
  }
  if (!evaluation->leases.complete()) return;
  const Evaluation finished = *std::exchange(evaluation, std::nullopt);
  FinishEvaluation(job, finished);
}

// Nobody stepped: the window on the way goes on with the units that are in somebody's accumulator.
void Machine::AdoptWindow(Job& job, Holders level) {
  const LiveState& live = *job.origin.live;
  WindowRun run = AdoptUnits(job, job.committed, live.attempt, job.steps, level);
  bool begun = run.leases.done() > 0 || run.FinalBuckets() > 0 || live.attempt > Attempt();
  for (const WorkerHolds* holds : level) begun |= !holds->evaluations.empty();
  Note(job, "restore",
       absl::StrCat(run.leases.done(), " of the ", Counted(run.leases.size(), "unit"), " of window ", job.committed,
                    " ", IsOrAre(run.leases.done()), " kept"));
  if (!job.Repeatable()) {  // another step may come out differently
    job.evaluated.erase(job.evaluated.upper_bound(job.committed), job.evaluated.end());
  }
  const bool evaluate = EvaluationDue(job, job.committed);
  const bool over = job.committed >= job.EndWindow();
  if (!over && begun) {
    if (evaluate) run.evaluation.emplace(job.committed, job.config.evaluation_units);
    job.current.emplace(std::move(run));
  }
  MakeMembers(job, level, job.committed);
  for (const WorkerHolds* holds : level) {
    if (holds->step) {  // its coordinator died between the commit's record and the message
      SendTo(
          holds->from,
          Commit{KeyFor(job, holds->from, job.committed - 1, holds->step->stepped.key.attempt), job.digest});
    }
    SendEntryPlans(job, holds->from);
  }
  if (job.current && job.current->evaluation) AdoptEvaluation(job, job.current->evaluation, level);
  if (over && evaluate) {
    job.final_evaluation.emplace(job.committed, job.config.evaluation_units);
    AdoptEvaluation(job, job.final_evaluation, level);
  }
}

// Somebody stepped: that update is complete, and is voted on by those who have it. The others copy the state.
void Machine::AdoptStep(Job& job, Holders ahead, const Holders& level) {
  const LiveState& live = *job.origin.live;
  std::map<decltype(SealOf(*ahead[0]->step)), Holders> by_seal;
  for (const WorkerHolds* holds : ahead) by_seal[SealOf(*holds->step)].push_back(holds);
  const auto most = std::max_element(by_seal.begin(), by_seal.end(), [](const auto& a, const auto& b) {
    return a.second.size() < b.second.size();
  });
  for (const auto& [seal, holders] : by_seal) {
    for (const WorkerHolds* holds : holders) {
      if (seal != most->first)
        ExpelWorker(holds->from, "the seal that it followed was another than its peers'", true);
    }
  }
  ahead = most->second;
  const UncommittedStep& step = *ahead[0]->step;
  const int64_t steps = job.steps + (step.verdict == Verdict::kSkip ? 0 : 1);
  std::optional<WindowRun> next;
  if (job.committed + 1 < job.EndWindow()) next = AdoptUnits(job, job.committed + 1, Attempt(), steps, ahead);

  WindowRun& run = job.current.emplace(job.committed, job.config.units_per_window, job.buckets);
  run.attempt = live.attempt;
  run.planned_at_ns = now_ns_;
  Sealed& sealed = run.sealed.emplace();
  sealed.epoch = step.stepped.key.epoch;
  sealed.verdict = step.verdict;
  sealed.totals.valid_tokens = step.valid_tokens;
  sealed.totals.loss_sum = step.loss_sum;
  sealed.totals.vanished_elements = step.vanished_elements;
  sealed.next_exponents = step.next_exponents;
  sealed.next_loss_scale = step.next_loss_scale;
  for (const WorkerHolds* holds : ahead) {
    const WindowComputed& computed = holds->step->computed;
    for (const UnitRange& range : UnitsOf(computed)) {
      for (int64_t unit = range.first; unit < range.first + range.count; ++unit) {
        if (run.leases.Done(unit)) continue;
        run.leases.GrantUnit(holds->from, unit);
        run.leases.MarkDone(unit);
      }
    }
    run.MarkComputed(holds->from, computed.parameter_hash, computed.local_gradient_norm);
    run.parts.at(holds->from).final_buckets = job.buckets;
    const WorkerStepped& stepped = holds->step->stepped;
    sealed.steps[holds->from] = {stepped.digest, stepped.gradient_norm, stepped.clip_coefficient,
                                 stepped.phases, stepped.memory_bytes, stepped.parameter_hash};
  }
  // The seal proved the cover; who had the rest is gone. Their reports are not known, and not needed any more.
  run.leases.CountFreeAsDone();
  MakeMembers(job, ahead, job.committed + 1);
  for (const WorkerHolds* holds : level) {
    Worker& worker = workers_.at(holds->from);
    if (worker.leaving) {
      ReleaseWorker(job, holds->from, worker.leaving_reason, false);
      continue;
    }
    worker.held_digest = holds->digest;
    worker.held_window = job.committed;
    worker.sync_at_once = true;
    SetRole(job, worker, Role::kReady);
  }
  if (!next || next->leases.done() == 0) return;
  if (EvaluationDue(job, next->number)) next->evaluation.emplace(next->number, job.config.evaluation_units);
  job.next = std::move(next);
  if (job.next->evaluation) AdoptEvaluation(job, job.next->evaluation, ahead);
  for (const WorkerHolds* holds : ahead) SendPlan(job, *job.next, holds->from, {}, {}, {step.next_exponents, step.next_loss_scale});
}

}  // namespace accrue::core
