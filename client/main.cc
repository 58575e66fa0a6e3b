#include <csignal>
#include <filesystem>
#include <iostream>

#include "client/commands.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a reader that went away shows as a failed write
  accrue::CommandContext context;
  context.out = &std::cout;
  context.err = &std::cerr;
  context.out_terminal = accrue::Terminal::Of(1);
  context.err_terminal = accrue::Terminal::Of(2);
  std::error_code error;
  context.binary_directory = std::filesystem::read_symlink("/proc/self/exe", error).parent_path().string();
  return accrue::RunClient(argc, argv, context);
}
