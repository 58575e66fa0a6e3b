#include "coordinator/core/apportion.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>
#include <utility>

#include "common/check.h"

namespace accrue::core {

std::vector<double> UnitTimes(const std::vector<Load>& loads) {
  double sum = 0;
  int64_t measured = 0;
  for (const Load& load : loads) {
    if (load.unit_ns <= 0) continue;
    sum += load.unit_ns;
    ++measured;
  }
  const double mean = measured > 0 ? sum / static_cast<double>(measured) : 1.0;
  std::vector<double> times;
  times.reserve(loads.size());
  for (const Load& load : loads) times.push_back(load.unit_ns > 0 ? load.unit_ns : mean);
  return times;
}

namespace {

constexpr int kMaxHalvings = 60;

double FinishNs(const Load& load, double unit_ns, int64_t count) {
  return static_cast<double>(load.pending + count) * unit_ns - load.ahead_ns;
}

// Gives each what it can finish within the time beyond what it has to do before; returns how much that is.
int64_t GiveWithin(double time_ns, const std::vector<double>& times, const std::vector<Load>& loads,
                   std::vector<int64_t>& counts) {
  int64_t given = 0;
  for (size_t i = 0; i < times.size(); ++i) {
    // A hair less, so that rounding never gives more units than there are.
    const auto within = static_cast<int64_t>((time_ns + loads[i].ahead_ns) / times[i] * (1 - 1e-12));
    counts[i] = std::max<int64_t>(within - loads[i].pending, 0);
    given += counts[i];
  }
  return given;
}

}  // namespace

double IdealNs(int64_t units, const std::vector<Load>& loads) {
  const std::vector<double> times = UnitTimes(loads);
  double work = static_cast<double>(units), speed = 0;
  for (size_t i = 0; i < times.size(); ++i) {
    work += static_cast<double>(loads[i].pending) - loads[i].ahead_ns / times[i];
    speed += 1 / times[i];
  }
  return work / speed;
}

std::vector<int64_t> Apportion(int64_t units, const std::vector<Load>& loads) {
  ACCRUE_CHECK(!loads.empty() && units >= 0);
  const std::vector<double> times = UnitTimes(loads);
  std::vector<int64_t> counts(loads.size(), 0);
  // Giving each unit in turn to the worker that would finish it first is optimal. Whatever finishes within some time is
  // given by that rule before anything else, so it can be given at once: up to the longest time found within which
  // that is not too much.
  int64_t pending = 0;
  double speed = 0;
  for (size_t i = 0; i < times.size(); ++i) {
    pending += loads[i].pending;
    speed += 1 / times[i];
  }
  double high = static_cast<double>(units + pending) / speed, low = 0;
  int64_t given = GiveWithin(high, times, loads, counts);
  if (given > units) {
    for (int halving = 0; halving < kMaxHalvings; ++halving) {
      const double middle = (low + high) / 2;
      given = GiveWithin(middle, times, loads, counts);
      (given > units ? high : low) = middle;
      if (given <= units && units - given <= static_cast<int64_t>(times.size())) break;
    }
    given = GiveWithin(low, times, loads, counts);
  }
  int64_t left = units - given;

  using Finish = std::pair<double, size_t>;
  std::priority_queue<Finish, std::vector<Finish>, std::greater<>> next;
  const auto finish_of_next = [&](size_t i) { return FinishNs(loads[i], times[i], counts[i] + 1); };
  for (size_t i = 0; i < times.size(); ++i) next.emplace(finish_of_next(i), i);
  for (; left > 0; --left) {
    const size_t i = next.top().second;
    next.pop();
    ++counts[i];
    next.emplace(finish_of_next(i), i);
  }
  return counts;
}

double MakespanNs(const std::vector<Load>& loads, const std::vector<int64_t>& counts) {
  ACCRUE_CHECK(loads.size() == counts.size());
  const std::vector<double> times = UnitTimes(loads);
  double makespan = 0;
  for (size_t i = 0; i < loads.size(); ++i) {
    makespan = std::max(makespan, FinishNs(loads[i], times[i], counts[i]));
  }
  return makespan;
}

std::vector<int64_t> ApportionSteadily(int64_t units, const std::vector<Load>& loads,
                                       const std::vector<int64_t>& previous, double threshold) {
  std::vector<int64_t> best = Apportion(units, loads);
  if (previous.empty()) return best;
  return MakespanNs(loads, previous) * (1 - threshold) <= MakespanNs(loads, best) ? previous : best;
}

}  // namespace accrue::core
