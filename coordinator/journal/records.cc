#include "coordinator/journal/records.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace accrue {
namespace {

using Json = nlohmann::json;

constexpr const char* kStateNames[] = {"waiting",   "starting",  "running", "paused",
                                       "finishing", "succeeded", "failed",  "cancelled"};

std::string PhaseKey(const core::Phase& phase) { return absl::StrCat(phase.name, "_ns"); }

// Runs `read` on the parsed text; the library's exceptions end here.
template <typename Value, typename Read>
absl::StatusOr<Value> Parse(const std::string& text, Read read) {
  try {
    return read(Json::parse(text));
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat("the journal holds a text that it cannot have written: ", error.what()));
  }
}

std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

const char* JobStateName(core::JobState state) { return kStateNames[static_cast<int>(state)]; }

absl::StatusOr<core::JobState> ParseJobState(const std::string& name) {
  for (size_t i = 0; i < std::size(kStateNames); ++i) {
    if (name == kStateNames[i]) return static_cast<core::JobState>(i);
  }
  return absl::DataLossError(absl::StrCat("the journal holds an unknown job state \"", name, "\""));
}

std::string ExponentsToText(const std::vector<int>& exponents) { return Dump(exponents); }

absl::StatusOr<std::vector<int>> ExponentsFromText(const std::string& text) {
  return Parse<std::vector<int>>(text, [](const Json& json) { return json.get<std::vector<int>>(); });
}

std::string LossScaleToText(const std::optional<LossScale>& scale) {
  return scale ? absl::StrCat(scale->exponent, " ", scale->good_windows) : "";
}

absl::StatusOr<std::optional<LossScale>> LossScaleFromText(const std::string& text) {
  if (text.empty()) return std::nullopt;
  LossScale scale;
  const std::vector<std::string> parts = absl::StrSplit(text, ' ');
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &scale.exponent) ||
      !absl::SimpleAtoi(parts[1], &scale.good_windows) || !scale.IsPossible()) {
    return absl::DataLossError(absl::StrCat("the journal holds a loss scale that it cannot have written: ", text));
  }
  return std::make_optional(scale);
}

std::string MembersToText(const std::vector<Incarnation>& members) {
  Json json = Json::array();
  for (Incarnation member : members) json.push_back(member.value());
  return Dump(json);
}

absl::StatusOr<std::vector<Incarnation>> MembersFromText(const std::string& text) {
  return Parse<std::vector<Incarnation>>(text, [](const Json& json) {
    std::vector<Incarnation> members;
    for (const Json& member : json) members.push_back(Incarnation(member.get<int64_t>()));
    return members;
  });
}

std::string NamesToText(const std::vector<std::string>& names) { return Dump(names); }

absl::StatusOr<std::vector<std::string>> NamesFromText(const std::string& text) {
  return Parse<std::vector<std::string>>(text, [](const Json& json) { return json.get<std::vector<std::string>>(); });
}

std::string SizesToText(const std::vector<int64_t>& sizes) { return Dump(sizes); }

absl::StatusOr<std::vector<int64_t>> SizesFromText(const std::string& text) {
  return Parse<std::vector<int64_t>>(text, [](const Json& json) { return json.get<std::vector<int64_t>>(); });
}

std::string WorkersToText(const std::vector<core::WorkerWindow>& workers) {
  Json json = Json::array();
  for (const core::WorkerWindow& worker : workers) {
    Json entry = {{"incarnation", worker.incarnation.value()},
                  {"name", worker.name},
                  {"units", worker.units},
                  {"gradient_norm", worker.gradient_norm},  // null when it is not finite
                  {"memory_bytes", worker.memory_bytes}};
    for (const core::Phase& phase : core::kPhases) entry[PhaseKey(phase)] = worker.phases.*phase.ns;
    json.push_back(std::move(entry));
  }
  return Dump(json);
}

absl::StatusOr<std::vector<core::WorkerWindow>> WorkersFromText(const std::string& text) {
  return Parse<std::vector<core::WorkerWindow>>(text, [](const Json& json) {
    std::vector<core::WorkerWindow> workers;
    for (const Json& entry : json) {
      core::WorkerWindow worker;
      worker.incarnation = Incarnation(entry.at("incarnation").get<int64_t>());
      worker.name = entry.at("name").get<std::string>();
      worker.units = entry.at("units").get<int64_t>();
      const Json& norm = entry.at("gradient_norm");
      worker.gradient_norm = norm.is_null() ? std::numeric_limits<double>::quiet_NaN() : norm.get<double>();
      worker.memory_bytes = entry.at("memory_bytes").get<int64_t>();
      for (const core::Phase& phase : core::kPhases) worker.phases.*phase.ns = entry.at(PhaseKey(phase)).get<int64_t>();
      workers.push_back(std::move(worker));
    }
    return workers;
  });
}

}  // namespace accrue
