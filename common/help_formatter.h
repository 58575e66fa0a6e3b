// Help as people read it: wrapped, one short name for what an option takes, defaults in words, and only the
// first sentence of each command in the list of commands.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace accrue {

class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter();
  std::string make_description(const CLI::App* app) const override;
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_subcommand(const CLI::App* command) const override;
};

}  // namespace accrue
