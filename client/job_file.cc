#include "client/job_file.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"

namespace accrue {

std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  std::string normal = (error ? std::filesystem::path(path) : absolute).lexically_normal().string();
  if (normal.size() > 1 && normal.back() == '/') normal.pop_back();
  return normal;
}

std::unique_ptr<JobFile> LoadJobFile(CommandContext& context, const std::string& path) {
  // The reader has its own, smaller limit with a message of its own.
  absl::StatusOr<std::string> text = context.file_system->ReadAll(path, 64 << 20);
  if (!text.ok()) {
    context.Fail(text.status());
    return nullptr;
  }
  absl::StatusOr<ParsedJob> job = ParseJob(*text, path);
  if (!job.ok()) {
    *context.err << job.status().message() << std::endl;
    context.exit_code = kExitInvalidSpec;
    return nullptr;
  }
  return std::make_unique<JobFile>(JobFile{*std::move(job), path, DirectoryOf(AbsolutePath(path))});
}

}  // namespace accrue
