#include "tests/sim/simulated_collective.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/philox.h"
#include "tests/sim/simulated_worker.h"
#include "tests/sim/simulator.h"

namespace accrue::core {
namespace {

// Time of the collective's work, and until a peer's death shows in it.
constexpr int64_t kReduceNs = 5'000'000, kSyncNs = 40'000'000, kBrokenNs = 30'000'000;
constexpr int64_t kNoProgressNs = 600'000'000;  // until peers that cannot be reached are given up

}  // namespace

uint64_t SimulatedGradient(uint64_t gradient, int64_t bucket) {
  return SplitMix64(gradient + static_cast<uint64_t>(bucket));
}

void SimulatedCollectives::JoinSync(const std::string& name, SimulatedWorker& worker, const StateSync& sync) {
  Collective& collective = collectives_[name];
  collective.members = sync.members;
  collective.source = sync.source;
  Join(name, worker);
  if (!collective.broken && collective.arrived.size() == collective.members.size()) CompleteSync(name);
}

void SimulatedCollectives::JoinReduce(const std::string& name, SimulatedWorker& worker, const Seal& seal) {
  Collective& collective = collectives_[name];
  collective.members = seal.members;
  collective.final_buckets = seal.final_buckets;
  if (collective.final_buckets.empty()) collective.final_buckets.assign(seal.members.size(), 0);
  const auto rank = std::find(seal.members.begin(), seal.members.end(), worker.incarnation()) - seal.members.begin();
  const int64_t said = collective.final_buckets[static_cast<size_t>(rank)];
  if (said != static_cast<int64_t>(worker.final_sums().size())) {
    simulator_.Violation(absl::StrCat("a seal says that worker ", worker.incarnation().value(), " has ", said,
                                      " final buckets, it has ", worker.final_sums().size()));
    return;
  }
  Join(name, worker);
  if (!collective.broken && collective.arrived.size() == collective.members.size()) BeginReduce(name);
}

void SimulatedCollectives::Join(const std::string& name, SimulatedWorker& worker) {
  Collective& collective = collectives_[name];
  collective.arrived.insert(worker.incarnation());
  bool all_alive = !collective.broken;
  if (collective.arrived.size() == 1) {  // who dies after that breaks it
    for (Incarnation member : collective.members) all_alive &= simulator_.Find(member) != nullptr;
  }
  if (!all_alive && !collective.split) {
    Stop(collective);
    return Fail(name, worker.incarnation(), kBrokenNs, "a peer is gone");
  }
  if (simulator_.now_ns() < split_until_ns_) {
    for (Incarnation member : collective.members) collective.split |= Apart(worker.incarnation(), member);
  }
  if (!collective.split) return;
  Stop(collective);
  FailBySplit(name, worker.incarnation());
}

bool SimulatedCollectives::Apart(Incarnation a, Incarnation b) const {
  return simulator_.now_ns() < split_until_ns_ && side_.count(a) != side_.count(b);
}

// Nobody closes a connection: it shows by the time that passes.
void SimulatedCollectives::FailBySplit(const std::string& name, Incarnation worker) {
  std::vector<Incarnation> unreachable;
  for (Incarnation member : collectives_[name].members) {
    if (Apart(worker, member)) unreachable.push_back(member);
  }
  const auto after_ns = static_cast<int64_t>(static_cast<double>(kNoProgressNs) * (0.5 + simulator_.Uniform()));
  Fail(name, worker, after_ns, "peers cannot be reached", std::move(unreachable));
}

void SimulatedCollectives::Split(std::set<Incarnation> side, int64_t until_ns) {
  side_ = std::move(side);
  split_until_ns_ = until_ns;
  for (auto& [name, collective] : collectives_) {
    if (collective.broken || collective.finished.size() == collective.members.size()) continue;
    for (Incarnation member : collective.members) collective.split |= Apart(member, collective.members[0]);
    if (!collective.split) continue;
    Stop(collective);
    for (Incarnation worker : collective.arrived) {
      if (collective.finished.count(worker) == 0) FailBySplit(name, worker);
    }
  }
}

void SimulatedCollectives::Fail(const std::string& name, Incarnation worker, int64_t delay_ns,
                                const std::string& reason, std::vector<Incarnation> unreachable) {
  simulator_.AtWorker(simulator_.now_ns() + delay_ns, worker, [this, name, worker, reason, unreachable] {
    simulator_.Find(worker)->CollectiveFailed(name, reason, unreachable);
  });
}

void SimulatedCollectives::Stop(Collective& collective) {
  if (collective.broken) return;
  collective.broken = true;
  const int64_t left = kSimulatedBuckets - collective.most_done;
  const bool begun = !collective.sums.empty();
  collective.limit =
      begun ? collective.most_done + static_cast<int64_t>(simulator_.Random() % static_cast<uint64_t>(left + 1)) : 0;
}

void SimulatedCollectives::CompleteSync(const std::string& name) {
  const Collective& collective = collectives_[name];
  const SimulatedState state = simulator_.Find(*collective.source)->state();
  for (Incarnation member : collective.members) {
    const auto time_ns = static_cast<int64_t>(static_cast<double>(kSyncNs) * (1 + simulator_.Uniform()));
    simulator_.AtWorker(simulator_.now_ns() + time_ns, member, [this, name, member, state] {
      Collective& on_the_way = collectives_[name];
      SimulatedWorker* worker = simulator_.Find(member);
      if (on_the_way.broken) return;
      on_the_way.finished.insert(member);
      worker->SyncDone(name, state);
    });
  }
}

// From the first member that holds it final; else everything that the members hold.
SimulatedSum SimulatedCollectives::SumOf(const Collective& collective, int64_t bucket,
                                         const SimulatedUnits& open) const {
  for (size_t rank = 0; rank < collective.members.size(); ++rank) {
    if (collective.final_buckets[rank] <= bucket) continue;
    return simulator_.Find(collective.members[rank])->final_sums()[static_cast<size_t>(bucket)];
  }
  SimulatedSum sum;
  sum.units = std::make_shared<const SimulatedUnits>(open);
  for (const auto& [unit, gradient] : open) {
    const uint64_t part = SimulatedGradient(gradient, bucket);
    sum.checksum += part;
    sum.hash = SplitMix64(sum.hash ^ SplitMix64(part + static_cast<uint64_t>(unit)));
  }
  return sum;
}

// Each unit of the window exactly once, in every bucket that is reduced.
void SimulatedCollectives::CheckCover(const Collective& collective, const SimulatedUnits& open) const {
  const auto most = std::max_element(collective.final_buckets.begin(), collective.final_buckets.end());
  if (*most == kSimulatedBuckets) return;  // none is
  std::vector<int> times(static_cast<size_t>(simulator_.config().job.units_per_window), 0);
  for (const auto& [unit, gradient] : open) ++times[static_cast<size_t>(unit)];
  for (size_t unit = 0; unit < times.size(); ++unit) {
    if (times[unit] == 1) continue;
    simulator_.Violation(absl::StrCat("unit ", unit, " is reduced ", times[unit], " times"));
  }
}

void SimulatedCollectives::BeginReduce(const std::string& name) {
  Collective& collective = collectives_[name];
  SimulatedUnits open;
  for (Incarnation member : collective.members) {
    const SimulatedUnits& units = simulator_.Find(member)->accumulator();
    open.insert(open.end(), units.begin(), units.end());
  }
  std::sort(open.begin(), open.end());
  CheckCover(collective, open);
  for (int64_t bucket = 0; bucket < kSimulatedBuckets; ++bucket) {
    collective.sums.push_back(SumOf(collective, bucket, open));
  }
  for (Incarnation member : collective.members) {
    const double time_ns = static_cast<double>(kReduceNs) * (1 + simulator_.Uniform()) / kSimulatedBuckets;
    for (int64_t bucket = 0; bucket < kSimulatedBuckets; ++bucket) {
      const auto at_ns = simulator_.now_ns() + static_cast<int64_t>(time_ns * static_cast<double>(bucket + 1));
      simulator_.AtWorker(at_ns, member, [this, name, member, bucket] {
        Collective& on_the_way = collectives_[name];
        SimulatedWorker* worker = simulator_.Find(member);
        if (bucket >= on_the_way.limit) return;
        on_the_way.most_done = std::max(on_the_way.most_done, bucket + 1);
        if (bucket + 1 == kSimulatedBuckets) on_the_way.finished.insert(member);
        worker->BucketDone(name, bucket, on_the_way.sums[static_cast<size_t>(bucket)]);
      });
    }
  }
}

void SimulatedCollectives::GiveUp(const std::string& communicator) {
  for (auto& [name, collective] : collectives_) {
    if (name == communicator || name.rfind(communicator + "#", 0) == 0) Stop(collective);
  }
}

void SimulatedCollectives::Break(Incarnation dead) {
  for (auto& [name, collective] : collectives_) {
    const bool member = std::count(collective.members.begin(), collective.members.end(), dead) > 0;
    if (!member || collective.finished.size() == collective.members.size()) continue;
    Stop(collective);
    for (Incarnation other : collective.arrived) {
      if (other == dead || collective.finished.count(other) > 0 || simulator_.Uniform() < 0.3) continue;
      Fail(name, other, static_cast<int64_t>(simulator_.Uniform() * static_cast<double>(kBrokenNs)), "a peer is gone");
    }
  }
}

void SimulatedCollectives::BreakOne() {
  for (auto& [name, collective] : collectives_) {
    if (collective.broken || collective.arrived.size() == collective.finished.size()) continue;
    Stop(collective);
    for (Incarnation other : collective.arrived) {
      if (collective.finished.count(other) > 0) continue;
      return Fail(name, other, kBrokenNs, "the network broke");
    }
  }
}

}  // namespace accrue::core
