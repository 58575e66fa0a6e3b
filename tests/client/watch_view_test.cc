// The live view as a person sees it, at several widths.
#include "client/watch_view.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/format.h"
#include "client/terminal.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace accrue {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kStartNs = 1'700'000'000'000'000'000;

WatchModel RunningModel() {
  WatchModel model;
  v1::WatchResponse update;
  v1::JobStatus& status = *update.mutable_status();
  status.set_job_id("headers-1");
  status.set_state(v1::JOB_STATE_RUNNING);
  status.set_total_windows(2000);
  status.set_submitted_unix_ns(kStartNs);
  status.set_reproducible(true);
  model.Apply(update);
  for (int window = 0; window < 500; ++window) {
    update.Clear();
    v1::WindowRecord& record = *update.mutable_window();
    record.set_window(window);
    record.set_loss(3 + 6 * std::exp(-window / 100.0));
    record.set_gradient_norm(0.8125);
    record.set_learning_rate(6e-4);
    record.set_tokens(16384);
    record.set_sequences(64);
    record.set_tokens_per_second(12345);
    record.set_window_seconds(0.5);
    record.set_committed_unix_ns(kStartNs + window * 500'000'000LL);
    for (const int64_t units : {10, 6}) {
      v1::WorkerWindow& worker = *record.add_workers();
      worker.set_name(units == 10 ? "fast:4242" : "slow:17");
      worker.set_units(units);
      worker.mutable_phases()->set_compute_ns(units * (units == 10 ? 31'000'000 : 52'000'000));
      worker.set_memory_bytes(1 << 30);
    }
    model.Apply(update);
  }
  update.Clear();
  update.mutable_evaluation()->set_window(400);
  update.mutable_evaluation()->set_loss(3.3012);
  model.Apply(update);
  v1::CheckpointInfo checkpoint;
  checkpoint.set_window(500);
  checkpoint.set_verified(true);
  checkpoint.set_written_unix_ns(kStartNs + 240'000'000'000);
  model.SetLastCheckpoint(checkpoint);
  return model;
}

ViewOptions At(int width, int height) {
  ViewOptions options;
  options.width = width;
  options.height = height;
  options.now_unix_ns = kStartNs + 250'000'000'000;
  return options;
}

// As a block of text, with a line break in front for the raw strings below.
std::string Joined(const std::vector<std::string>& lines) { return "\n" + absl::StrJoin(lines, "\n") + "\n"; }

TEST(RenderLive, WideTerminal_EverythingShown) {
  EXPECT_EQ(Joined(RenderLive(RunningModel(), At(100, 23))), R"(
headers-1  running                                                                window 500 / 2,000
███████████████▌░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  25.0%   elapsed 4m 10s   ETA 12m 30s
loss 3.0408   validation 3.3012 at 400   norm 0.812   lr 6.00e-04   tokens/s 12,345   batch 64
  8.970 ⠉⠑⠢⠤⣀⡀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
        ⠀⠀⠀⠀⠀⠈⠉⠒⠒⠤⢄⣀⣀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
        ⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠉⠉⠒⠒⠒⠤⠤⠤⣀⣀⣀⣀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
  3.041 ⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠉⠉⠉⠉⠉⠒⠒⠒⠒⠒⠒⠒⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀
2 workers
  fast:4242  ██████▎░░░  62%   10 units     31.0 ms/unit  1.0 GiB
  slow:17    ███▊░░░░░░  38%    6 units     52.0 ms/unit  1.7x median  1.0 GiB
checkpoint window 500, verified, 10s ago
)");
}

TEST(RenderLive, NarrowTerminal_NumbersWrapAndBarsGo) {
  EXPECT_EQ(Joined(RenderLive(RunningModel(), At(50, 10))), R"(
headers-1  running              window 500 / 2,000
███████▎░░░░░░░░░░░░░░░░░░░░░  25.0%   ETA 12m 30s
loss 3.0408   validation 3.3012 at 400
norm 0.812   lr 6.00e-04   tokens/s 12,345
batch 64
  3.042 ██▇▆▅▅▄▄▃▃▃▃▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁
2 workers
  fast:4242   62%   10 units     31.0 ms/unit
  slow:17     38%    6 units     52.0 ms/unit
checkpoint window 500, verified, 10s ago
)");
}

TEST(RenderLive, NoUnicode_Ascii) {
  ViewOptions options = At(80, 23);
  options.unicode = false;
  const std::string view = Joined(RenderLive(RunningModel(), options));
  for (const char c : view) EXPECT_LT(static_cast<unsigned char>(c), 0x80);
  EXPECT_THAT(view, HasSubstr("\n##########----"));
}

TEST(RenderLive, Color_OnlyWhereAsked) {
  ViewOptions options = At(80, 23);
  EXPECT_THAT(Joined(RenderLive(RunningModel(), options)), Not(HasSubstr("\x1b")));
  options.color = true;
  EXPECT_THAT(Joined(RenderLive(RunningModel(), options)), HasSubstr("\x1b[32mrunning\x1b[0m"));
}

TEST(RenderLive, BeforeTheFirstWindow_ReasonAndNoNumbers) {
  WatchModel model;
  v1::WatchResponse update;
  update.mutable_status()->set_job_id("headers-1");
  update.mutable_status()->set_state(v1::JOB_STATE_WAITING);
  update.mutable_status()->set_reason("for 2 workers\x1b[2J");
  update.mutable_status()->set_total_windows(10);
  update.mutable_status()->set_reproducible(true);
  model.Apply(update);
  EXPECT_EQ(Joined(RenderLive(model, At(60, 23))), R"(
headers-1  waiting: for 2 workers?[2J          window 0 / 10
░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   0.0%   ETA -
)");
}

TEST(RenderLive, NobodyAnswers_SaysForHowLongUntilThereIsANotice) {
  WatchModel model = RunningModel();
  model.SetSilence(7);
  EXPECT_THAT(Joined(RenderLive(model, At(100, 23))),
              HasSubstr("\nno answer from the coordinator for 7 s; the job may well go on\n"));
  model.SetNotice("connection lost");
  EXPECT_THAT(Joined(RenderLive(model, At(100, 23))), HasSubstr("\nconnection lost\n"));
  EXPECT_THAT(Joined(RenderLive(model, At(100, 23))), Not(HasSubstr("no answer")));
  model.SetNotice("");
  model.SetSilence(0);
  EXPECT_THAT(Joined(RenderLive(model, At(100, 23))), Not(HasSubstr("no answer")));
}

TEST(RenderLive, ManyWorkers_RestCounted) {
  WatchModel model = RunningModel();
  v1::WatchResponse update;
  *update.mutable_window() = *model.last();
  update.mutable_window()->set_window(500);
  for (int i = 0; i < 40; ++i) *update.mutable_window()->add_workers() = model.last()->workers(0);
  model.Apply(update);
  EXPECT_THAT(Joined(RenderLive(model, At(80, 20))), HasSubstr("  and 33 more: accrue workers\n"));
}

TEST(Sparkline, OneRow_EightLevels) {
  EXPECT_THAT(Sparkline({0, 1, 2, 3, 4, 5, 6, 7}, 8, 1), ElementsAre("▁▂▃▄▅▆▇█"));
  EXPECT_THAT(Sparkline({0, std::nan(""), 7}, 8, 1), ElementsAre("▁ █"));
  EXPECT_THAT(Sparkline({5, 5}, 8, 1), ElementsAre("▅▅"));
  EXPECT_THAT(Sparkline({}, 8, 1), ElementsAre(""));
}

TEST(Sparkline, MoreValuesThanRoom_Averaged) {
  EXPECT_THAT(Sparkline({0, 2, 7, 9}, 2, 1), ElementsAre("▁█"));
  EXPECT_EQ(Columns(Sparkline(std::vector<double>(1000, 1.5), 10, 3)[0]), 10);
}

TEST(Sparkline, Rows_NeighboursAreJoined) {
  EXPECT_THAT(Sparkline({0, 7}, 1, 2), ElementsAre("⢸", "⡸"));
  EXPECT_THAT(Sparkline({7, 0}, 1, 2), ElementsAre("⢱", "⢸"));
}

TEST(WatchModel, MeanTokensPerSecond_WindowsAfterTheFirst) {
  EXPECT_NEAR(*RunningModel().MeanTokensPerSecond(), 16384 / 0.5, 1e-6);
  EXPECT_FALSE(WatchModel().MeanTokensPerSecond().has_value());
}

TEST(WatchModel, LongJob_LossesStayBounded) {
  WatchModel model;
  v1::WatchResponse update;
  for (int window = 0; window < 20000; ++window) {
    update.mutable_window()->set_window(window);
    update.mutable_window()->set_loss(window);
    model.Apply(update);
  }
  EXPECT_LT(model.losses().size(), 2048u);
  EXPECT_GE(model.losses().size(), 1024u);
  EXPECT_NEAR(model.losses().front(), 7.5, 1e-9);  // the mean of the first sixteen
}

TEST(PlainStride, AboutAHundredLines) {
  EXPECT_EQ(PlainStride(0), 1);
  EXPECT_EQ(PlainStride(150), 1);
  EXPECT_EQ(PlainStride(200), 2);
  EXPECT_EQ(PlainStride(2000), 20);
  EXPECT_EQ(PlainStride(1000000), 10000);
}

TEST(RenderLive, EveryWidth_NoLineIsWider) {
  WatchModel model = RunningModel();
  model.SetNotice("connection lost (no coordinator answers at 127.0.0.1:7437); trying again from window 501");
  for (int width = 20; width <= 200; width += 7) {
    for (const int height : {3, 8, 23, 50}) {
      const std::vector<std::string> lines = RenderLive(model, At(width, height));
      EXPECT_LE(static_cast<int>(lines.size()), height);
      for (const std::string& line : lines) EXPECT_LE(Columns(line), width) << line;
    }
  }
}

}  // namespace
}  // namespace accrue
