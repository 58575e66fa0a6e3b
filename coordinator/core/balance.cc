// Units that move within a window, from a worker that would finish late to those that would finish early.
//
// A unit that has begun stays: only what the late one says it had not begun is leased to others (UnitsReturned).
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

// Of one worker in one attempt at a window: what was moved rightly is not moved often.
constexpr int kMaxRecalls = 4;
// Silence over a unit after which a worker counts as slower than it was: so many times its usual unit time, and the time
// that reports may be gathered until they are sent.
constexpr double kLateFactor = 2;
constexpr double kGatherNs = 40e6;

}  // namespace

// The lower one of two; 0 if none was measured.
double Machine::MedianUnitNs(const std::vector<Incarnation>& workers) const {
  std::vector<double> times;
  for (Incarnation worker : workers) {
    const double unit_ns = workers_.at(worker).unit_ns;
    if (unit_ns > 0) times.push_back(unit_ns);
  }
  if (times.empty()) return 0;
  const auto median = times.begin() + static_cast<int64_t>((times.size() - 1) / 2);
  std::nth_element(times.begin(), median, times.end());
  return *median;
}

Standing Machine::StandingOf(const WindowRun& run, Incarnation worker) const {
  const Leases::Share share = run.leases.ShareOf(worker);
  const Part& part = run.parts.at(worker);
  return {workers_.at(worker).unit_ns, share.leased - share.done, part.progress_ns, part.recalled};
}

// What it has still to do of the window, at the speed that it shows now: measured by its own compute, or by its silence
// over the unit under way, if that lasts longer.
Load Machine::LoadNow(const WindowRun& run, const Standing& standing, double median_ns) const {
  Load load{standing.unit_ns > 0 ? standing.unit_ns : median_ns, standing.pending};
  if (load.pending == 0 || run.begun_at_ns < 0) return load;
  const auto silent_ns = static_cast<double>(now_ns_ - std::max(run.begun_at_ns, standing.progress_ns));
  if (silent_ns <= kLateFactor * load.unit_ns + kGatherNs) {
    load.ahead_ns = std::min(silent_ns, load.unit_ns);
  } else if (load.unit_ns > 0) {
    load.unit_ns = silent_ns;
  }
  return load;
}

std::vector<Load> Machine::LoadsNow(const WindowRun& run, const std::vector<Incarnation>& workers) const {
  const double median_ns = MedianUnitNs(workers);
  std::vector<Load> loads;
  loads.reserve(workers.size());
  for (Incarnation worker : workers) loads.push_back(LoadNow(run, StandingOf(run, worker), median_ns));
  return loads;
}

// Those of which nothing was heard since the last look stay as they are.
void Machine::UpdateStandings(const Job& job, WindowRun& run) const {
  const std::vector<Incarnation> changed = run.leases.TakeChanged();
  if (run.standings_epoch != job.epoch) {
    run.standings.clear();
    for (Incarnation member : job.members) run.standings.push_back(StandingOf(run, member));
    run.standings_epoch = job.epoch;
  } else {
    for (Incarnation worker : changed) {
      const auto member = std::lower_bound(job.members.begin(), job.members.end(), worker);
      if (member == job.members.end() || *member != worker) continue;
      run.standings[static_cast<size_t>(member - job.members.begin())] = StandingOf(run, worker);
    }
  }
  if (!options_.check_thoroughly) return;
  for (size_t i = 0; i < job.members.size(); ++i) {
    ACCRUE_CHECK(run.standings[i] == StandingOf(run, job.members[i]));
  }
}

// When the window's units would be done as they are leased, and when at best.
struct Machine::Outlook {
  double all_ns = 0;       // all of the window's units, split ideally
  double now_ns = 0;       // what is left, as it is leased: MakespanNs
  double possible_ns = 0;  // what is left, the units that wait split ideally: IdealNs
};

// What MakespanNs and IdealNs would say of everybody's load, in one pass that keeps nothing.
Machine::Outlook Machine::LookAhead(const WindowRun& run, double median_ns) const {
  int64_t pool = 0;
  for (const Standing& standing : run.standings) pool += standing.Waiting();
  Outlook outlook;
  double work = static_cast<double>(pool), speed = 0;
  for (const Standing& standing : run.standings) {
    const Load load = LoadNow(run, standing, median_ns);
    const double unit_ns = load.unit_ns > 0 ? load.unit_ns : 1;  // nobody was measured
    const int64_t kept = standing.Kept();
    work += static_cast<double>(kept) - load.ahead_ns / unit_ns;
    speed += 1 / unit_ns;
    outlook.now_ns =
        std::max(outlook.now_ns, static_cast<double>(kept + standing.Waiting()) * unit_ns - load.ahead_ns);
  }
  outlook.all_ns = static_cast<double>(run.leases.size()) / speed;
  outlook.possible_ns = work / speed;
  return outlook;
}

