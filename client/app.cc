#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/commands.h"
#include "client/format.h"
#include "client/help_formatter.h"
#include "client/job_client.h"
#include "common/spec/hints.h"
#include "common/version.h"

namespace accrue {
namespace {

constexpr char kDescription[] =
    "Trains transformer language models on a changing set of workers, with the same weights bit for bit.\n"
    "\n"
    "  accrue run JOB.yaml --workers 2      train on this machine, in one command\n"
    "  accrue submit JOB.yaml               train on the workers of a coordinator (accrued)\n"
    "  accrue watch JOB                     look at it while it runs";

constexpr char kExitCodes[] =
    "Exit codes: 0 ok, 1 error, 2 usage, 3 invalid job file, 4 not found, 5 refused, 6 coordinator "
    "unreachable,\n"
    "10 the job failed, 11 the job was cancelled.";

void RegisterVersionCommand(CLI::App& app, CommandContext& context) {
  CLI::App* const command = AddCommand(app, "version", "Print the version of this program.",
                                       "accrue version\naccrue version -o json");
  command->callback([&context] {
    if (context.json()) {
      *context.out << nlohmann::ordered_json{{"version", kVersion}}.dump() << "\n";
    } else {
      *context.out << "accrue " << kVersion << "\n";
    }
  });
}

// What CLI11 would say is that something was not expected; a mistyped command deserves the nearest one.
std::string UnknownCommand(const CLI::App& app, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::App* const command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return absl::StrCat("unknown command \"", Printable(word), "\"", spec::HintForUnknownWord(word, names),
                      "; accrue --help lists the commands");
}

}  // namespace

CLI::App* AddCommand(CLI::App& parent, const std::string& name, const std::string& description,
                     const std::string& examples) {
  CLI::App* const command = parent.add_subcommand(name, description);
  command->fallthrough();  // so that -o and --coordinator may stand anywhere
  if (examples.empty()) return command;
  std::string footer = "Example:\n";
  for (const absl::string_view line : absl::StrSplit(examples, '\n'))
    absl::StrAppend(&footer, "  ", line, "\n");
  absl::StrAppend(&footer, "\nEvery command takes --coordinator HOST:PORT, and -o json for programs.");
  command->footer(footer);
  return command;
}

void CommandContext::Fail(const absl::Status& status) {
  const absl::string_view message = status.message();
  Fail(ExitCodeOf(status), message.empty() ? absl::StatusCodeToString(status.code()) : std::string(message));
}

void CommandContext::Fail(ExitCode code, absl::string_view message) {
  *err << "accrue: " << message << std::endl;
  exit_code = code;
}

void CommandContext::Warn(absl::string_view message) { *err << "accrue: warning: " << message << std::endl; }

std::unique_ptr<JobClient> CommandContext::Connect() const { return JobClient::Create(coordinator); }

int RunClient(int argc, const char* const* argv, CommandContext& context) {
  CLI::App app(kDescription, "accrue");
  app.formatter(std::make_shared<HelpFormatter>());
  app.footer(kExitCodes);
  app.require_subcommand(0, 1);
  app.add_option("--coordinator", context.coordinator, "The coordinator's address, HOST:PORT")
      ->envname("ACCRUE_COORDINATOR")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_option("-o,--output-format", context.output_format, "text, or json for programs")
      ->check(CLI::IsMember({"text", "json"}))
      ->type_name("FORMAT")
      ->capture_default_str();

  RegisterRunCommand(app, context);
  RegisterSpecCommands(app, context);
  RegisterWatchCommands(app, context);
  RegisterJobCommands(app, context);
  RegisterModelCommands(app, context);
  RegisterDataCommands(app, context);
  RegisterVersionCommand(app, context);

  // Last, so that the commands do not inherit it.
  app.set_help_all_flag("--help-all", "Print the help of every command");

  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) {
      *context.err << app.help();
      return kExitUsage;
    }
  } catch (const CLI::ExtrasError& error) {
    const std::vector<std::string> rest = app.remaining();
    if (app.get_subcommands().empty() && !rest.empty() && rest[0][0] != '-') {
      context.Fail(kExitUsage, UnknownCommand(app, rest[0]));
    } else {
      context.Fail(kExitUsage, absl::StrCat(error.what(), " (--help says what is)"));
    }
    return kExitUsage;
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error, *context.out, *context.err);
    return code == 0 ? kExitOk : kExitUsage;
  }
  return context.exit_code;
}

}  // namespace accrue
