#include "coordinator/server/window_log.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/fault_points.h"
#include "common/status.h"

namespace accrue {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLogLimitBytes = size_t{16} << 30;

// A line's window and the values that status shows; nothing when it is not a whole line of ours.
struct ParsedLine {
  int64_t window = 0;
  WindowLog::Last last;
};
std::optional<ParsedLine> ParseLine(absl::string_view line) {
  const Json json = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("window") || !json["window"].is_number_integer()) return std::nullopt;
  ParsedLine parsed;
  parsed.window = json["window"].get<int64_t>();
  if (json.contains("loss") && json["loss"].is_number()) parsed.last.loss = json["loss"].get<double>();
  if (json.contains("digest") && json["digest"].is_string()) parsed.last.digest = json["digest"].get<std::string>();
  return parsed;
}

// The good part of a log: whole lines whose windows ascend and stay below `end`.
struct GoodPart {
  size_t size_bytes = 0;
  int64_t next = 0;  // the last line's window plus one
  bool gap = false;  // windows ascend by more than one, or begin after 0
  WindowLog::Last last;
};
GoodPart FindGoodPart(absl::string_view contents, int64_t end) {
  GoodPart good;
  while (good.size_bytes < contents.size()) {
    const size_t newline = contents.find('\n', good.size_bytes);
    if (newline == absl::string_view::npos) break;
    const auto line = ParseLine(contents.substr(good.size_bytes, newline - good.size_bytes));
    if (!line.has_value() || line->window < good.next || line->window >= end) break;
    good.gap = good.gap || line->window != good.next;
    good.next = line->window + 1;
    good.last = line->last;
    good.size_bytes = newline + 1;
  }
  return good;
}

absl::StatusOr<std::string> ReadIfThere(FileSystem& file_system, const std::string& path) {
  absl::StatusOr<std::string> contents = file_system.ReadAll(path, kLogLimitBytes);
  if (absl::IsNotFound(contents.status())) return std::string();
  return contents;
}

absl::Status AppendLine(WritableFile& file, std::string line) {
  line += '\n';
  return file.Append(line.data(), line.size());
}

}  // namespace

