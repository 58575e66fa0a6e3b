// What a watcher of a job sees: the updates added up, and that as lines of text. No clock, no terminal: the
// caller says the time and the width, so that a test sees what a person would.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "accrue/v1/client.pb.h"

namespace accrue {

// What the updates of a job add up to.
class WatchModel {
 public:
  void Apply(const v1::WatchResponse& update);
  void SetLastCheckpoint(const v1::CheckpointInfo& checkpoint) { checkpoint_ = checkpoint; }
  // Shown until it is cleared with an empty text: a broken connection, a cancel on its way.
  void SetNotice(std::string notice) { notice_ = std::move(notice); }

  // Shown where there is no notice: for so many seconds the coordinator has not answered; 0: it does.
  void SetSilence(int64_t seconds) { silence_seconds_ = seconds; }

  const v1::JobStatus& status() const { return status_; }
  const std::optional<v1::WindowRecord>& last() const { return last_; }
  const std::optional<v1::EvaluationResult>& evaluation() const { return evaluation_; }
  const std::optional<v1::CheckpointInfo>& checkpoint() const { return checkpoint_; }
  // The notice, or what there is to say about the coordinator's silence; empty: nothing.
  std::string Notice() const;
  // Of all windows seen, thinned evenly once there are many.
  const std::vector<double>& losses() const { return losses_; }

  int64_t windows_done() const;
  // From the mean time of the last windows; nothing before the first.
  std::optional<double> EtaSeconds() const;
  double TokensPerSecond() const { return tokens_per_second_; }
  // Tokens of the windows after the first one seen, over the time between those commits.
  std::optional<double> MeanTokensPerSecond() const;

 private:
  v1::JobStatus status_;
  std::optional<v1::WindowRecord> first_, last_;
  std::optional<v1::EvaluationResult> evaluation_;
  std::optional<v1::CheckpointInfo> checkpoint_;
  std::string notice_;
  int64_t silence_seconds_ = 0;
  std::vector<double> losses_;
  int64_t loss_stride_ = 1, losses_seen_ = 0;
  double loss_sum_ = 0;
  double window_seconds_ = 0, tokens_per_second_ = 0;  // exponentially weighted means
  int64_t tokens_after_first_ = 0;
};

struct ViewOptions {
  int width = 80;
  int height = 24;
  bool color = false;
  bool unicode = true;
  int64_t now_unix_ns = 0;
};

// The live view: at most `height` lines, each at most `width` columns.
std::vector<std::string> RenderLive(const WatchModel& model, const ViewOptions& options);

// A row of `columns` blocks, or rows of braille dots where rows > 1: the values from left to right, the least
// at the bottom. Values that are not finite are gaps.
std::vector<std::string> Sparkline(const std::vector<double>& values, int columns, int rows);

// The plain lines.
std::string WindowLine(const WatchModel& model, const v1::WindowRecord& record);
std::string StatusLine(const v1::JobStatus& status);
std::string EvaluationLine(const v1::EvaluationResult& evaluation);

// How many windows apart plain lines are, so that a job makes about a hundred of them: 1, 2, 5, 10, 20, 50,
// ...
int64_t PlainStride(int64_t total_windows);

}  // namespace accrue
