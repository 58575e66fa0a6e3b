// compare A B, and verify A B: two runs, window by window.
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/commands.h"
#include "client/compare.h"
#include "client/format.h"
#include "client/run_comparison.h"
#include "client/run_history.h"

namespace accrue {
namespace {

using nlohmann::ordered_json;

// All digits, so that what differs in the last bit looks different.
std::string Exactly(const std::optional<double>& value) {
  return value.has_value() ? ordered_json(*value).dump() : "not finite";
}

std::string WindowsOf(const RunHistory& run) {
  if (run.windows.empty()) return "no windows";
  const int64_t first = run.windows.begin()->first, last = run.windows.rbegin()->first;
  const int64_t missing = last - first + 1 - static_cast<int64_t>(run.windows.size());
  std::string text = first == last ? absl::StrCat("window ", first) : absl::StrCat("windows ", first, " to ", last);
  if (missing > 0) absl::StrAppend(&text, " without ", missing, " of them");
  return text;
}

void PrintRun(std::ostream& out, char letter, const RunHistory& run) {
  out << letter << "  " << Printable(run.source) << ": ";
  if (run.job.has_value()) out << Printable(run.job->job_id()) << ", ";
  out << WindowsOf(run) << "\n";
}

void PrintWindow(std::ostream& out, char letter, const RunWindow& window) {
  out << "  " << letter << "  loss " << Exactly(window.loss) << "  norm " << Exactly(window.gradient_norm) << "  digest "
      << Printable(window.digest) << (window.skipped ? "  skipped" : "") << "\n";
}

std::string Count(int64_t count, absl::string_view noun) {
  return absl::StrCat(FormatCount(count), " ", noun, count == 1 ? "" : "s");
}

// "; A has 3 more windows": what the comparison of windows that both have says nothing of.
std::string Surplus(const RunComparison& comparison) {
  std::string text;
  if (comparison.only_a > 0) absl::StrAppend(&text, "; only A has ", Count(comparison.only_a, "further window"));
  if (comparison.only_b > 0) absl::StrAppend(&text, "; only B has ", Count(comparison.only_b, "further window"));
  return text;
}

void PrintFields(std::ostream& out, const RunComparison& comparison) {
  if (!comparison.fields.has_value()) {
    out << "\nThe specs are not compared: a folder has no job.json.\n";
    return;
  }
  const auto shown = [](const std::string& value) { return value.empty() ? "not set" : Printable(value); };
  const auto print = [&](bool affects_result, absl::string_view title) {
    bool any = false;
    for (const auto& [field, affects] : *comparison.fields) {
      if (affects != affects_result) continue;
      if (!any) out << "\n" << title << "\n";
      any = true;
      out << "  " << field.field << ": " << shown(field.from) << " -> " << shown(field.to) << "\n";
    }
    return any;
  };
  if (!print(true, "The specs differ, from A to B:")) out << "\nThe specs ask for the same.\n";
  print(false, "Different too, without effect on the result:");
}

void PrintComparison(std::ostream& out, const RunHistory& a, const RunHistory& b, const RunComparison& comparison) {
  PrintRun(out, 'A', a);
  PrintRun(out, 'B', b);
  out << "\n";
  switch (comparison.verdict) {
    case RunVerdict::kEqual:
      out << "Equal: " << Count(comparison.common, "window") << " with the same digests.\n";
      break;
    case RunVerdict::kSpecs:
      out << "Only the specs differ: " << Count(comparison.common, "window") << " with the same digests.\n";
      break;
    case RunVerdict::kLonger:
      out << "Equal in the " << Count(comparison.common, "common window") << Surplus(comparison) << ".\n";
      break;
    case RunVerdict::kDigests: {
      const int64_t window = *comparison.first_difference;
      out << "Different from window " << window << " on; " << Count(comparison.equal, "window") << " of "
          << FormatCount(comparison.common) << " equal" << Surplus(comparison) << ".\n";
      PrintWindow(out, 'A', a.windows.at(window));
      PrintWindow(out, 'B', b.windows.at(window));
      break;
    }
  }
  PrintFields(out, comparison);
}

ordered_json JsonOf(const std::optional<double>& value) {
  return value.has_value() ? ordered_json(*value) : ordered_json(nullptr);
}

ordered_json JsonOf(const RunWindow& window) {
  return {{"loss", JsonOf(window.loss)},
          {"gradient_norm", JsonOf(window.gradient_norm)},
          {"digest", window.digest},
          {"skipped", window.skipped}};
}

ordered_json JsonOf(const RunHistory& run) {
  ordered_json object = {{"source", run.source}, {"job_id", nullptr}, {"windows", run.windows.size()},
                         {"first_window", nullptr}, {"last_window", nullptr}};
  if (run.job.has_value()) object["job_id"] = run.job->job_id();
  if (!run.windows.empty()) {
    object["first_window"] = run.windows.begin()->first;
    object["last_window"] = run.windows.rbegin()->first;
  }
  return object;
}

const char* VerdictName(RunVerdict verdict) {
  switch (verdict) {
    case RunVerdict::kEqual:
      return "equal";
    case RunVerdict::kSpecs:
      return "specs";
    case RunVerdict::kLonger:
      return "longer";
    case RunVerdict::kDigests:
      return "digests";
  }
  return "";
}

ordered_json FirstDifference(const RunHistory& a, const RunHistory& b, const RunComparison& comparison) {
  if (!comparison.first_difference.has_value()) return nullptr;
  const int64_t window = *comparison.first_difference;
  return {{"window", window}, {"a", JsonOf(a.windows.at(window))}, {"b", JsonOf(b.windows.at(window))}};
}

ordered_json JsonOf(const RunHistory& a, const RunHistory& b, const RunComparison& comparison) {
  const auto value = [](const std::string& text) {
    return text.empty() ? ordered_json(nullptr) : ordered_json::parse(text, nullptr, false);
  };
  ordered_json fields = nullptr;
  if (comparison.fields.has_value()) {
    fields = ordered_json::array();
    for (const auto& [field, affects] : *comparison.fields) {
      fields.push_back({{"field", field.field}, {"a", value(field.from)}, {"b", value(field.to)},
                        {"affects_result", affects}});
    }
  }
  return {{"equal", comparison.verdict == RunVerdict::kEqual},
          {"verdict", VerdictName(comparison.verdict)},
          {"windows_compared", comparison.common},
          {"windows_equal", comparison.equal},
          {"first_difference", FirstDifference(a, b, comparison)},
          {"only_in_a", comparison.only_a},
          {"only_in_b", comparison.only_b},
          {"spec_differences", fields},
          {"a", JsonOf(a)},
          {"b", JsonOf(b)}};
}

// Both runs; nothing, and the error printed, when one cannot be read.
std::optional<std::pair<RunHistory, RunHistory>> ReadBoth(CommandContext& context, const std::string& a,
                                                          const std::string& b) {
  absl::StatusOr<RunHistory> first = ReadRunHistory(context, a);
  if (!first.ok()) {
    context.Fail(first.status());
    return std::nullopt;
  }
  absl::StatusOr<RunHistory> second = ReadRunHistory(context, b);
  if (!second.ok()) {
    context.Fail(second.status());
    return std::nullopt;
  }
  return std::pair(*std::move(first), *std::move(second));
}

void Compare(CommandContext& context, const std::string& source_a, const std::string& source_b) {
  const auto runs = ReadBoth(context, source_a, source_b);
  if (!runs.has_value()) return;
  const auto& [a, b] = *runs;
  const RunComparison comparison = CompareRuns(a, b);
  if (context.json()) {
    *context.out << JsonOf(a, b, comparison).dump(-1, ' ', false, ordered_json::error_handler_t::replace) << "\n";
  } else {
    PrintComparison(*context.out, a, b, comparison);
  }
  if (comparison.verdict != RunVerdict::kEqual) context.exit_code = kExitError;
}

}  // namespace

void VerifyRuns(CommandContext& context, const std::string& source_a, const std::string& source_b) {
  const auto runs = ReadBoth(context, source_a, source_b);
  if (!runs.has_value()) return;
  const auto& [a, b] = *runs;
  const RunComparison comparison = CompareRuns(a, b);
  const bool ok = comparison.common > 0 && comparison.equal == comparison.common;
  if (context.json()) {
    const ordered_json object = {{"ok", ok},
                                 {"windows_compared", comparison.common},
                                 {"windows_equal", comparison.equal},
                                 {"first_difference", FirstDifference(a, b, comparison)},
                                 {"only_in_a", comparison.only_a},
                                 {"only_in_b", comparison.only_b}};
    *context.out << object.dump(-1, ' ', false, ordered_json::error_handler_t::replace) << "\n";
  } else {
    *context.out << "Equal digests in " << FormatCount(comparison.equal) << " of "
                 << Count(comparison.common, "common window") << Surplus(comparison) << "\n";
    if (comparison.first_difference.has_value()) {
      const int64_t window = *comparison.first_difference;
      *context.out << "The first that differs is window " << window << ":\n";
      PrintWindow(*context.out, 'A', a.windows.at(window));
      PrintWindow(*context.out, 'B', b.windows.at(window));
    }
  }
  if (ok) return;
  if (comparison.common == 0) return context.Fail(kExitError, "there is no window that both runs have");
  context.exit_code = kExitError;
}

void RegisterCompareCommands(CLI::App& app, CommandContext& context) {
  CLI::App* const command = AddCommand(
      app, "compare",
      "Compare two runs: the first window whose digests differ, and how their specs differ, field by field. Exit "
      "code 0: equal, 1: different.",
      "accrue compare runs/first runs/second\naccrue compare headers-1 headers-2 -o json");
  struct Sources {
    std::string a, b;
  };
  const auto sources = std::make_shared<Sources>();
  command->add_option("A", sources->a, "A run's output folder, or a job")->required();
  command->add_option("B", sources->b, "The other one")->required();
  command->callback([&context, sources] { Compare(context, sources->a, sources->b); });
}

}  // namespace accrue
