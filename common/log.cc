#include "common/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace accrue {
namespace {

std::atomic<LogFormat> log_format{LogFormat::kText};

// "%L"-like names of spdlog are not ours: levels are spelled as the flags spell them.
constexpr const char* kLevelNames[] = {"debug", "info", "warning", "error"};

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// The pattern only adds the time, in UTC; the rest of the line is made here.
void SetPattern(spdlog::logger& logger, LogFormat format) {
  logger.set_pattern(format == LogFormat::kText ? "%Y-%m-%dT%H:%M:%S.%eZ %v" : R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ",%v)",
                     spdlog::pattern_time_type::utc);
}

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto made = std::make_shared<spdlog::logger>("accrue", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_level(spdlog::level::info);
    made->flush_on(spdlog::level::debug);
    SetPattern(*made, LogFormat::kText);
    return made;
  }();
  return *logger;
}

// Quoted when it is empty or holds what would make the line ambiguous.
std::string TextValue(absl::string_view value) {
  const bool plain = !value.empty() && value.find_first_of(" \t\r\n\"=") == absl::string_view::npos;
  if (plain) return std::string(value);
  return nlohmann::json(std::string(value)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

nlohmann::ordered_json JsonValue(const LogField& field) {
  return absl::visit(
      [](const auto& value) -> nlohmann::ordered_json {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, absl::string_view>) {
          return std::string(value);
        } else if constexpr (std::is_same_v<T, double>) {
          // JSON has no NaN and no infinity.
          if (!std::isfinite(value)) return absl::StrCat(value);
          return value;
        } else {
          return value;
        }
      },
      field.value);
}

std::string TextField(const LogField& field) {
  return absl::visit(
      [](const auto& value) -> std::string {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, absl::string_view>) {
          return TextValue(value);
        } else if constexpr (std::is_same_v<T, bool>) {
          return value ? "true" : "false";
        } else {
          return absl::StrCat(value);
        }
      },
      field.value);
}

}  // namespace

absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view text) {
  for (int i = 0; i < 4; ++i) {
    if (text == kLevelNames[i]) return static_cast<LogLevel>(i);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("expected a log level of debug, info, warning or error, found \"", text, "\""));
}

absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view text) {
  if (text == "text") return LogFormat::kText;
  if (text == "json") return LogFormat::kJson;
  return absl::InvalidArgumentError(absl::StrCat("expected a log format of text or json, found \"", text, "\""));
}

void SetUpLogging(LogLevel level, LogFormat format) {
  Logger().set_level(ToSpdlog(level));
  SetPattern(Logger(), format);
  log_format = format;
}

std::string FormatLogLine(LogFormat format, LogLevel level, absl::string_view message,
                          std::initializer_list<LogField> fields) {
  const char* const level_name = kLevelNames[static_cast<int>(level)];
  if (format == LogFormat::kText) {
    std::string line = absl::StrCat(level_name, " ", message);
    for (const LogField& field : fields) absl::StrAppend(&line, " ", field.name, "=", TextField(field));
    return line;
  }
  nlohmann::ordered_json line;
  line["level"] = level_name;
  line["message"] = std::string(message);
  for (const LogField& field : fields) line[std::string(field.name)] = JsonValue(field);
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields) {
  spdlog::logger& logger = Logger();
  if (!logger.should_log(ToSpdlog(level))) return;
  const LogFormat format = log_format;
  std::string line = FormatLogLine(format, level, message, fields);
  // The pattern wrote the opening brace, with the time.
  if (format == LogFormat::kJson) line.erase(0, 1);
  logger.log(ToSpdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace accrue
