#include "tests/sim/faults.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/sim/simulated_worker.h"
#include "tests/sim/simulator.h"

namespace accrue::core {

std::string FaultRates::Text() const {
  return absl::StrCat("a second: kills ", kills, ", losses ", losses, ", freezes ", freezes, ", leaves ", leaves,
                      ", joins ", joins, ", breaks ", breaks, ", drops ", drops, ", cuts ", cuts, ", splits ", splits,
                      ", crashes ", crashes, ", blackouts ", blackouts, ", pauses ", pauses, ", slows ", slows, ", flips ", flips, ", hangs ", hangs,
                      "; probabilities: failed checkpoints ", failed_checkpoints, ", repeats ", repeats, "; for ",
                      static_cast<double>(until_ns) * 1e-9, " s");
}

void Faults::Plan() {
  const SimulationConfig& config = simulator_.config();
  if (config.slow_down_at_ns > 0) {
    simulator_.At(config.slow_down_at_ns,
                  [this] { simulator_.Find(Incarnation(1))->SlowDown(simulator_.config().slow_down); });
  }
  const FaultRates& rates = simulator_.config().faults;
  const std::pair<Kind, double> kinds[] = {
      {Kind::kKill, rates.kills},   {Kind::kLose, rates.losses},     {Kind::kFreeze, rates.freezes},
      {Kind::kLeave, rates.leaves}, {Kind::kJoin, rates.joins},      {Kind::kBreak, rates.breaks},
      {Kind::kDrop, rates.drops},   {Kind::kCut, rates.cuts},        {Kind::kSplit, rates.splits},
      {Kind::kCrash, rates.crashes}, {Kind::kBlackout, rates.blackouts}, {Kind::kPause, rates.pauses},
      {Kind::kSlow, rates.slows},   {Kind::kFlip, rates.flips},     {Kind::kHang, rates.hangs}};
  for (const auto& [kind, rate] : kinds) {
    if (rate <= 0) continue;
    double time_s = 0;
    while (true) {
      time_s += -std::log(1 - simulator_.Uniform()) / rate;
      if (time_s * 1e9 > static_cast<double>(rates.until_ns)) break;
      simulator_.At(static_cast<int64_t>(time_s * 1e9), [this, kind = kind] { Strike(kind); });
    }
  }
}

int64_t Faults::Within(double least_s, double most_s) {
  const double time_s = least_s + (most_s - least_s) * simulator_.Uniform();
  const int64_t until_ns = simulator_.now_ns() + static_cast<int64_t>(time_s * 1e9);
  simulator_.QuietFrom(until_ns);
  return until_ns;
}

void Faults::Strike(Kind kind) {
  switch (kind) {
    case Kind::kJoin:
      return simulator_.StartWorker();
    case Kind::kBreak:
      return simulator_.collectives().BreakOne();
    case Kind::kSplit:
      return Split();
    case Kind::kCrash:
      return simulator_.CrashSoon();
    case Kind::kBlackout:
      return Blackout();
    case Kind::kPause:
      simulator_.Pause(true);
      return simulator_.At(Within(0.2, 0.6), [this] { simulator_.Pause(false); });
    default:
      break;
  }
  std::vector<SimulatedWorker*> candidates;
  for (Incarnation incarnation : simulator_.Living()) {
    SimulatedWorker* worker = simulator_.Find(incarnation);
    if (!worker->leaving) candidates.push_back(worker);
  }
  if (candidates.empty()) return;
  SimulatedWorker& victim = *candidates[simulator_.Random() % candidates.size()];
  simulator_.Trace(absl::StrCat("fault ", static_cast<int>(kind), " strikes worker ", victim.incarnation().value()));
  StrikeWorker(kind, victim);
}

void Faults::StrikeWorker(Kind kind, SimulatedWorker& victim) {
  const int64_t now_ns = simulator_.now_ns();
  switch (kind) {
    case Kind::kKill:
      return simulator_.End(victim, /*told=*/true);
    case Kind::kLose:
      return simulator_.End(victim, /*told=*/false);
    case Kind::kFreeze:
      simulator_.Cover("worker frozen");
      victim.frozen_until_ns = std::max(victim.frozen_until_ns, Within(0.1, 8));
      return;
    case Kind::kLeave:
      victim.leaving = true;
      if (victim.idle()) return simulator_.End(victim, /*told=*/true);
      return simulator_.network().FromWorker(victim, WorkerLeaving{victim.incarnation(), "SIGTERM"});
    case Kind::kSlow:
      victim.SlowDown(2 + 4 * simulator_.Uniform());
      return simulator_.AtWorker(Within(0, 2), victim.incarnation(), [&victim] { victim.SlowDown(1); });
    case Kind::kFlip:
      return victim.Flip();
    case Kind::kHang:  // until its own watchdog sees it, should nobody do so before
      return simulator_.Hang(victim, Within(6, 20));
    case Kind::kDrop:
      simulator_.Cover("stream broken");
      return simulator_.network().Drop(victim);
    case Kind::kCut: {
      simulator_.Cover("worker cut off");
      const int64_t until_ns = Within(0.05, 8);
      const double which = simulator_.Uniform();
      return simulator_.network().Cut(victim, which < 0.7 ? until_ns : now_ns, which > 0.3 ? until_ns : now_ns);
    }
    default:
      return;
  }
}

// Some workers do not reach the others, nor these them; all reach the coordinator.
void Faults::Split() {
  std::set<Incarnation> side;
  for (Incarnation incarnation : simulator_.Living()) {
    if (simulator_.Uniform() < 0.3) side.insert(incarnation);
  }
  simulator_.Cover("workers split");
  simulator_.collectives().Split(std::move(side), Within(0.05, 4));
}

// As when the power goes. Everything comes back, but for what was not on a disk.
void Faults::Blackout() {
  simulator_.Cover("everything lost at once");
  for (Incarnation incarnation : std::set(simulator_.Living())) {
    simulator_.End(*simulator_.Find(incarnation), /*told=*/false);
  }
  simulator_.CrashCoordinator();
}

}  // namespace accrue::core
