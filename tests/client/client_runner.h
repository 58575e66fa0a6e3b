// Runs the client within the test: arguments in; exit code, standard output and standard error out.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "client/commands.h"

namespace accrue {

struct ClientResult {
  int exit_code = 0;
  std::string out, err;
};

inline ClientResult RunAccrue(const std::vector<std::string>& arguments,
                              const std::string& binary_directory = "") {
  std::ostringstream out, err;
  CommandContext context;
  context.out = &out;
  context.err = &err;
  context.binary_directory = binary_directory;
  std::vector<const char*> argv = {"accrue"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  const int exit_code = RunClient(static_cast<int>(argv.size()), argv.data(), context);
  return {exit_code, out.str(), err.str()};
}

}  // namespace accrue
