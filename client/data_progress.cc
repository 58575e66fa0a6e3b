#include "client/data_progress.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/format.h"

namespace accrue {
namespace {

constexpr int64_t kRepaintNs = 100'000'000;
constexpr int64_t kPlainLineNs = 5'000'000'000;
constexpr int kBarColumns = 24;

std::string Bar(double fraction, bool unicode) {
  const int filled = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * kBarColumns);
  std::string bar;
  for (int i = 0; i < kBarColumns; ++i) {
    bar += i < filled ? (unicode ? "\u2588" : "#") : (unicode ? "\u2591" : "-");
  }
  return bar;
}

}  // namespace

DataProgress::DataProgress(CommandContext& context) : context_(context) {
  if (context.err_terminal.interactive) painter_ = std::make_unique<Painter>(*context.err);
}

DataProgress::~DataProgress() {
  if (painter_ != nullptr) painter_->Paint({});
}

void DataProgress::Update(const PrepareProgress& progress) {
  const int64_t now_ns = context_.clock->SteadyNowNs();
  const bool new_stage = progress.stage != stage_;
  if (new_stage) {
    stage_ = progress.stage;
    stage_began_ns_ = now_ns;
    stage_began_bytes_ = progress.done_bytes;
  }
  if (!new_stage && now_ns - shown_ns_ < (painter_ != nullptr ? kRepaintNs : kPlainLineNs)) return;
  shown_ns_ = now_ns;
  const std::string text = Text(progress, static_cast<double>(now_ns - stage_began_ns_) * 1e-9);
  if (painter_ != nullptr) {
    painter_->Paint({Line().Add(text).Finish(context_.err_terminal.Width(), context_.err_terminal.color)});
  } else {
    *context_.err << text << std::endl;
  }
}

void DataProgress::Say(const std::string& message) {
  if (painter_ != nullptr) {
    painter_->PrintAbove(Printable(message));
  } else {
    *context_.err << Printable(message) << std::endl;
  }
}

std::string DataProgress::Text(const PrepareProgress& progress, double seconds) const {
  if (progress.total_bytes == 0) return progress.stage;
  const double fraction =
      static_cast<double>(progress.done_bytes) / static_cast<double>(progress.total_bytes);
  std::string text = progress.stage;
  if (painter_ != nullptr) absl::StrAppend(&text, "  ", Bar(fraction, context_.err_terminal.unicode));
  absl::StrAppend(&text, absl::StrFormat("  %3.0f%%", 100 * fraction), "  ", FormatBytes(progress.done_bytes),
                  " of ", FormatBytes(progress.total_bytes), "  ", FormatCount(progress.tokens), " tokens");
  const double rate = static_cast<double>(progress.done_bytes - stage_began_bytes_) / std::max(seconds, 1e-3);
  if (seconds > 1 && rate > 0) {
    const double left = static_cast<double>(progress.total_bytes - progress.done_bytes) / rate;
    absl::StrAppend(&text, "  ", FormatBytes(static_cast<uint64_t>(rate)), "/s  ", FormatDuration(left),
                    " left");
  }
  return text;
}

}  // namespace accrue
