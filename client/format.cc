#include "client/format.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "client/terminal.h"
#include "common/check.h"
#include "common/spec/job_spec.h"

namespace accrue {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using nlohmann::ordered_json;

// "running" of JOB_STATE_RUNNING in enum JobState: the value's name without the enum's.
std::string EnumName(const google::protobuf::EnumValueDescriptor& value) {
  std::string prefix;
  for (const char c : value.type()->name()) {
    if (absl::ascii_isupper(static_cast<unsigned char>(c)) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(static_cast<unsigned char>(c));
  }
  return absl::AsciiStrToLower(absl::StripPrefix(value.name(), prefix + "_"));
}

ordered_json Number(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}

ordered_json ValueOf(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool item = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return item ? r.GetRepeatedString(message, &field, index) : r.GetString(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return item ? r.GetRepeatedInt64(message, &field, index) : r.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return item ? r.GetRepeatedUInt64(message, &field, index) : r.GetUInt64(message, &field);
    case FieldDescriptor::CPPTYPE_INT32:
      return item ? r.GetRepeatedInt32(message, &field, index) : r.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT32:
      return item ? r.GetRepeatedUInt32(message, &field, index) : r.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Number(item ? r.GetRepeatedDouble(message, &field, index) : r.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return Number(item ? r.GetRepeatedFloat(message, &field, index) : r.GetFloat(message, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return item ? r.GetRepeatedBool(message, &field, index) : r.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumName(*(item ? r.GetRepeatedEnum(message, &field, index) : r.GetEnum(message, &field)));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ToJson(item ? r.GetRepeatedMessage(message, &field, index) : r.GetMessage(message, &field));
  }
  ACCRUE_CHECK(false);
  return nullptr;
}

}  // namespace

std::string FormatCount(int64_t value) {
  const std::string digits = absl::StrCat(value < 0 ? -value : value);
  std::string grouped;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) grouped += ',';
    grouped += digits[i];
  }
  return value < 0 ? "-" + grouped : grouped;
}

std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e10) return "-";
  if (seconds < 9.95) return absl::StrFormat("%.1fs", seconds);
  const int64_t s = static_cast<int64_t>(seconds + 0.5);
  if (s < 60) return absl::StrFormat("%ds", s);
  if (s < 3600) return absl::StrFormat("%dm %02ds", s / 60, s % 60);
  if (s < 86400) return absl::StrFormat("%dh %02dm", s / 3600, s / 60 % 60);
  return absl::StrFormat("%dd %02dh", s / 86400, s / 3600 % 24);
}

std::string FormatBytes(uint64_t size_bytes) {
  if (size_bytes < 1024) return absl::StrCat(size_bytes, " B");
  const char* const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(size_bytes) / 1024;
  int unit = 0;
  while (value >= 1023.95 && unit < 5) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, units[unit]);
}

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  const std::string lower = absl::AsciiStrToLower(absl::StripAsciiWhitespace(text));
  const size_t digits = std::min(lower.find_first_not_of("0123456789."), lower.size());
  absl::string_view unit = absl::StripLeadingAsciiWhitespace(absl::string_view(lower).substr(digits));
  constexpr absl::string_view kPrefixes = "kmgtp";
  const size_t prefix = unit.empty() ? absl::string_view::npos : kPrefixes.find(unit.front());
  double factor = 1;
  if (prefix != absl::string_view::npos) {
    unit.remove_prefix(1);
    factor = std::pow(absl::ConsumePrefix(&unit, "i") ? 1024 : 1000, static_cast<double>(prefix + 1));
  }
  absl::ConsumePrefix(&unit, "b");
  double number = 0;
  const bool formed = unit.empty() && absl::SimpleAtod(absl::string_view(lower).substr(0, digits), &number);
  const double size_bytes = number * factor;
  if (formed && size_bytes >= 1 << 20 && size_bytes < 9e18) return static_cast<int64_t>(size_bytes);
  return absl::InvalidArgumentError(absl::StrCat(
      "expected a size such as 80GiB, 80GB or a number of bytes, 1 MiB at least; found \"", Printable(text), "\"",
      formed && factor == 1 ? ", which is bytes" : ""));
}

