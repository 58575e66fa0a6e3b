// Units that two workers compute, and what follows when they do not come out the same: docs/recovery.md,
// "Lies".
#include <algorithm>
#include <bit>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/exponents.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/difference.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

// A JSON object for a ledger entry: who said what of a unit.
std::string DetailOf(int64_t window, int64_t unit, const Audit& audit) {
  std::vector<std::string> words;
  const auto add = [&](Incarnation worker, const UnitReport& report) {
    std::vector<std::string> checksums;
    for (uint64_t checksum : report.bucket_checksums) {
      checksums.push_back(absl::StrCat("\"", absl::Hex(checksum, absl::kZeroPad16), "\""));
    }
    words.push_back(absl::StrCat("{\"incarnation\":", worker.value(), ",\"loss_sum_bits\":\"",
                                 absl::Hex(std::bit_cast<uint64_t>(report.loss_sum), absl::kZeroPad16),
                                 "\",\"valid_tokens\":", report.valid_tokens,
                                 ",\"non_finite\":", report.non_finite ? "true" : "false",
                                 ",\"max_exponents\":[", absl::StrJoin(report.max_exponents, ","),
                                 "],\"bucket_checksums\":[", absl::StrJoin(checksums, ","), "]}"));
  };
  for (const auto& [worker, word] : audit.words) {
    add(worker, word.report);
    if (word.contradiction) add(worker, *word.contradiction);
  }
  return absl::StrCat("{\"window\":", window, ",\"unit\":", unit, ",\"results\":[", absl::StrJoin(words, ","),
                      "]}");
}

std::string NameOfUnit(const WindowRun& run, int64_t unit) {
  return absl::StrCat("unit ", unit, " of window ", run.number);
}

// One unit of each holder, then the next of each: what is then given in this order to whoever has least to
// do, and does not hold it, is spread evenly.
std::vector<int64_t> InTurns(const WindowRun& run, const std::set<int64_t>& units) {
  std::map<Incarnation, int64_t> turns;
  std::set<std::tuple<int64_t, Incarnation, int64_t>> order;
  for (int64_t unit : units) {
    const Incarnation holder = run.leases.HolderOf(unit);
    order.emplace(turns[holder]++, holder, unit);
  }
  std::vector<int64_t> in_turns;
  for (const auto& [turn, holder, unit] : order) in_turns.push_back(unit);
  return in_turns;
}

}  // namespace

// Who is asked in one pass, and how far everybody is; built when the first is asked.
struct Machine::AuditRound {
  struct Candidate {
    bool leaving = false;
    double finish_ns = 0;  // when its units and audits are done
    Incarnation worker;
    double unit_ns = 0;
    friend auto operator<=>(const Candidate&, const Candidate&) = default;
  };
  std::set<Candidate> candidates;
  std::map<Incarnation, std::set<int64_t>> asked;  // units
};

void Machine::ChooseAudits(const Job& job, WindowRun& run) const {
  const JobConfig& config = job.config;
  if (config.audit_fraction <= 0 || !config.exact) return;
  for (int64_t unit = 0; unit < run.leases.size(); ++unit) {
    if (IsAudited(config.seed, config.audit_fraction, run.number, unit)) run.audits.Add(unit, "");
  }
}

void Machine::OnAuditReported(Job& job, WindowRun& run, const UnitsReported& event) {
  if (const auto part = run.parts.find(event.from); part != run.parts.end()) part->second.active_ns = now_ns_;
  for (const UnitReport& report : event.reports) {
    const std::string wrong = CheckReport(job, report, run.leases.size());
    if (!wrong.empty()) return ExpelWorker(event.from, wrong, true);
    if (!run.audits.Asked(report.unit, event.from)) {
      Drop("audit is not asked for");
      continue;
    }
    run.audits.Hear(event.from, Comparable(job, report));
  }
}

