// A job file on disk, for the commands that take one.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/commands.h"
#include "common/spec/job_spec.h"

namespace accrue {

struct JobFile {
  ParsedJob job;
  std::string path;       // as given
  std::string directory;  // absolute
};

// Reads and checks the file. On failure the errors are printed and the exit code is set, and nothing is
// returned.
std::unique_ptr<JobFile> LoadJobFile(CommandContext& context, const std::string& path);

// The path made absolute and free of "." and "..".
std::string AbsolutePath(const std::string& path);

}  // namespace accrue
