#include "client/watch_view.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/format.h"
#include "client/terminal.h"
#include "common/slow_workers.h"

namespace accrue {
namespace {

constexpr size_t kMaxLosses = 2048;
constexpr double kNewest = 0.15;  // weight of the newest window in the means

double Mean(double mean, double value) { return mean == 0 ? value : mean + kNewest * (value - mean); }

std::string Utf8(int code_point) {
  return {static_cast<char>(0xE0 | (code_point >> 12)), static_cast<char>(0x80 | ((code_point >> 6) & 0x3F)),
          static_cast<char>(0x80 | (code_point & 0x3F))};
}

// A bar of `columns` with eighths of a block at its end.
std::string Bar(double share, int columns, bool unicode) {
  share = std::clamp(std::isfinite(share) ? share : 0.0, 0.0, 1.0);
  if (!unicode) {
    const int full = static_cast<int>(share * columns);
    return std::string(full, '#') + std::string(columns - full, '-');
  }
  const int eighths = static_cast<int>(share * columns * 8);
  std::string bar;
  for (int i = 0; i < eighths / 8; ++i) bar += "█";
  if (eighths % 8 != 0) bar += Utf8(0x2590 - eighths % 8);  // 0x258F is one eighth, 0x2589 seven
  while (Columns(bar) < columns) bar += "░";
  return bar;
}

Style StateStyle(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_RUNNING:
    case v1::JOB_STATE_FINISHING:
    case v1::JOB_STATE_SUCCEEDED:
      return Style::kGood;
    case v1::JOB_STATE_FAILED:
      return Style::kBad;
    case v1::JOB_STATE_WAITING:
    case v1::JOB_STATE_STARTING:
    case v1::JOB_STATE_PAUSED:
    case v1::JOB_STATE_CANCELLED:
      return Style::kWarm;
    default:
      return Style::kPlain;
  }
}

double SecondsSince(int64_t unix_ns, int64_t now_unix_ns) {
  return static_cast<double>(now_unix_ns - unix_ns) / 1e9;
}

// `values` averaged into `bins`; the values themselves when there are fewer.
std::vector<double> Binned(const std::vector<double>& values, size_t bins) {
  if (values.size() <= bins) return values;
  std::vector<double> binned;
  for (size_t b = 0; b < bins; ++b) {
    const size_t begin = b * values.size() / bins, end = (b + 1) * values.size() / bins;
    double sum = 0;
    for (size_t i = begin; i < end; ++i) sum += values[i];
    binned.push_back(sum / static_cast<double>(end - begin));
  }
  return binned;
}

// Each value's height, 0 to levels - 1; -1 for a gap.
std::vector<int> Heights(const std::vector<double>& values, int levels) {
  double least = std::numeric_limits<double>::infinity(), most = -least;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    least = std::min(least, value);
    most = std::max(most, value);
  }
  std::vector<int> heights;
  for (const double value : values) {
    const double share = most > least ? (value - least) / (most - least) : 0.5;
    heights.push_back(std::isfinite(value) ? std::min(levels - 1, static_cast<int>(share * levels)) : -1);
  }
  return heights;
}

double UnitMs(const v1::WorkerWindow& worker) {
  return static_cast<double>(worker.phases().compute_ns()) / static_cast<double>(worker.units()) / 1e6;
}

// Of the workers that had units, the lower one of two in the middle; 0 without any.
double MedianUnitMs(const google::protobuf::RepeatedPtrField<v1::WorkerWindow>& workers) {
  std::vector<double> unit_ms;
  for (const v1::WorkerWindow& worker : workers) {
    if (worker.units() > 0) unit_ms.push_back(UnitMs(worker));
  }
  std::sort(unit_ms.begin(), unit_ms.end());
  return unit_ms.empty() ? 0 : unit_ms[(unit_ms.size() - 1) / 2];
}

class LiveView {
 public:
  LiveView(const WatchModel& model, const ViewOptions& options) : model_(model), options_(options) {}

  std::vector<std::string> Render() {
    AddTitle();
    AddProgress();
    AddNumbers();
    AddCurve();
    AddWorkers();
    AddFooter();
    if (static_cast<int>(lines_.size()) > options_.height) lines_.resize(std::max(1, options_.height));
    return lines_;
  }