// True when somebody was asked, or sent away.
bool Machine::AuditUnits(Job& job) {
  bool changed = false;
  for (std::optional<WindowRun>* slot : {&job.current, &job.next}) {
    if (!*slot || (*slot)->audits.all().empty()) continue;
    WindowRun& run = **slot;
    if (run.audits_epoch != job.epoch) run.audits.ReviewAll();
    run.audits_epoch = job.epoch;
    AuditRound round;
    for (int64_t unit : InTurns(run, run.audits.TakeReviews())) {
      const std::optional<Accusation> accusation = ReviewAudit(job, run, unit, round);
      if (!accusation) continue;
      SendAudits(job, run, round);
      Quarantine(job, *accusation);  // a new epoch, so all others are looked at again
      return true;
    }
    changed |= SendAudits(job, run, round);
  }
  return changed;
}

std::optional<Machine::Accusation> Machine::ReviewAudit(Job& job, WindowRun& run, int64_t unit,
                                                        AuditRound& round) {
  Audit& audit = run.audits.At(unit);
  std::erase_if(audit.words, [&](const auto& entry) {
    return entry.second.contradiction && workers_.count(entry.first) == 0;
  });
  for (const auto& [worker, word] : audit.words) {
    if (!word.contradiction) continue;
    return Accusation{worker,
                      absl::StrCat("it computed ", NameOfUnit(run, unit), " twice, with ",
                                   Difference(word.report, *word.contradiction)),
                      DetailOf(run.number, unit, audit)};
  }
  const Incarnation holder = run.leases.HolderOf(unit);
  KeepComparable(job, audit, holder);
  if (holder == Incarnation()) {
    // Free, and looked at again when it is leased; or in buckets that are final, and settled before they were
    // sealed.
    if (run.leases.Done(unit)) run.audits.Settle(unit);
    return std::nullopt;
  }
  if (!run.leases.Done(unit)) {
    const bool another = std::any_of(audit.words.begin(), audit.words.end(),
                                     [&](const auto& e) { return e.first != holder; }) ||
                         std::any_of(audit.asked.begin(), audit.asked.end(),
                                     [&](Incarnation worker) { return worker != holder; });
    if (!another && !audit.waived) AskAnother(job, run, unit, round);
    return std::nullopt;
  }
  const std::vector<Audit::Camp> camps = audit.Camps();
  if (camps.front().workers.size() > 1) return SettleAudit(job, run, unit, camps);
  if (!audit.asked.empty()) return std::nullopt;
  const bool below_least = static_cast<int64_t>(job.members.size()) < job.config.min_workers;
  if (camps.size() == 1) {
    if (audit.waived || (!AskAnother(job, run, unit, round) && !below_least)) {
      audit.waived = true;
      run.audits.Settle(unit);
      if (job.members.size() > 1 && !job.mixed.empty()) {
        if (!std::exchange(job.audits_lack_class, true)) {
          RecordAudit(job, absl::StrCat("units of ", NameOf(holder), " are not checked: no other worker is of its numeric class"),
                      holder, "");
        }
      } else if (!std::exchange(job.audits_wait, true)) {
        RecordAudit(job, "audits wait for a second worker; until then no unit is checked", Incarnation(), "");
      }
    }
    return std::nullopt;
  }
  return below_least ? std::nullopt : AskForDecision(job, run, unit, camps, round);
}

// Workers of different numeric classes may differ without anybody being wrong: in a mixed job only those words stay
// that are of the holder's class. Of what class a worker was that is gone is not known.
void Machine::KeepComparable(const Job& job, Audit& audit, Incarnation holder) const {
  if (holder == Incarnation()) return;
  std::erase_if(audit.words, [&](const auto& entry) {
    return entry.first != holder && !SameClass(job, entry.first, holder);
  });
}

// Two say the same: whoever says otherwise is wrong.
std::optional<Machine::Accusation> Machine::SettleAudit(Job& job, WindowRun& run, int64_t unit,
                                                        const std::vector<Audit::Camp>& camps) {
  for (size_t i = 1; i < camps.size(); ++i) {
    for (Incarnation worker : camps[i].workers) {
      const std::string reason =
          absl::StrCat(NameOfUnit(run, unit), " came out differently on ", NameOf(worker), " and on ",
                       NameOf(camps[0].workers[0]), " and ", NameOf(camps[0].workers[1]), ": ",
                       Difference(*camps[i].report, *camps[0].report));
      const std::string detail = DetailOf(run.number, unit, run.audits.At(unit));
      if (workers_.count(worker) > 0) return Accusation{worker, reason, detail};
      RecordAudit(job, absl::StrCat(reason, "; it is gone"), worker, detail);
    }
  }
  Audit& audit = run.audits.At(unit);
  for (size_t i = 1; i < camps.size(); ++i) {
    for (Incarnation worker : camps[i].workers) audit.words.erase(worker);
  }
  run.audits.Settle(unit);
  return std::nullopt;
}