std::string WindowLine(const CommitRecord& commit) {
  const core::WindowRecord& w = commit.window;
  const double seconds = static_cast<double>(w.duration_ns) * 1e-9;
  Json line;
  line["window"] = w.window.value();
  line["loss"] = w.loss;
  line["gradient_norm"] = w.gradient_norm;
  line["learning_rate"] = w.learning_rate;
  line["tokens"] = w.tokens;
  line["digest"] = w.digest;
  line["skipped"] = w.skipped;
  line["attempt"] = w.attempt.value();
  line["sequences"] = w.sequences;
  line["clip_coefficient"] = w.clip_coefficient;
  line["vanished_fraction"] = w.vanished_fraction;
  if (w.loss_scale) line["loss_scale"] = w.loss_scale->Value();
  line["window_seconds"] = seconds;
  line["tokens_per_second"] = seconds > 0 ? static_cast<double>(w.tokens) / seconds : 0;
  line["timeline"] = w.timeline.value();
  line["epoch"] = w.epoch.value();
  line["unix_seconds"] = static_cast<double>(commit.committed_unix_ns) * 1e-9;
  line["workers"] = Json::array();
  for (const core::WorkerWindow& worker : w.workers) {
    Json seconds_in = Json::object();
    for (const core::Phase& phase : core::kPhases) {
      seconds_in[phase.name] = static_cast<double>(worker.phases.*phase.ns) * 1e-9;
    }
    line["workers"].push_back({{"name", worker.name},
                               {"units", worker.units},
                               {"gradient_norm", worker.gradient_norm},
                               {"memory_bytes", worker.memory_bytes},
                               {"seconds", std::move(seconds_in)}});
  }
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string EvaluationLine(const EvaluationRecord& evaluation) {
  const Json line = {{"window", evaluation.window.value()}, {"loss", evaluation.loss}, {"tokens", evaluation.tokens}};
  return line.dump();
}

absl::StatusOr<std::unique_ptr<WindowLog>> WindowLog::Open(FileSystem& file_system, const std::string& directory,
                                                           Window next_window,
                                                           const std::vector<CommitRecord>& journaled,
                                                           const std::vector<EvaluationRecord>& evaluated,
                                                           std::vector<std::string>& warnings) {
  std::unique_ptr<WindowLog> log(new WindowLog);
  const std::string windows_path = JoinPath(directory, "windows.jsonl");
  ACCRUE_ASSIGN_OR_RETURN(const std::string windows, ReadIfThere(file_system, windows_path));
  GoodPart good = FindGoodPart(windows, next_window.value());
  std::string mended = windows.substr(0, good.size_bytes);
  for (const CommitRecord& commit : journaled) {
    const int64_t window = commit.window.window.value();
    if (window < good.next || window >= next_window.value()) continue;
    good.gap = good.gap || window != good.next;
    good.next = window + 1;
    good.last = {commit.window.loss, commit.window.digest};
    absl::StrAppend(&mended, WindowLine(commit), "\n");
  }
  if (good.gap || good.next != next_window.value()) {
    warnings.push_back(absl::StrCat(windows_path, " lacks windows before ", next_window.value(),
                                    " that no record here holds; it goes on with that one"));
  }
  if (mended != windows) ACCRUE_RETURN_IF_ERROR(file_system.WriteAtomically(windows_path, mended));
  log->next_window_ = next_window.value();
  log->last_ = good.last;

  const std::string evaluations_path = JoinPath(directory, "evaluations.jsonl");
  ACCRUE_ASSIGN_OR_RETURN(const std::string evaluations, ReadIfThere(file_system, evaluations_path));
  const int64_t newest = evaluated.empty() ? 0 : evaluated.back().window.value();
  GoodPart good_evaluations = FindGoodPart(evaluations, std::max(newest, next_window.value()) + 1);
  std::string mended_evaluations = evaluations.substr(0, good_evaluations.size_bytes);
  for (const EvaluationRecord& evaluation : evaluated) {
    if (evaluation.window.value() < good_evaluations.next) continue;
    good_evaluations.next = evaluation.window.value() + 1;
    absl::StrAppend(&mended_evaluations, EvaluationLine(evaluation), "\n");
  }
  if (mended_evaluations != evaluations) {
    ACCRUE_RETURN_IF_ERROR(file_system.WriteAtomically(evaluations_path, mended_evaluations));
  }
  log->next_evaluation_ = good_evaluations.next;
  ACCRUE_ASSIGN_OR_RETURN(log->windows_, file_system.OpenForAppend(windows_path));
  ACCRUE_ASSIGN_OR_RETURN(log->evaluations_, file_system.OpenForAppend(evaluations_path));
  return log;
}

absl::Status WindowLog::Append(const CommitRecord& commit) {
  if (commit.window.window.value() < next_window_) return absl::OkStatus();
  const std::string line = WindowLine(commit);
  if (FaultFires(FaultPoint::kCoordinatorCommitLineTorn, commit.window.window.value())) {
    ACCRUE_RETURN_IF_ERROR(windows_->Append(line.data(), line.size() / 2));
    DieOfFault();
  }
  ACCRUE_RETURN_IF_ERROR(AppendLine(*windows_, line));
  next_window_ = commit.window.window.value() + 1;
  last_ = {commit.window.loss, commit.window.digest};
  return absl::OkStatus();
}

absl::Status WindowLog::Append(const EvaluationRecord& evaluation) {
  if (evaluation.window.value() < next_evaluation_) return absl::OkStatus();
  ACCRUE_RETURN_IF_ERROR(AppendLine(*evaluations_, EvaluationLine(evaluation)));
  next_evaluation_ = evaluation.window.value() + 1;
  return absl::OkStatus();
}

absl::Status WindowLog::Sync() {
  ACCRUE_RETURN_IF_ERROR(windows_->Sync());
  return evaluations_->Sync();
}

}  // namespace accrue