 private:
  int width() const { return options_.width; }
  void Emit(const Line& line) { lines_.push_back(line.Finish(width(), options_.color)); }

  void AddTitle() {
    const v1::JobStatus& status = model_.status();
    Line line;
    line.Add(status.job_id(), Style::kBold)
        .Add("  ")
        .Add(StateName(status.state()), StateStyle(status.state()));
    if (!status.reason().empty()) line.Add(": " + Printable(status.reason()), Style::kDim);
    if (status.synthetic()) line.Add("  synthetic", Style::kWarm);
    if (!status.reproducible()) line.Add("  not reproducible", Style::kWarm);
    const std::string right = absl::StrCat("window ", FormatCount(model_.windows_done()), " / ",
                                           FormatCount(status.total_windows()));
    if (line.width() + 2 + Columns(right) <= width()) line.PadTo(width() - Columns(right)).Add(right);
    Emit(line);
  }

  void AddProgress() {
    const v1::JobStatus& status = model_.status();
    const double share = status.total_windows() > 0 ? static_cast<double>(model_.windows_done()) /
                                                          static_cast<double>(status.total_windows())
                                                    : 0;
    std::string tail = absl::StrFormat(" %5.1f%%", 100 * share);
    if (status.submitted_unix_ns() > 0) {
      const std::string elapsed =
          FormatDuration(SecondsSince(status.submitted_unix_ns(), options_.now_unix_ns));
      if (width() >= 60 && !HasEnded(status.state())) absl::StrAppend(&tail, "   elapsed ", elapsed);
    }
    const std::optional<double> eta = model_.EtaSeconds();
    if (!HasEnded(status.state()))
      absl::StrAppend(&tail, "   ETA ", eta.has_value() ? FormatDuration(*eta) : "-");
    const int bar = std::max(4, width() - Columns(tail));
    Emit(Line().Add(Bar(share, bar, options_.unicode), StateStyle(status.state())).Add(tail));
  }

  void AddNumbers() {
    if (!model_.last().has_value()) return;
    const v1::WindowRecord& last = *model_.last();
    const auto label = [](Line& line, absl::string_view name, const std::string& value,
                          Style style = Style::kPlain) {
      if (line.width() > 0) line.Add("   ");
      line.Add(name, Style::kDim).Add(" ").Add(value, style);
    };
    std::vector<std::pair<std::string, std::string>> facts = {
        {"norm", absl::StrFormat("%.3f", last.gradient_norm())},
        {"lr", FormatRate(last.learning_rate())},
        {"tokens/s", FormatCount(static_cast<int64_t>(model_.TokensPerSecond()))},
        {"batch", FormatCount(last.sequences())},
    };
    Line line;
    label(line, "loss", FormatLoss(last.loss()), Style::kBold);
    if (model_.evaluation().has_value()) {
      label(line, "validation", FormatLoss(model_.evaluation()->loss()), Style::kAccent);
      line.Add(absl::StrCat(" at ", FormatCount(model_.evaluation()->window())), Style::kDim);
    }
    for (const auto& [name, value] : facts) {
      if (line.width() + 4 + Columns(name) + Columns(value) > width() && line.width() > 0) {
        Emit(line);
        line = Line();
      }
      label(line, name, value);
    }
    if (last.skipped()) label(line, "skipped", "no update", Style::kWarm);
    Emit(line);
  }

  // The loss so far, with its highest and lowest value at the left.
  void AddCurve() {
    if (!options_.unicode || model_.losses().size() < 2 || width() < 30) return;
    const int rows = options_.height >= 16 ? 4 : 1;
    const int columns = std::min(width() - 9, 120);
    const std::vector<std::string> curve = Sparkline(model_.losses(), columns, rows);
    const std::vector<double> shown = Binned(model_.losses(), static_cast<size_t>(2 * columns));
    const auto [least, most] = std::minmax_element(shown.begin(), shown.end());
    for (int row = 0; row < rows; ++row) {
      std::string axis;
      if (rows > 1 && row == 0) axis = absl::StrFormat("%.3f", *most);
      if (row == rows - 1) axis = absl::StrFormat("%.3f", *least);
      Line line;
      line.Add(std::string(std::max(0, 7 - Columns(axis)), ' ') + axis, Style::kDim).Add(" ");
      Emit(line.Add(curve[row], Style::kAccent));
    }
  }