std::string FormatParameters(int64_t count) {
  if (count < 1000) return absl::StrCat(count);
  const char* const units[] = {"k", "M", "B", "T"};
  double value = static_cast<double>(count) / 1000;
  int unit = 0;
  while (value >= 999.95 && unit < 3) {
    value /= 1000;
    ++unit;
  }
  return absl::StrFormat("%.1f%s", value, units[unit]);
}

std::string FormatLoss(double loss) { return absl::StrFormat("%.4f", loss); }
std::string FormatRate(double learning_rate) { return absl::StrFormat("%.2e", learning_rate); }

std::string FormatTime(int64_t unix_ns) {
  const std::time_t seconds = unix_ns / 1'000'000'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  return std::string(text, std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts));
}

std::string StateName(v1::JobState state) {
  const auto* const value = v1::JobState_descriptor()->FindValueByNumber(state);
  return value == nullptr ? absl::StrCat("state ", static_cast<int>(state)) : EnumName(*value);
}

bool HasEnded(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

ordered_json ToJson(const Message& message) {
  if (message.GetDescriptor() == v1::JobSpec::descriptor()) {
    return ordered_json::parse(CanonicalJson(static_cast<const v1::JobSpec&>(message)), nullptr, false);
  }
  ordered_json object = ordered_json::object();
  const google::protobuf::Descriptor& descriptor = *message.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    if (field.is_repeated()) {
      ordered_json& list = object[field.name()] = ordered_json::array();
      for (int k = 0; k < message.GetReflection()->FieldSize(message, &field); ++k) {
        list.push_back(ValueOf(message, field, k));
      }
    } else if (field.has_presence() && !message.GetReflection()->HasField(message, &field)) {
      object[field.name()] = nullptr;
    } else {
      object[field.name()] = ValueOf(message, field, -1);
    }
  }
  return object;
}

std::string FormatFields(const ordered_json& object, const std::string& indent) {
  std::string text;
  for (const auto& [name, value] : object.items()) {
    absl::StrAppend(&text, indent, name, ":");
    if (value.is_object()) {
      absl::StrAppend(&text, "\n", FormatFields(value, indent + "  "));
    } else {
      absl::StrAppend(&text, " ", value.dump(-1, ' ', false, ordered_json::error_handler_t::replace), "\n");
    }
  }
  return text;
}

namespace {

// Not a digest or a job's name that begins with a digit: they have more letters than a unit.
bool LooksNumeric(const std::string& cell) {
  const bool digit = cell.empty() || cell[0] == '-' || absl::ascii_isdigit(static_cast<unsigned char>(cell[0]));
  const auto letter = [](unsigned char c) { return absl::ascii_isalpha(c); };
  return digit && std::count_if(cell.begin(), cell.end(), letter) <= 4;
}

}  // namespace

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<int> widths;
  std::vector<bool> numeric;  // every cell below the title is a number, perhaps with a unit, or is empty
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t c = 0; c < rows[r].size(); ++c) {
      if (widths.size() <= c) widths.push_back(0), numeric.push_back(true);
      const std::string& cell = rows[r][c];
      widths[c] = std::max(widths[c], Columns(cell));
      if (r > 0 && !LooksNumeric(cell)) numeric[c] = false;
    }
  }
  std::string table;
  for (const std::vector<std::string>& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string pad(widths[c] - Columns(row[c]), ' ');
      absl::StrAppend(&line, c > 0 ? "  " : "", numeric[c] ? pad + row[c] : row[c] + pad);
    }
    absl::StrAppend(&table, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  return table;
}

}  // namespace accrue
