#include <algorithm>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/commands.h"
#include "client/format.h"
#include "client/job_client.h"
#include "common/help_formatter.h"
#include "common/option_checks.h"
#include "common/spec/hints.h"
#include "common/version.h"

namespace accrue {
namespace {

constexpr char kDescription[] =
    "Trains transformer language models on a changing set of workers, with the same weights bit for bit.\n"
    "\n"
    "  accrue run JOB.yaml --workers 2      train on this machine, in one command\n"
    "  accrue submit JOB.yaml               train on the workers of a coordinator (accrued)\n"
    "  accrue watch JOB                     look at it while it runs\n"
    "\n"
    "accrue COMMAND --help says what a command does, with an example.";

constexpr char kExitCodes[] =
    "Exit codes: 0 ok, 1 error, 2 usage, 3 invalid job file, 4 not found, 5 refused, 6 coordinator "
    "unreachable,\n"
    "10 the job failed, 11 the job was cancelled.";

// What is wrong with a coordinator's address; nothing when it can be one.
std::string CheckAddress(const std::string& address) {
  if (IsHostPort(address)) return "";
  return absl::StrCat("expected HOST:PORT, such as 127.0.0.1:7437, here or in ACCRUE_COORDINATOR; found \"",
                      Printable(address), "\"");
}

void RegisterVersionCommand(CLI::App& app, CommandContext& context) {
  CLI::App* const command = AddCommand(app, "version", "Print the version of this program.",
                                       "accrue version\naccrue version -o json", /*asks_coordinator=*/false);
  command->callback([&context] {
    if (context.json()) {
      *context.out << nlohmann::ordered_json{{"version", kVersion}}.dump() << "\n";
    } else {
      *context.out << "accrue " << kVersion << "\n";
    }
  });
}

// As people look for them.
void GroupCommands(CLI::App& app) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> groups = {
      {"Jobs", {"run", "validate", "submit", "list", "describe", "watch", "wait", "events", "pause", "resume", "cancel"}},
      {"Workers", {"workers", "worker"}},
      {"Results", {"checkpoint", "verify", "compare", "export", "sample"}},
      {"Data, and the rest", {"data", "version"}}};
  for (const auto& [group, names] : groups) {
    for (const std::string& name : names) app.get_subcommand(name)->group(group);
  }
}

// The innermost command that the line names.
const CLI::App& Innermost(const CLI::App& app) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  return *command;
}

// "accrue data prepare"
std::string FullName(const CLI::App& command) {
  const CLI::App* const parent = command.get_parent();
  return parent == nullptr ? command.get_name() : absl::StrCat(FullName(*parent), " ", command.get_name());
}

