// The commands of `accrue`: each Register function adds some to the application. A command's callback does
// the work, prints through the context and leaves its exit code there; nothing is thrown and nothing exits
// the process.
//
// Not thread-safe: one thread runs one command.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "client/exit_codes.h"
#include "client/terminal.h"
#include "common/clock.h"
#include "common/file_system.h"

namespace accrue {

class JobClient;

struct CommandContext {
  // Where results go, and where errors, warnings and hints go. Owned by the caller.
  std::ostream* out = nullptr;
  std::ostream* err = nullptr;
  Terminal out_terminal;
  Terminal err_terminal;
  const Clock* clock = &Clock::Real();
  FileSystem* file_system = &FileSystem::Real();
  // Where accrued and accrue-worker lie.
  std::string binary_directory;

  // Options of every command.
  std::string coordinator = "127.0.0.1:7437";
  std::string output_format = "text";

  // Of the command that ran.
  int exit_code = kExitOk;

  bool json() const { return output_format == "json"; }
  // Prints "accrue: message" to err and sets the exit code to that of the status, or to `code`.
  void Fail(const absl::Status& status);
  void Fail(ExitCode code, absl::string_view message);
  void Warn(absl::string_view message);
  // A client of --coordinator.
  std::unique_ptr<JobClient> Connect() const;
};

// The subcommand with its help: what it does in a sentence, and an example or two.
CLI::App* AddCommand(CLI::App& parent, const std::string& name, const std::string& description,
                     const std::string& examples, bool asks_coordinator = true);

void RegisterSpecCommands(CLI::App& app, CommandContext& context);  // submit, validate
void RegisterJobCommands(CLI::App& app,
                         CommandContext& context);  // list, describe, cancel, pause, resume, ...
void RegisterWorkerCommands(CLI::App& app, CommandContext& context);  // workers, worker drain
void RegisterWatchCommands(CLI::App& app, CommandContext& context);   // watch, wait
void RegisterEventsCommand(CLI::App& app, CommandContext& context);   // events
void RegisterRunCommand(CLI::App& app, CommandContext& context);     // run
void RegisterDataCommands(CLI::App& app, CommandContext& context);   // data
void RegisterModelCommands(CLI::App& app, CommandContext& context);  // export, verify, sample
void RegisterCompareCommands(CLI::App& app, CommandContext& context);  // compare

// The whole program: parses, runs one command, returns the exit code.
int RunClient(int argc, const char* const* argv, CommandContext& context);

}  // namespace accrue
