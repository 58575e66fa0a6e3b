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

int64_t CountParameters(const v1::ModelSpec& model) {
  const int64_t width = model.width(), hidden = model.hidden();
  const int64_t table = model.vocabulary() * width;
  const int64_t head = model.tie_embeddings() ? 0 : table;
  if (model.architecture() == "gpt2") {
    const int64_t attention = 4 * width * width + 4 * width;
    const int64_t mlp = 2 * width * hidden + hidden + width;
    return table + head + model.context() * width + model.layers() * (attention + mlp + 4 * width) +
           2 * width;
  }
  const int64_t kv_width = model.heads() > 0 ? width / model.heads() * model.kv_heads() : 0;
  const int64_t bias = model.qkv_bias() ? width + 2 * kv_width : 0;
  const int64_t attention = 2 * width * width + 2 * width * kv_width + bias;
  return table + head + model.layers() * (attention + 3 * width * hidden + 2 * width) + width;
}

}  // namespace accrue
