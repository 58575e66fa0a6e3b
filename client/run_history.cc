#include "client/run_history.h"

#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/checkpoint_source.h"
#include "client/job_client.h"
#include "client/job_file.h"
#include "common/status.h"

namespace accrue {
namespace {

using nlohmann::json;

constexpr size_t kJobFileLimitBytes = size_t{256} << 20;

// A null stands for a number that is not finite. False for anything else that is no number.
bool ReadNumber(const json& line, const char* name, std::optional<double>& value) {
  const auto field = line.find(name);
  if (field == line.end() || field->is_null()) return true;
  if (!field->is_number()) return false;
  value = field->get<double>();
  return true;
}

absl::Status AddLine(absl::string_view text, RunHistory& history) {
  const json line = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!line.is_object()) return absl::DataLossError("expected a JSON object");
  const auto window = line.find("window"), digest = line.find("digest");
  if (window == line.end() || !window->is_number_integer()) {
    return absl::DataLossError("\"window\": expected a whole number");
  }
  if (digest == line.end() || !digest->is_string()) return absl::DataLossError("\"digest\": expected a string");
  RunWindow record{.digest = digest->get<std::string>()};
  if (!ReadNumber(line, "loss", record.loss) || !ReadNumber(line, "gradient_norm", record.gradient_norm)) {
    return absl::DataLossError("\"loss\" and \"gradient_norm\": expected numbers");
  }
  const auto skipped = line.find("skipped");
  record.skipped = skipped != line.end() && skipped->is_boolean() && skipped->get<bool>();
  const int64_t number = window->get<int64_t>();
  const int64_t last = history.windows.empty() ? -1 : history.windows.rbegin()->first;
  if (number <= last) {
    return absl::DataLossError(
        absl::StrCat("window ", number, " comes after window ", last, "; expected each once, in order"));
  }
  history.windows.emplace(number, std::move(record));
  return absl::OkStatus();
}

absl::Status ReadFolder(FileSystem& file_system, const std::string& folder, RunHistory& history) {
  const std::string path = JoinPath(folder, "windows.jsonl");
  if (!file_system.Exists(path)) {
    return absl::NotFoundError(absl::StrCat(folder, " holds no windows.jsonl; expected a run's output folder"));
  }
  absl::StatusOr<v1::ResolvedJob> job = ReadJobOfFolder(file_system, folder);
  if (!job.ok() && !absl::IsNotFound(job.status())) return job.status();
  if (job.ok()) history.job = *std::move(job);
  ACCRUE_ASSIGN_OR_RETURN(const uint64_t size_bytes, file_system.SizeBytes(path));
  if (size_bytes == 0) return absl::OkStatus();
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file, file_system.Map(path));
  absl::string_view rest(reinterpret_cast<const char*>(file->data()), file->size_bytes());
  // What has no newline yet is still being written.
  for (int64_t line = 1; rest.find('\n') != absl::string_view::npos; ++line) {
    const size_t end = rest.find('\n');
    ACCRUE_RETURN_IF_ERROR(Annotate(AddLine(rest.substr(0, end), history), absl::StrCat(path, ":", line)));
    rest.remove_prefix(end + 1);
  }
  return absl::OkStatus();
}

absl::Status ReadJob(JobClient& client, RunHistory& history) {
  absl::StatusOr<v1::DescribeResponse> description = client.Describe(history.source);
  if (!description.ok()) {
    const bool unknown = absl::IsNotFound(description.status());
    return unknown ? Annotate(description.status(), absl::StrCat(history.source, " is no run's folder, and as a job"))
                   : description.status();
  }
  history.job = description->job();
  // By id: a newer job may take the name meanwhile.
  const auto stream = client.Watch(description->status().job_id(), 0, /*only_past=*/true);
  v1::WatchResponse update;
  while (stream->Read(&update)) {
    if (!update.has_window()) continue;
    const v1::WindowRecord& record = update.window();
    RunWindow& window = history.windows[record.window()];
    if (std::isfinite(record.loss())) window.loss = record.loss();
    if (std::isfinite(record.gradient_norm())) window.gradient_norm = record.gradient_norm();
    window.digest = record.digest();
    window.skipped = record.skipped();
  }
  return stream->Finish();
}

}  // namespace

absl::StatusOr<v1::ResolvedJob> ReadJobOfFolder(FileSystem& file_system, const std::string& folder) {
  const std::string path = JoinPath(folder, "job.json");
  ACCRUE_ASSIGN_OR_RETURN(const std::string text, file_system.ReadAll(path, kJobFileLimitBytes));
  v1::ResolvedJob job;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;  // written by another version
  const auto status = google::protobuf::util::JsonStringToMessage(text, &job, options);
  if (status.ok()) return job;
  return absl::DataLossError(absl::StrCat(path, ": expected a job in JSON: ", std::string(status.message())));
}

absl::StatusOr<RunHistory> ReadRunHistory(CommandContext& context, const std::string& source) {
  RunHistory history{.source = source};
  if (NamesFolder(*context.file_system, source)) {
    ACCRUE_RETURN_IF_ERROR(ReadFolder(*context.file_system, AbsolutePath(source), history));
  } else if (source.find('/') != std::string::npos) {
    return absl::NotFoundError(absl::StrCat(source, ": no such folder; expected a run's output folder, or a job"));
  } else {
    const std::unique_ptr<JobClient> client = context.Connect();
    ACCRUE_RETURN_IF_ERROR(ReadJob(*client, history));
  }
  return history;
}

}  // namespace accrue