// Nobody agrees with anybody: a further worker, or without one all of them once more.
std::optional<Machine::Accusation> Machine::AskForDecision(Job& job, WindowRun& run, int64_t unit,
                                                           const std::vector<Audit::Camp>& camps,
                                                           AuditRound& round) {
  Audit& audit = run.audits.At(unit);
  const std::string found = absl::StrCat(NameOfUnit(run, unit), " came out differently on ",
                                         NameOf(camps[0].workers[0]), " and on ", NameOf(camps[1].workers[0]),
                                         ": ", Difference(*camps[0].report, *camps[1].report));
  const std::string detail = DetailOf(run.number, unit, audit);
  if (AskAnother(job, run, unit, round)) {
    RecordAudit(job, absl::StrCat(found, "; ", NameOf(*audit.asked.begin()), " decides"),
                *audit.asked.begin(), detail);
    return std::nullopt;
  }
  int64_t present = 0;
  for (const auto& [worker, word] : audit.words) {
    if (!std::binary_search(job.members.begin(), job.members.end(), worker)) continue;
    ++present;
    if (word.repeated) continue;
    round.asked[worker].insert(unit);
    run.audits.Ask(unit, worker);
  }
  if (!audit.asked.empty()) {
    RecordAudit(job, absl::StrCat(found, "; there is no third worker, so they compute it once more"),
                Incarnation(), detail);
    return std::nullopt;
  }
  if (present > 1) {
    // If one of them computed with wrong parameters, the check at the seal sees it.
    if (!ParametersAreRight(job, run)) return std::nullopt;
    return Accusation{
        Incarnation(),
        absl::StrCat(found, ", each time the same, and there is no third worker to tell who is right"),
        detail};
  }
  RecordAudit(job, absl::StrCat(found, "; who is left computed it twice with the same result, which counts"),
              Incarnation(), detail);
  audit.waived = true;
  run.audits.Settle(unit);
  return std::nullopt;
}

// Of every member, as far as the last commit tells.
bool Machine::ParametersAreRight(const Job& job, const WindowRun& run) const {
  const std::string& right =
      job.parameter_hash.empty() ? run.parts.at(job.members.front()).parameter_hash : job.parameter_hash;
  return std::all_of(job.members.begin(), job.members.end(), [&](Incarnation member) {
    const Part& part = run.parts.at(member);
    return part.computed && part.parameter_hash == right;
  });
}

// The member of the holder's numeric class that has not said anything of the unit and is done first; one that stays if
// there is one.
bool Machine::AskAnother(const Job& job, WindowRun& run, int64_t unit, AuditRound& round) {
  if (round.candidates.empty()) {
    std::map<Incarnation, int64_t> audits;
    for (const auto& [other, audit] : run.audits.all()) {
      for (Incarnation worker : audit.asked) ++audits[worker];
    }
    const std::vector<Load> loads = LoadsOf(job.members, &run.leases);
    const std::vector<double> times = UnitTimes(loads);
    for (size_t i = 0; i < loads.size(); ++i) {
      const Incarnation member = job.members[i];
      const auto units = static_cast<double>(loads[i].pending + audits[member]);
      round.candidates.insert({workers_.at(member).leaving, units * times[i], member, times[i]});
    }
  }
  const Audit& audit = run.audits.At(unit);
  const Incarnation holder = run.leases.HolderOf(unit);
  const auto found =
      std::find_if(round.candidates.begin(), round.candidates.end(), [&](const auto& candidate) {
        return candidate.worker != holder && audit.words.count(candidate.worker) == 0 &&
               SameClass(job, candidate.worker, holder);
      });
  if (found == round.candidates.end()) return false;
  AuditRound::Candidate asked = *found;
  round.candidates.erase(found);
  asked.finish_ns += asked.unit_ns;
  round.candidates.insert(asked);
  run.audits.Ask(unit, asked.worker);
  round.asked[asked.worker].insert(unit);
  return true;
}