// Asks for units back if that makes the window end sooner by enough. Looked at once in balance_interval_ns, so that a
// large fleet's reports do not each cost a look at everybody.
bool Machine::Balance(Job& job) {
  if (!job.current || now_ns_ < job.balance_at_ns || job.members.size() < 2) return false;
  WindowRun& run = *job.current;
  if (run.leases.complete() || run.leases.free() > 0) return false;
  job.balance_at_ns = now_ns_ + options_.balance_interval_ns;

  UpdateStandings(job, run);
  const bool all_measured = std::all_of(run.standings.begin(), run.standings.end(),
                                        [](const Standing& standing) { return standing.unit_ns > 0; });
  const double median_ns = all_measured ? 0 : MedianUnitNs(job.members);  // for those that were not
  const Outlook outlook = LookAhead(run, median_ns);
  const double least_gain_ns =
      std::max(static_cast<double>(options_.move_gain_ns), options_.move_threshold * outlook.all_ns);
  if (outlook.now_ns - outlook.possible_ns < least_gain_ns) return false;

  std::vector<Load> loads, kept;
  std::vector<int64_t> waiting;
  int64_t pool = 0;
  for (const Standing& standing : run.standings) {
    loads.push_back(LoadNow(run, standing, median_ns));
    kept.push_back(loads.back());
    kept.back().pending = standing.Kept();
    waiting.push_back(standing.Waiting());
    pool += waiting.back();
  }
  if (pool == 0) return false;
  const double fair_ns = MakespanNs(kept, Apportion(pool, kept));
  bool asked = false;
  for (size_t i = 0; i < loads.size(); ++i) {
    const double late_ns = static_cast<double>(loads[i].pending) * loads[i].unit_ns - loads[i].ahead_ns - fair_ns;
    if (waiting[i] == 0 || late_ns < least_gain_ns) continue;
    const auto surplus = static_cast<int64_t>(std::ceil(late_ns / loads[i].unit_ns));
    asked = AskBack(job, job.members[i], std::min(waiting[i], surplus), late_ns) || asked;
  }
  return asked;
}

bool Machine::AskBack(Job& job, Incarnation worker, int64_t units, double late_ns) {
  WindowRun& run = *job.current;
  Part& part = run.parts.at(worker);
  ACCRUE_CHECK(part.recalled == 0 && units > 0);
  if (part.recalls >= kMaxRecalls) return false;
  ++part.recalls;
  part.recalled = units;
  run.Touch(worker);
  ++run.recalls;
  Note(job, "move",
       absl::StrCat("window ", run.number, ": ", NameOf(worker), " is asked for ", Counted(units, "unit"),
                    ": it would end ", static_cast<int64_t>(late_ns / 1e6), " ms after a fair split of what is not begun"),
       worker);
  SendTo(worker, Recall{KeyFor(job, worker, run.number, run.attempt), units});
  return true;
}

void Machine::OnUnitsReturned(const UnitsReturned& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  Job& job = *sender->job;
  WindowRun* run = FindRun(job, event.key);
  if (run == nullptr) return;
  const auto part = run->parts.find(event.from);
  if (part == run->parts.end() || part->second.recalled == 0) return Drop("nothing was recalled");
  const int64_t asked = std::exchange(part->second.recalled, 0);
  run->Touch(event.from);
  --run->recalls;
  std::vector<int64_t> units;
  const std::string wrong = CheckReturned(*run, event, asked, units);
  if (!wrong.empty()) return ExpelWorker(event.from, wrong, true);
  for (int64_t unit : units) run->leases.Return(event.from, unit);
  run->returned += static_cast<int64_t>(units.size());
  Note(job, "move",
       absl::StrCat("window ", run->number, ": ", NameOf(event.from), " gives back ", units.size(), " of ",
                    Counted(asked, "unit")),
       event.from);
}

// "" if all are units that it was leased and has not reported, none twice, and no more than it was asked for.
std::string Machine::CheckReturned(const WindowRun& run, const UnitsReturned& event, int64_t asked,
                                   std::vector<int64_t>& units) const {
  for (const UnitRange& range : event.units) {
    const int64_t left = asked - static_cast<int64_t>(units.size());
    if (range.count < 1 || range.count > left) {
      return absl::StrCat("it gives back units from ", range.first, ", ", range.count, " of them; ", left,
                          " were asked for");
    }
    for (int64_t unit = range.first; unit < range.first + range.count; ++unit) {
      if (!run.leases.Holds(event.from, unit) || run.leases.Done(unit) ||
          std::find(units.begin(), units.end(), unit) != units.end()) {
        return absl::StrCat("it gives back unit ", unit, ", which it does not hold, or has reported or given back");
      }
      units.push_back(unit);
    }
  }
  return "";
}

}  // namespace accrue::core
