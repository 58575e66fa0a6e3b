#pragma once

namespace accrue {

// Of the whole product; workers and coordinator must agree on it.
inline constexpr char kVersion[] = "0.1.0";

// Raised whenever a kernel's bits change. Part of the numeric class.
inline constexpr int kKernelRevision = 4;

}  // namespace accrue
