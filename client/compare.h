// Two runs compared on behalf of a command.
#pragma once

#include <string>

#include "client/commands.h"

namespace accrue {

// verify A B: the digests of every window that both runs have. Sets the exit code: kExitOk when all are equal and
// there is at least one.
void VerifyRuns(CommandContext& context, const std::string& source_a, const std::string& source_b);

}  // namespace accrue