std::vector<std::string> CommandsOf(const CLI::App& group) {
  std::vector<std::string> names;
  for (const CLI::App* const command : group.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

// Those of the commands around it too, which may stand anywhere.
std::vector<std::string> OptionsOf(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* app = &command; app != nullptr; app = app->get_parent()) {
    for (const CLI::Option* const option : app->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  }
  return names;
}

// Where a group of commands is followed by a word that is none of them: a message with the nearest one, else nothing.
// CLI11 itself would say that something was not expected, or print the group's help and be content.
std::string UnknownCommand(const CLI::App& app) {
  const CLI::App& group = Innermost(app);
  const std::vector<std::string> names = CommandsOf(group), rest = app.remaining(/*recurse=*/true);
  if (names.empty() || rest.empty() || rest[0].empty() || rest[0][0] == '-') return "";
  return absl::StrCat("unknown command \"", Printable(rest[0]), "\"", spec::HintForUnknownWord(rest[0], names), "; ",
                      FullName(group), " --help lists the commands");
}

// "accrue help data prepare" as "accrue data prepare --help".
std::vector<std::string> Arguments(int argc, const char* const* argv) {
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (!arguments.empty() && arguments[0] == "help") {
    arguments.erase(arguments.begin());
    arguments.push_back("--help");
  }
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
  return arguments;
}

// The first word that no option or argument takes: an option with the nearest name that there is.
std::string Unexpected(const CLI::App& app, const CLI::App& command) {
  const std::vector<std::string> rest = app.remaining(/*recurse=*/true);
  for (const std::string& word : rest) {
    const std::string name = word.substr(0, word.find('='));
    if (name.size() < 2 || name[0] != '-') continue;
    const std::string hint = spec::HintForUnknownWord(name, OptionsOf(command));
    return absl::StrCat("unknown option \"", Printable(name), "\"", absl::StartsWith(hint, " (did") ? hint : "");
  }
  return absl::StrCat("unexpected argument \"", Printable(rest.empty() ? "" : rest.front()), "\"");
}

// What is wrong with the line, in one sentence, and where to read on.
std::string UsageError(const CLI::App& app, const CLI::ParseError& error) {
  if (const std::string unknown = UnknownCommand(app); !unknown.empty()) return unknown;
  const CLI::App& command = Innermost(app);
  const std::vector<std::string> names = CommandsOf(command);
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    return absl::StrCat(Unexpected(app, command), "; ", FullName(command), " --help says what is expected");
  }
  if (!names.empty() && dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    return absl::StrCat(FullName(command), ": expected a command: ", absl::StrJoin(names, ", "), "; ", FullName(command),
                        " --help says what they do");
  }
  return absl::StrCat(Printable(error.what()), "; ", FullName(command), " --help says what is expected");
}

}  // namespace

CLI::App* AddCommand(CLI::App& parent, const std::string& name, const std::string& description,
                     const std::string& examples, bool asks_coordinator) {
  CLI::App* const command = parent.add_subcommand(name, description);
  command->group("Commands");
  command->fallthrough();  // so that -o and --coordinator may stand anywhere
  if (examples.empty()) return command;
  std::string footer = "Example:\n";
  for (const absl::string_view line : absl::StrSplit(examples, '\n'))
    absl::StrAppend(&footer, "  ", line, "\n");
  absl::StrAppend(&footer, "\n-o json prints JSON for programs",
                  asks_coordinator ? "; --coordinator HOST:PORT names the coordinator." : ".");
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
  app.set_help_flag("-h,--help", "Print this help");
  app.formatter(std::make_shared<HelpFormatter>());
  app.footer(kExitCodes);
  app.require_subcommand(0, 1);
  app.add_option("--coordinator", context.coordinator, "The coordinator's address, HOST:PORT")
      ->envname("ACCRUE_COORDINATOR")
      ->type_name("HOST:PORT")
      ->check(CheckAddress, "")
      ->capture_default_str();
  app.add_option("-o,--output-format", context.output_format, "text, or json for programs")
      ->check(CLI::IsMember({"text", "json"}))
      ->type_name("FORMAT")
      ->capture_default_str();

  RegisterRunCommand(app, context);
  RegisterSpecCommands(app, context);
  RegisterWatchCommands(app, context);
  RegisterEventsCommand(app, context);
  RegisterJobCommands(app, context);
  RegisterWorkerCommands(app, context);
  RegisterModelCommands(app, context);
  RegisterCompareCommands(app, context);
  RegisterDataCommands(app, context);
  RegisterVersionCommand(app, context);

  GroupCommands(app);

  // Last, so that the commands do not inherit it.
  app.set_help_all_flag("--help-all", "Print the help of every command");
  app.set_version_flag("--version", absl::StrCat("accrue ", kVersion), "Print the version");

  try {
    app.parse(Arguments(argc, argv));
    if (!app.get_subcommands().empty()) return context.exit_code;
    *context.err << app.help();
    return kExitUsage;
  } catch (const CLI::Success& success) {  // --help, --help-all
    if (const std::string unknown = UnknownCommand(app); !unknown.empty()) {
      context.Fail(kExitUsage, unknown);
      return kExitUsage;
    }
    app.exit(success, *context.out, *context.err);
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    context.Fail(kExitUsage, UsageError(app, error));
    return kExitUsage;
  }
}

}  // namespace accrue
