// The end of a process in which something stands still. Whoever supervises it starts it again.
#pragma once

#include <string>

namespace accrue {

// BSD's EX_TEMPFAIL: a supervisor starts what exits with this code again at once.
inline constexpr int kStandsStillExitCode = 75;

// Logs what stands still, and ends the process at once with kStandsStillExitCode: destructors would wait for the thread.
[[noreturn]] void EndProcess(const std::string& what);

}  // namespace accrue