  void AddWorkers() {
    if (!model_.last().has_value()) return;
    const auto& workers = model_.last()->workers();
    const double median_ms = MedianUnitMs(workers);
    int64_t units = 0;
    int longest = 6;
    for (const v1::WorkerWindow& worker : workers) {
      units += worker.units();
      longest = std::max(longest, std::min(24, Columns(worker.name())));
    }
    Emit(Line().Add(absl::StrCat(workers.size(), workers.size() == 1 ? " worker" : " workers"), Style::kDim));
    const int footer = (model_.checkpoint().has_value() ? 1 : 0) + (model_.Notice().empty() ? 0 : 1);
    const int room = std::max(1, options_.height - static_cast<int>(lines_.size()) - footer);
    for (int i = 0; i < workers.size(); ++i) {
      if (i == room - 1 && workers.size() > room) {
        Emit(Line().Add(absl::StrCat("  and ", workers.size() - i, " more: accrue workers"), Style::kDim));
        break;
      }
      AddWorker(workers[i], units, longest, median_ms);
    }
  }

  void AddWorker(const v1::WorkerWindow& worker, int64_t units, int name_columns, double median_ms) {
    const double share = units > 0 ? static_cast<double>(worker.units()) / static_cast<double>(units) : 0;
    Line line;
    line.Add("  ").Add(Printable(worker.name()).substr(0, 24)).PadTo(2 + name_columns + 2);
    if (width() >= 60) line.Add(Bar(share, 10, options_.unicode), Style::kAccent).Add(" ");
    line.Add(absl::StrFormat("%3.0f%% %4d %s", 100 * share, worker.units(),
                             worker.units() == 1 ? "unit " : "units"));
    if (worker.units() > 0) {
      const double unit_ms = UnitMs(worker);
      line.Add(absl::StrFormat("  %7.1f ms/unit", unit_ms));
      const std::string slow = absl::StrFormat("  %.1fx median", unit_ms / median_ms);
      if (unit_ms >= kSlowFactor * median_ms && line.width() + Columns(slow) <= width()) line.Add(slow, Style::kWarm);
    }
    const std::string memory = "  " + FormatBytes(worker.memory_bytes());
    if (worker.memory_bytes() > 0 && line.width() + Columns(memory) <= width()) line.Add(memory, Style::kDim);
    Emit(line);
  }

  void AddFooter() {
    if (model_.checkpoint().has_value()) {
      const v1::CheckpointInfo& checkpoint = *model_.checkpoint();
      Line line;
      line.Add("checkpoint ", Style::kDim).Add(absl::StrCat("window ", FormatCount(checkpoint.window())));
      line.Add(checkpoint.verified() ? ", verified" : ", being written", Style::kDim);
      if (checkpoint.written_unix_ns() > 0) {
        const double age = SecondsSince(checkpoint.written_unix_ns(), options_.now_unix_ns);
        line.Add(absl::StrCat(", ", FormatDuration(std::max(0.0, age)), " ago"), Style::kDim);
      }
      Emit(line);
    }
    if (!model_.Notice().empty()) Emit(Line().Add(Printable(model_.Notice()), Style::kWarm));
  }

  const WatchModel& model_;
  const ViewOptions options_;
  std::vector<std::string> lines_;
};

}  // namespace

void WatchModel::Apply(const v1::WatchResponse& update) {
  if (update.has_status()) status_ = update.status();
  if (update.has_evaluation()) evaluation_ = update.evaluation();
  if (!update.has_window()) return;
  const v1::WindowRecord& record = update.window();
  if (!first_.has_value()) first_ = record;
  if (last_.has_value()) tokens_after_first_ += record.tokens();
  last_ = record;
  if (record.has_validation_loss()) {
    evaluation_.emplace();
    evaluation_->set_window(record.window() + 1);
    evaluation_->set_loss(record.validation_loss());
  }
  if (record.window_seconds() > 0) window_seconds_ = Mean(window_seconds_, record.window_seconds());
  if (record.tokens_per_second() > 0)
    tokens_per_second_ = Mean(tokens_per_second_, record.tokens_per_second());
  if (record.skipped()) return;
  loss_sum_ += record.loss();
  if (++losses_seen_ % loss_stride_ != 0) return;
  losses_.push_back(loss_sum_ / static_cast<double>(loss_stride_));
  loss_sum_ = 0;
  if (losses_.size() == kMaxLosses) {
    losses_ = Binned(losses_, kMaxLosses / 2);
    loss_stride_ *= 2;
  }
}

