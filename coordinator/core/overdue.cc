// Leases have a time-out. A worker that is heard and does not get on, because its computation stands still, loses them
// with its place in the job. Its own watchdog (accrue-worker --stall-timeout) sees that sooner, and ends its process;
// this is for the one that does not.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

constexpr int64_t kLookNs = 1'000'000'000;
// For a worker of which no unit was measured: its first one may have programs to build. As worker/core/stall_watch.h.
constexpr int64_t kFirstUnitFactor = 20;

}  // namespace

// Beyond what any unit of its takes.
int64_t Machine::LeaseTimeoutNs(const Worker& worker) const {
  if (worker.unit_ns <= 0) return kFirstUnitFactor * options_.lease_timeout_least_ns;
  const auto units_ns = static_cast<int64_t>(options_.lease_timeout_units * worker.unit_ns);
  return std::max(options_.lease_timeout_least_ns, units_ns);
}

// Of the window that all wait for: who holds units of it, or was asked for audits, or owes its manifest. What a worker
// is about besides, a copy of the state or a checkpoint's shard, does not count.
void Machine::ExpelOverdue(Job& job) {
  if (now_ns_ < job.leases_looked_at_ns + kLookNs) return;
  job.leases_looked_at_ns = now_ns_;
  if (!job.current || job.current->sealed || job.current->begun_at_ns < 0) return;
  WindowRun& run = *job.current;
  std::set<Incarnation> auditors;
  for (const auto& [unit, audit] : run.audits.all()) auditors.insert(audit.asked.begin(), audit.asked.end());
  std::vector<std::pair<Incarnation, std::string>> overdue;
  for (Incarnation member : job.members) {
    Part& part = run.parts.at(member);
    const bool awaited = !part.computed || auditors.count(member) > 0;
    if (!awaited || job.sync || OwesShard(job, member)) part.active_ns = now_ns_;
    const int64_t still_ns = now_ns_ - std::max({run.begun_at_ns, part.active_ns, awake_since_ns_});
    if (still_ns <= LeaseTimeoutNs(workers_.at(member))) continue;
    overdue.emplace_back(member, absl::StrCat("it is heard, but for ", still_ns / 1'000'000'000,
                                              " s nothing came of its part in window ", run.number,
                                              ": its leases are over"));
  }
  for (const auto& [member, reason] : overdue) {
    if (job.current) ExpelWorker(member, reason, /*rejoin=*/true);
  }
}

}  // namespace accrue::core
