#include "common/end_process.h"

#include <unistd.h>

#include "common/log.h"

namespace accrue {

void EndProcess(const std::string& what) {
  LogError("something stands still: this process ends, to be started again",
           {{"operation", what}, {"exit_code", kStandsStillExitCode}});
  _exit(kStandsStillExitCode);
}

}  // namespace accrue
