#include "common/config.h"

#include <yaml-cpp/yaml.h>

#include <iostream>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "common/help_formatter.h"
#include "common/log.h"
#include "common/version.h"

namespace accrue {
namespace {

// Reads the YAML file for CLI11, which takes errors as exceptions: they end in DaemonOptions::Parse.
class YamlConfig : public CLI::Config {
 public:
  YamlConfig(const CLI::App& app, const std::string& path) : app_(app), path_(path) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> items;
    YAML::Node root;
    try {
      root = YAML::Load(input);
    } catch (const YAML::Exception& error) {
      Fail(error.mark, error.msg);
    }
    if (root.IsNull()) return items;
    if (!root.IsMap()) Fail(root.Mark(), "expected options as \"name: value\"");
    std::set<std::string> seen;
    for (const auto& entry : root) {
      if (!entry.first.IsScalar()) Fail(entry.first.Mark(), "expected an option's name");
      CLI::ConfigItem item;
      item.name = entry.first.Scalar();
      CheckName(entry.first, item.name);
      if (!seen.insert(item.name).second) Fail(entry.first.Mark(), "option \"" + item.name + "\" is given twice");
      if (entry.second.IsScalar()) {
        item.inputs.push_back(entry.second.Scalar());
      } else if (entry.second.IsSequence()) {
        for (const auto& value : entry.second) {
          if (!value.IsScalar()) Fail(value.Mark(), "expected a plain value in the list of \"" + item.name + "\"");
          item.inputs.push_back(value.Scalar());
        }
      } else {
        Fail(entry.second.Mark(), "expected a value or a list of values for \"" + item.name + "\"");
      }
      items.push_back(std::move(item));
    }
    return items;
  }

  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return ""; }

 private:
  [[noreturn]] void Fail(const YAML::Mark& mark, const std::string& what) const {
    const std::string place =
        mark.is_null() ? path_ : path_ + ":" + std::to_string(mark.line + 1) + ":" + std::to_string(mark.column + 1);
    throw CLI::ConfigError(place + ": " + what, CLI::ExitCodes::ConfigError);
  }

  void CheckName(const YAML::Node& node, const std::string& name) const {
    std::string known;
    for (const CLI::Option* option : app_.get_options()) {
      for (const std::string& long_name : option->get_lnames()) {
        if (long_name == "help" || long_name == "version" || long_name == "config") continue;
        if (long_name == name) return;
        known += (known.empty() ? "" : ", ") + long_name;
      }
    }
    Fail(node.Mark(), "unknown option \"" + name + "\"; expected one of " + known);
  }

  const CLI::App& app_;
  const std::string& path_;  // set by the time that the file is read
};

}  // namespace

DaemonOptions::DaemonOptions(const std::string& name, const std::string& description) : app_(description, name) {
  app_.formatter(std::make_shared<HelpFormatter>());
  app_.set_help_flag("-h,--help", "Print this help");
  app_.set_version_flag("--version", std::string(name) + " " + kVersion, "Print the version");
  // CLI11 gives the reader a stream only; errors want the file's name.
  app_.set_config("--config", "", "YAML file with any of these options")->type_name("FILE")->each([this](const std::string& path) {
    config_path_ = path;
  });
  app_.config_formatter(std::make_shared<YamlConfig>(app_, config_path_));
  app_.add_option("--log-level", log_level_, "What to log: debug, info, warning or error")
      ->type_name("LEVEL")
      ->capture_default_str();
  app_.add_option("--log-format", log_format_, "text, or json: one object a line")
      ->type_name("FORMAT")
      ->capture_default_str();
}

std::optional<int> DaemonOptions::Parse(int argc, const char* const* argv) {
  try {
    app_.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app_.exit(success);  // --help, --version: printed on standard output
  } catch (const CLI::ParseError& error) {
    const std::vector<std::string> rest = app_.remaining();
    const bool extra = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && !rest.empty();
    std::cerr << app_.get_name() << ": "
              << (extra ? "unknown option or argument \"" + rest.front() + "\"" : std::string(error.what())) << "\nRun \""
              << app_.get_name() << " --help\" for its options.\n";
    return kUsageExitCode;
  }
  const absl::StatusOr<LogLevel> level = ParseLogLevel(log_level_);
  const absl::StatusOr<LogFormat> format = ParseLogFormat(log_format_);
  for (const absl::Status& status : {level.status(), format.status()}) {
    if (status.ok()) continue;
    std::cerr << app_.get_name() << ": " << status.message() << "\n";
    return kUsageExitCode;
  }
  SetUpLogging(*level, *format);
  return std::nullopt;
}

}  // namespace accrue
