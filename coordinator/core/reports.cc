// What workers say of the units that they computed.
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/exponents.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

// Weight of the newest unit in a worker's mean time.
constexpr double kNewestWeight = 0.2;
constexpr double kMuchLess = 0.5;

}  // namespace

WindowRun* Machine::FindRun(Job& job, const Key& key) {
  for (std::optional<WindowRun>* run : {&job.current, &job.next}) {
    if (!*run || (*run)->number != key.window.value()) continue;
    if ((*run)->attempt == key.attempt) return &**run;
    Drop("attempt is old");
    return nullptr;
  }
  Drop("window is not on the way");
  return nullptr;
}

// "" for a report that makes sense.
std::string Machine::CheckReport(const Job& job, const UnitReport& report, int64_t units) const {
  if (report.unit < 0 || report.unit >= units) {
    return absl::StrCat("unit ", report.unit, " is reported; the window has ", units);
  }
  const size_t tensors = job.tensor_elements.size();
  const bool of_exact = report.max_exponents.size() == tensors &&
                        static_cast<int64_t>(report.bucket_checksums.size()) == job.buckets;
  if (job.config.exact && !of_exact) {
    return absl::StrCat("unit ", report.unit, " has ", report.max_exponents.size(), " exponents and ",
                        report.bucket_checksums.size(), " checksums; the job has ", tensors, " tensors in ",
                        job.buckets, " buckets");
  }
  const int64_t tokens = job.config.sequences_per_unit * job.config.sequence_length;
  if (report.valid_tokens < 0 || report.valid_tokens > tokens) {
    return absl::StrCat("unit ", report.unit, " counts ", report.valid_tokens, " tokens; a unit has ",
                        tokens);
  }
  return "";
}

// What of a report is the same whoever computed the unit.
UnitReport Machine::Comparable(const Job& job, UnitReport report) const {
  if (job.config.exact) return report;
  // Their order within the sums is not fixed, so they prove nothing.
  report.bucket_checksums.clear();
  report.max_exponents.clear();
  return report;
}

void Machine::OnUnitsReported(const UnitsReported& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  Job& job = *sender->job;
  Worker& worker = *sender->worker;
  if (event.probe) return OnProbeReported(job, event);
  WindowRun* run = FindRun(job, event.key);
  if (run == nullptr) return;
  if (run->sealed) return Drop("window is sealed");
  if (event.audit) return OnAuditReported(job, *run, event);
  for (const UnitReport& report : event.reports) {
    const std::string wrong = CheckReport(job, report, run->leases.size());
    if (!wrong.empty()) return ExpelWorker(event.from, wrong, true);
    if (!run->leases.Holds(event.from, report.unit)) {
      Drop("unit is not leased to the worker");
      continue;
    }
    if (run->leases.Done(report.unit)) {
      Drop("unit is reported twice");
      continue;
    }
    CountUnit(job, *run, worker, report);
    run->NoteProgress(event.from, now_ns_);
    CompareWithLost(job, *run, event.from, report.unit);
  }
}

void Machine::CountUnit(Job& job, WindowRun& run, Worker& worker, const UnitReport& report) {
  run.Take(Comparable(job, report));
  if (run.audits.Has(report.unit)) run.audits.Hear(worker.identity.incarnation, Comparable(job, report));
  if (report.compute_ns <= 0) return;
  // What it takes for a unit tells of the window on the way, whichever this one is of.
  if (job.current && &*job.current != &run) job.current->Touch(worker.identity.incarnation);
  const auto time_ns = static_cast<double>(report.compute_ns);
  // The first unit pays for what is made once.
  const bool first = worker.unit_ns == 0, beyond_first = worker.measured_once && time_ns < kMuchLess * worker.unit_ns;
  const bool replaces = first || beyond_first || worker.belief < 1;
  worker.unit_ns = replaces ? time_ns : worker.unit_ns + kNewestWeight * (time_ns - worker.unit_ns);
  worker.measured_once = first;
  worker.belief = 1;
}

void Machine::OnProbeReported(Job& job, const UnitsReported& event) {
  if (job.prober != event.from || !job.exponents.empty()) return Drop("probe is not asked for");
  const size_t tensors = job.tensor_elements.size();
  if (event.reports.size() != 1 || event.reports[0].max_exponents.size() != tensors) {
    return ExpelWorker(event.from, "its probe does not report one unit with an exponent for each tensor",
                       true);
  }
  const UnitReport& report = event.reports[0];
  job.prober = Incarnation();
  job.exponents = NextExponents(job.config.units_per_window,
                                report.non_finite ? std::vector<int>(tensors, 0) : report.max_exponents);
  Persist(job, PersistExponents{job.config.id, job.exponents});
  Record(job, "plan",
         absl::StrCat("first exponents, from a probe of unit 0",
                      report.non_finite ? ", which was not finite" : ""),
         event.from);
}

void Machine::OnWindowComputed(const WindowComputed& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  Job& job = *sender->job;
  WindowRun* run = FindRun(job, event.key);
  if (run == nullptr) return;
  if (run->sealed) return Drop("window is sealed");
  if (run->parts.count(event.from) == 0) return Drop("worker has no part in the window");
  const std::string wrong = run->CheckManifest(event.from, event.buckets);
  if (!wrong.empty())
    return ExpelWorker(event.from, absl::StrCat("its accumulator is not its leases: ", wrong), true);
  // Units leased to it since it wrote this are still to come, and another manifest with them.
  if (run->Finished(event.from))
    run->MarkComputed(event.from, event.parameter_hash, event.local_gradient_norm);
  // Parameter hashes may tell who is right, once everybody's is known.
  if (!run->audits.settled() && run->computed == static_cast<int64_t>(job.members.size())) run->audits.ReviewAll();
}

}  // namespace accrue::core
