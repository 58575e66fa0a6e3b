// How many of a window's units each worker gets. Pure functions, deterministic; ties go to the earlier
// worker.
#pragma once

#include <cstdint>
#include <vector>

namespace accrue::core {

struct Load {
  double unit_ns = 0;   // measured time of a unit; 0: not measured, taken as the mean of those that are
  int64_t pending = 0;  // units that the worker has to do before,
  double ahead_ns = 0;  // and what it has done of the first of these
};

// One time a worker; who was not measured is taken to be as fast as the mean of the others.
std::vector<double> UnitTimes(const std::vector<Load>& loads);

// Counts that add up to `units` and make the last worker finish earliest. O(n log n). Requires a worker.
std::vector<int64_t> Apportion(int64_t units, const std::vector<Load>& loads);

// The time for `units` and what is pending if all could be cut and moved at will: no split is done sooner.
double IdealNs(int64_t units, const std::vector<Load>& loads);

// When the last worker is done.
double MakespanNs(const std::vector<Load>& loads, const std::vector<int64_t>& counts);

// `previous` as long as a new split would gain less than `threshold` of its makespan (measured times jitter,
// and data is fetched ahead for the shares as they are); else the new split. Requires that `previous` is
// empty or as long as `loads` and adds up to `units`.
std::vector<int64_t> ApportionSteadily(int64_t units, const std::vector<Load>& loads,
                                       const std::vector<int64_t>& previous, double threshold);

}  // namespace accrue::core
