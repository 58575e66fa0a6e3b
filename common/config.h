// A daemon's options: command-line flags, and a YAML file (--config FILE) with the same names. A flag beats the file.
//
//   DaemonOptions options("accrued", "Coordinates ...");
//   std::string listen = "127.0.0.1:7437";
//   options.app().add_option("--listen", listen, "Address for gRPC")->capture_default_str();
//   if (std::optional<int> exit_code = options.Parse(argc, argv)) return *exit_code;
//
//   # the file
//   listen: 127.0.0.1:9000
//   data-root: [/data/a, /data/b]
//
// Adds --config, --version, --log-level and --log-format by itself, and sets up logging as these say. Not thread-safe;
// used once, at start.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

namespace accrue {

// What a shell takes for a usage error (docs: exit codes).
inline constexpr int kUsageExitCode = 2;

class DaemonOptions {
 public:
  DaemonOptions(const std::string& name, const std::string& description);

  // For the daemon to add its own options to.
  CLI::App& app() { return app_; }

  // Fills the variables that the options are bound to. Nothing: go on. Else the code to exit with: 0 after --help or
  // --version, kUsageExitCode after an error, which standard error tells with the flag, or the file, line and column.
  std::optional<int> Parse(int argc, const char* const* argv);

 private:
  CLI::App app_;
  std::string config_path_;
  std::string log_level_ = "info";
  std::string log_format_ = "text";
};

}  // namespace accrue