std::string WatchModel::Notice() const {
  if (!notice_.empty() || silence_seconds_ == 0) return notice_;
  return absl::StrCat("no answer from the coordinator for ", silence_seconds_, " s; the job may well go on");
}

int64_t WatchModel::windows_done() const {
  return last_.has_value() ? std::max(status_.window(), last_->window() + 1) : status_.window();
}

std::optional<double> WatchModel::EtaSeconds() const {
  const int64_t left = status_.total_windows() - windows_done();
  if (window_seconds_ > 0) return static_cast<double>(left) * window_seconds_;
  if (status_.eta_seconds() > 0) return status_.eta_seconds();
  return std::nullopt;
}

std::optional<double> WatchModel::MeanTokensPerSecond() const {
  if (!last_.has_value() || last_->committed_unix_ns() <= first_->committed_unix_ns()) return std::nullopt;
  return static_cast<double>(tokens_after_first_) /
         (static_cast<double>(last_->committed_unix_ns() - first_->committed_unix_ns()) / 1e9);
}

std::vector<std::string> Sparkline(const std::vector<double>& values, int columns, int rows) {
  std::vector<std::string> lines(rows);
  if (rows == 1) {
    for (const int height : Heights(Binned(values, columns), 8))
      lines[0] += height < 0 ? " " : Utf8(0x2581 + height);
    return lines;
  }
  // Braille: two columns of four dots a character.
  constexpr int kDots[4][2] = {{0x40, 0x80}, {0x04, 0x20}, {0x02, 0x10}, {0x01, 0x08}};  // from the bottom
  const std::vector<int> heights = Heights(Binned(values, 2 * static_cast<size_t>(columns)), 4 * rows);
  for (size_t x = 0; x < heights.size(); x += 2) {
    for (int row = 0; row < rows; ++row) {
      const int bottom = 4 * (rows - 1 - row);
      int dots = 0;
      for (size_t side = 0; side < 2 && x + side < heights.size(); ++side) {
        // Neighbours are joined, so that a steep curve stays one line.
        const int height = heights[x + side];
        const int before = x + side > 0 ? heights[x + side - 1] : height;
        if (height < 0) continue;
        const int low = before < 0 ? height : std::min(height, before < height ? before + 1 : height);
        const int high = before > height ? before - 1 : height;
        for (int dot = 0; dot < 4; ++dot) {
          if (bottom + dot >= low && bottom + dot <= std::max(height, high)) dots |= kDots[dot][side];
        }
      }
      lines[row] += Utf8(0x2800 + dots);
    }
  }
  return lines;
}

std::vector<std::string> RenderLive(const WatchModel& model, const ViewOptions& options) {
  return LiveView(model, options).Render();
}

std::string WindowLine(const WatchModel& model, const v1::WindowRecord& record) {
  std::string line =
      absl::StrCat("window ", record.window() + 1, "/", model.status().total_windows(), "  loss ",
                   FormatLoss(record.loss()), "  norm ", absl::StrFormat("%.4f", record.gradient_norm()),
                   "  lr ", FormatRate(record.learning_rate()), "  ",
                   FormatCount(static_cast<int64_t>(record.tokens_per_second())), " tokens/s");
  if (record.skipped()) line += "  skipped: no update";
  const std::optional<double> eta = model.EtaSeconds();
  if (eta.has_value()) absl::StrAppend(&line, "  eta ", FormatDuration(*eta));
  return line;
}

std::string StatusLine(const v1::JobStatus& status) {
  std::string line = absl::StrCat(status.job_id(), " is ", StateName(status.state()));
  if (!status.reason().empty()) absl::StrAppend(&line, ": ", Printable(status.reason()));
  return line;
}

std::string EvaluationLine(const v1::EvaluationResult& evaluation) {
  return absl::StrCat("evaluation after window ", evaluation.window(), "  loss ",
                      FormatLoss(evaluation.loss()));
}

int64_t PlainStride(int64_t total_windows) {
  for (int64_t step = 1;; step *= 10) {
    for (const int64_t factor : {1, 2, 5}) {
      if (factor * step * 150 >= total_windows) return factor * step;
    }
  }
}

}  // namespace accrue