bool Machine::SendAudits(Job& job, WindowRun& run, AuditRound& round) {
  int64_t units = 0;
  for (const auto& [worker, asked] : round.asked) {
    units += static_cast<int64_t>(asked.size());
    run.parts[worker].active_ns = now_ns_;
    Plan plan;
    plan.key = KeyFor(job, worker, run.number, run.attempt);
    plan.scalars = run.scalars;
    for (int64_t unit : asked) AppendUnit(unit, plan.audit_units);
    SendTo(worker, std::move(plan));
  }
  if (units == 0) return false;
  Note(job, "audit",
       absl::StrCat("window ", run.number, ": ", Counted(units, "unit"), " ", IsOrAre(units),
                    " computed by a second worker too"));
  job.audits_wait = false;
  return true;
}

// Nothing that it said counts, and all of its units are computed again by others. Where nobody can tell who it is, all
// give up the state: a parameter that changed after its hash was told is right again then, a wrong device lies again.
void Machine::Quarantine(Job& job, const Accusation& accusation) {
  const Incarnation worker = accusation.worker;
  if (worker == Incarnation()) {
    RecordAudit(job, accusation.reason, worker, accusation.detail);
    RollBack(job, accusation.reason);
    return;
  }
  RecordAudit(job, absl::StrCat(NameOf(worker), " is quarantined: ", accusation.reason), worker,
              accusation.detail);
  for (std::optional<WindowRun>* run : {&job.current, &job.next}) {
    if (*run) (*run)->audits.Distrust(worker);
  }
  ExpelWorker(worker, absl::StrCat("quarantined: ", accusation.reason), false);
}

// A skip or a replay must not come from one flipped bit: the reports that bring it about are checked first. A
// skip follows from any unit that is not finite, so one is enough; the exponents of a replay follow from the
// largest of each tensor that has outgrown its exponent. True when somebody is to be asked; below workers.min, who
// comes next.
bool Machine::CheckCauses(Job& job, const Totals& totals) {
  WindowRun& run = *job.current;
  const auto members = static_cast<int64_t>(job.members.size());
  if (members < 2 && members >= job.config.min_workers) return false;
  std::map<int64_t, std::string> causes;
  const auto add_first = [&](const auto& is_cause, const std::string& cause) {
    const auto found = std::find_if(run.reports.begin(), run.reports.end(), is_cause);
    ACCRUE_CHECK(found != run.reports.end());
    causes.emplace(found->unit, cause);
  };
  if (totals.non_finite) {
    add_first([](const UnitReport& report) { return report.non_finite; }, "its gradient is not finite");
  } else if (job.config.exact && totals.valid_tokens > 0) {
    for (size_t tensor = 0; tensor < totals.max_exponents.size(); ++tensor) {
      const int largest = totals.max_exponents[tensor];
      if (!NeedsReplay(run.leases.size(), largest, job.exponents[tensor])) continue;
      add_first([&](const UnitReport& report) { return report.max_exponents[tensor] == largest; },
                absl::StrCat("its gradient of tensor ", tensor, " reached 2^", largest));
    }
  }
  bool asks = false;
  for (const auto& [unit, cause] : causes) {
    const Incarnation holder = run.leases.HolderOf(unit);
    if (run.audits.Has(unit) || holder == Incarnation()) continue;  // settled, now or before another seal
    run.audits.Add(unit, cause);
    run.audits.Hear(holder, run.reports[static_cast<size_t>(unit)]);
    RecordAudit(job, absl::StrCat(NameOfUnit(run, unit), " is checked: ", cause), holder, "");
    asks = true;
  }
  return asks;
}

void Machine::RecordAudit(Job& job, const std::string& reason, Incarnation worker,
                          const std::string& detail) {
  LedgerEntry entry = EntryFor(job, "audit", reason, worker);
  entry.detail = detail;
  Persist(job, PersistLedger{job.config.id, std::move(entry)});
}

}  // namespace accrue::core
