// Following a job on behalf of a command.
#pragma once

#include <cstdint>
#include <string>

#include "client/checkpoint_poller.h"
#include "client/commands.h"
#include "client/job_client.h"
#include "client/presenter.h"

namespace accrue {

struct WatchOptions {
  int64_t first_window = 0;
  int64_t every = 0;  // as Presenter::Options
};

// Shows the job until it ends, or until Ctrl-C, which leaves it running. Sets the exit code to the job's
// outcome.
void WatchJob(CommandContext& context, JobClient& client, const std::string& job,
              const WatchOptions& options);

// kExitOk, kExitJobFailed or kExitJobCancelled of a job that has ended.
ExitCode OutcomeOf(const v1::JobStatus& status);

// One line about a job that has ended.
std::string EndLine(const v1::JobStatus& status);

// Live on a terminal, else plain, on `out`; JSON lines when the context asks for them.
Presenter::Options PresenterOptions(const CommandContext& context, int64_t every);

}  // namespace accrue
