// Structured logs of the daemons, to standard error: text for people, or one JSON object a line.
//
//   LogInfo("window committed", {{"job", job_id}, {"window", 12}, {"loss", 3.25}});
//
//   2026-01-02T03:04:05.678Z info  window committed job=headers-1 window=12 loss=3.25
//   {"time":"2026-01-02T03:04:05.678Z","level":"info","message":"window committed","job":"headers-1","window":12,...}
//
// Thread-safe; a line is written whole. The message is constant text, what varies goes into the fields. Before
// SetUpLogging, what is at least `info` is written as text.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/variant.h"

namespace accrue {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// From "debug", "info", "warning", "error"; INVALID_ARGUMENT names what is allowed.
absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view text);
// From "text", "json".
absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view text);

// May be called again; the later call counts.
void SetUpLogging(LogLevel level, LogFormat format);

// Refers to the caller's text: lives within one call of Log.
struct LogField {
  template <typename T>
  LogField(absl::string_view name, const T& value) : name(name), value(Convert(value)) {}

  absl::string_view name;
  absl::variant<absl::string_view, int64_t, uint64_t, double, bool> value;

 private:
  template <typename T>
  static decltype(value) Convert(const T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      return value;
    } else if constexpr (std::is_floating_point_v<T>) {
      return static_cast<double>(value);
    } else if constexpr (std::is_unsigned_v<T>) {
      return static_cast<uint64_t>(value);
    } else if constexpr (std::is_integral_v<T>) {
      return static_cast<int64_t>(value);
    } else if constexpr (std::is_same_v<T, absl::Status>) {
      return value.message();
    } else if constexpr (requires { value.value(); }) {  // the identifiers of common/ids.h
      return static_cast<int64_t>(value.value());
    } else {
      return absl::string_view(value);
    }
  }
};

void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields = {});

inline void LogDebug(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kDebug, message, fields);
}
inline void LogInfo(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kInfo, message, fields);
}
inline void LogWarning(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kWarning, message, fields);
}
inline void LogError(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kError, message, fields);
}

// The line that Log writes, without time and level in text; a whole JSON object without "time" for kJson. For tests.
std::string FormatLogLine(LogFormat format, LogLevel level, absl::string_view message,
                          std::initializer_list<LogField> fields);

}  // namespace accrue
