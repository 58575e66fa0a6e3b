#include "coordinator/server/status_page.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/slow_workers.h"
#include "common/version.h"
#include "coordinator/server/translate.h"

namespace accrue {
namespace {

constexpr int kWidth = 240, kHeight = 48;
constexpr int64_t kSparklineWindows = 2000;
constexpr size_t kMaxJobs = 50;

constexpr char kStyle[] = R"css(
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #8884; vertical-align: middle; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.reason { color: #888; font-size: .9em; } progress { width: 9rem; }
.failed { color: #c33; } .slow { color: #c60; } .running { color: #283; }
svg polyline { fill: none; stroke: currentColor; stroke-width: 1.5; }
)css";

std::string LossLine(Journal& journal, const v1::JobStatus& status) {
  const Window first(std::max<int64_t>(0, status.window() - kSparklineWindows));
  const auto commits = journal.Commits(status.job_id(), first, kSparklineWindows);
  if (!commits.ok()) return "";
  std::vector<std::pair<double, double>> points;
  for (const CommitRecord& commit : *commits) {
    points.emplace_back(static_cast<double>(commit.window.window.value()), commit.window.loss);
  }
  return Sparkline(points);
}

std::string JobRow(Journal& journal, const v1::JobStatus& s) {
  const char* const state = JobStateName(s.state());
  std::string row = absl::StrCat("<tr><td><b>", EscapeHtml(s.job_id()), "</b><br><span class=\"", state, "\">", state,
                                 "</span> <span class=\"reason\">", EscapeHtml(s.reason()), "</span>",
                                 s.synthetic() ? " synthetic: nothing is learnt" : "", "</td>");
  absl::StrAppend(&row, "<td><progress max=\"", std::max<int64_t>(1, s.total_windows()), "\" value=\"", s.window(),
                  "\"></progress><br>", s.window(), " of ", s.total_windows(),
                  s.total_windows() == 1 ? " window" : " windows");
  if (s.eta_seconds() > 0) absl::StrAppend(&row, ", ", DurationText(s.eta_seconds()), " to go");
  absl::StrAppend(&row, "</td><td>", LossLine(journal, s), "</td>");
  absl::StrAppendFormat(&row, "<td class=n>%.4f</td>", s.loss());
  absl::StrAppend(&row, "<td class=n>",
                  s.has_validation_loss() ? absl::StrFormat("%.4f", s.validation_loss()) : std::string("–"), "</td>");
  absl::StrAppend(&row, "<td class=n>", Shortened(s.tokens_per_second()), "</td><td class=n>", s.workers(),
                  "</td></tr>\n");
  return row;
}

// "7.1 ms", or a dash for what is not measured.
std::string OrDash(double value, const char* unit) {
  return value > 0 ? absl::StrFormat("%.1f%s", value, unit) : std::string("–");
}

}  // namespace

std::string EscapeHtml(absl::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string Sparkline(const std::vector<std::pair<double, double>>& points) {
  std::vector<std::pair<double, double>> finite;
  for (const auto& point : points) {
    if (std::isfinite(point.second)) finite.push_back(point);
  }
  if (finite.size() < 2) return "";
  double low = finite[0].second, high = low;
  for (const auto& [x, y] : finite) {
    low = std::min(low, y);
    high = std::max(high, y);
  }
  const double first = finite.front().first, width = std::max(1.0, finite.back().first - first);
  const double height = high > low ? high - low : 1;
  std::string svg = absl::StrCat("<svg width=\"", kWidth, "\" height=\"", kHeight, "\" role=\"img\"><title>loss from ",
                                 absl::StrFormat("%.4f to %.4f", finite.front().second, finite.back().second),
                                 "</title><polyline points=\"");
  // More points than pixels only make the page long.
  const size_t stride = std::max<size_t>(1, finite.size() / (2 * kWidth));
  for (size_t i = 0; i < finite.size(); i = i + 1 < finite.size() ? std::min(i + stride, finite.size() - 1) : i + 1) {
    absl::StrAppendFormat(&svg, "%.1f,%.1f ", (finite[i].first - first) / width * (kWidth - 2) + 1,
                          (high - finite[i].second) / height * (kHeight - 4) + 2);
  }
  return svg + "\"/></svg>";
}

std::string Shortened(double value) {
  if (value >= 1e9) return absl::StrFormat("%.3gG", value / 1e9);
  if (value >= 1e6) return absl::StrFormat("%.3gM", value / 1e6);
  if (value >= 1e3) return absl::StrFormat("%.3gk", value / 1e3);
  return absl::StrFormat("%.3g", value);
}

// As the client writes it.
std::string BytesText(int64_t size_bytes) {
  const double mib = static_cast<double>(size_bytes) / (1 << 20);
  return mib < 1024 ? absl::StrFormat("%.1f MiB", mib) : absl::StrFormat("%.1f GiB", mib / 1024);
}

std::string DurationText(double seconds) {
  const int64_t whole = static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, 1e12)));
  if (whole < 60) return absl::StrCat(whole, " s");
  if (whole < 3600) return absl::StrCat(whole / 60, " min ", whole % 60, " s");
  return absl::StrCat(whole / 3600, " h ", whole % 3600 / 60, " min");
}

