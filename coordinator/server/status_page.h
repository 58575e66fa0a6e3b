// The page at "/": jobs, their progress and loss, workers. Plain HTML that reloads itself; no scripts.
//
// Thread-safe: a pure function of the picture and of the journal's commits. Whatever came from outside is escaped.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/journal/journal.h"
#include "coordinator/server/snapshot.h"

namespace accrue {

std::string StatusPage(const Snapshot& snapshot, Journal& journal);

// Exposed for tests.
std::string EscapeHtml(absl::string_view text);
// An SVG line through (x, y), in order of x; empty for fewer than two finite points.
std::string Sparkline(const std::vector<std::pair<double, double>>& points);
// "1.23", "12.3k", "4.5M".
std::string Shortened(double value);
// "3 s", "2 min 5 s", "1 h 10 min".
std::string DurationText(double seconds);

// A row of the table of workers; who is slow stands out.
std::string WorkerRow(const v1::WorkerStatus& worker);

}  // namespace accrue
