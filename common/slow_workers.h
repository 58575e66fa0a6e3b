// When a worker is called slow: one number for the client, its live view and the status page.
#pragma once

namespace accrue {

// From so many times the median of its job's unit times on.
inline constexpr double kSlowFactor = 1.5;

}  // namespace accrue
