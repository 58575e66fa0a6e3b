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
  for (Incarnation member : collective.members) all_alive &= simulator_.Find(member) != nullptr;
  if (all_alive) return;
  Stop(collective);
  Fail(name, worker.incarnation(), kBrokenNs, "a peer is gone");
}

void SimulatedCollectives::Fail(const std::string& name, Incarnation worker, int64_t delay_ns,
                                const std::string& reason) {
  simulator_.At(simulator_.now_ns() + delay_ns, [this, name, worker, reason] {
    if (SimulatedWorker* left = simulator_.Find(worker)) left->CollectiveFailed(name, reason);
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
    simulator_.At(simulator_.now_ns() + time_ns, [this, name, member, state] {
      Collective& on_the_way = collectives_[name];
      SimulatedWorker* worker = simulator_.Find(member);
      if (worker == nullptr || on_the_way.broken) return;
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

void SimulatedCollectives::BeginReduce(const std::string& name) {
  Collective& collective = collectives_[name];
  SimulatedUnits open;
  for (Incarnation member : collective.members) {
    const SimulatedUnits& units = simulator_.Find(member)->accumulator();
    open.insert(open.end(), units.begin(), units.end());
  }
  std::sort(open.begin(), open.end());
  for (int64_t bucket = 0; bucket < kSimulatedBuckets; ++bucket) {
    collective.sums.push_back(SumOf(collective, bucket, open));
  }
  for (Incarnation member : collective.members) {
    const double time_ns = static_cast<double>(kReduceNs) * (1 + simulator_.Uniform()) / kSimulatedBuckets;
    for (int64_t bucket = 0; bucket < kSimulatedBuckets; ++bucket) {
      const auto at_ns = simulator_.now_ns() + static_cast<int64_t>(time_ns * static_cast<double>(bucket + 1));
      simulator_.At(at_ns, [this, name, member, bucket] {
        Collective& on_the_way = collectives_[name];
        SimulatedWorker* worker = simulator_.Find(member);
        if (worker == nullptr || bucket >= on_the_way.limit) return;
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