std::string WorkerRow(const v1::WorkerStatus& w) {
  std::string row = absl::StrCat("<tr><td>", EscapeHtml(w.name()), "</td><td>", EscapeHtml(w.state()), "</td><td>",
                                 EscapeHtml(w.job_id()), "</td><td>", EscapeHtml(w.device()), "</td>");
  const bool slow = w.relative_unit_time() >= kSlowFactor;
  absl::StrAppend(&row, "<td class=\"n", slow ? " slow" : "", "\">", OrDash(1e3 * w.unit_seconds(), " ms"),
                  "</td><td class=n>", OrDash(w.relative_unit_time(), "×"), "</td>");
  absl::StrAppendFormat(&row, "<td class=n>%s</td><td class=n>%d</td></tr>\n", BytesText(w.memory_bytes()),
                        w.windows());
  return row;
}

std::string StatusPage(const Snapshot& snapshot, Journal& journal) {
  std::string page = absl::StrCat(
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"2\">"
      "<meta name=\"viewport\" content=\"width=device-width\"><title>Accrue</title><style>",
      kStyle, "</style></head><body><h1>Accrue ", kVersion, "</h1>\n<h2>Jobs</h2>\n");
  if (snapshot.jobs.empty()) {
    page += "<p>No job yet. Submit one with <code>accrue submit JOB.yaml</code>.</p>\n";
  } else {
    page += "<table><tr><th>job<th>progress<th>loss<th>loss, last<th>validation<th>tokens/s<th>workers</tr>\n";
    size_t shown = 0;
    for (auto job = snapshot.jobs.rbegin(); job != snapshot.jobs.rend() && shown < kMaxJobs; ++job, ++shown) {
      page += JobRow(journal, job->status);
    }
    page += "</table>\n";
    if (shown < snapshot.jobs.size()) absl::StrAppend(&page, "<p>The newest ", shown, " of ", snapshot.jobs.size(), ".</p>");
  }
  page += "<h2>Workers</h2>\n";
  if (snapshot.workers.empty()) {
    page += "<p>No worker is connected. Start one with <code>accrue-worker</code>.</p>\n";
  } else {
    page += "<table><tr><th>worker<th>state<th>job<th>device<th>a unit takes<th>to the median<th>memory<th>windows</tr>\n";
    for (const v1::WorkerStatus& worker : snapshot.workers) page += WorkerRow(worker);
    page += "</table>\n";
  }
  return page + "<p class=\"reason\"><a href=\"/metrics\">metrics</a></p></body></html>\n";
}

}  // namespace accrue
