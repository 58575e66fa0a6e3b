// Canonical JSON, its inverse, hashes and differences: all walk the descriptor.
#include <charconv>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/hash.h"
#include "common/spec/job_spec.h"
#include "google/protobuf/util/json_util.h"

namespace accrue {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string JsonString(absl::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      absl::StrAppend(&json, "\\", std::string(1, c));
    } else if (byte < 0x20) {
      absl::StrAppend(&json, "\\u", absl::Hex(byte, absl::kZeroPad4));
    } else {
      json += c;
    }
  }
  return json + "\"";
}

// The shortest text that reads back as the same binary64.
std::string JsonNumber(double value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value);
  ACCRUE_CHECK(error == std::errc());
  return std::string(buffer, end);
}

std::string MessageJson(const Message& message);

// Of the field, or of its index-th item.
std::string ValueJson(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& reflection = *message.GetReflection();
  const bool item = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return JsonString(item ? reflection.GetRepeatedString(message, &field, index)
                             : reflection.GetString(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return JsonNumber(item ? reflection.GetRepeatedDouble(message, &field, index)
                             : reflection.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(reflection.GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(reflection.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return MessageJson(reflection.GetMessage(message, &field));
    default:
      ACCRUE_CHECK(false && "a type that the job file does not have");
      return "";
  }
}

bool Present(const Message& message, const FieldDescriptor& field) {
  return field.is_repeated() ? message.GetReflection()->FieldSize(message, &field) > 0
                             : message.GetReflection()->HasField(message, &field);
}

std::string FieldJson(const Message& message, const FieldDescriptor& field) {
  if (!field.is_repeated()) return ValueJson(message, field, -1);
  std::vector<std::string> items;
  for (int i = 0; i < message.GetReflection()->FieldSize(message, &field); ++i) {
    items.push_back(ValueJson(message, field, i));
  }
  return absl::StrCat("[", absl::StrJoin(items, ","), "]");
}

std::string MessageJson(const Message& message) {
  const Descriptor& descriptor = *message.GetDescriptor();
  std::vector<std::string> fields;
  for (int i = 0; i < descriptor.field_count();
       ++i) {  // job.proto declares them in the order of their numbers
    const FieldDescriptor& field = *descriptor.field(i);
    if (Present(message, field))
      fields.push_back(absl::StrCat("\"", field.name(), "\":", FieldJson(message, field)));
  }
  return absl::StrCat("{", absl::StrJoin(fields, ","), "}");
}

void Compare(const Message& from, const Message& to, const std::string& prefix,
             std::vector<SpecDifference>& differences) {
  const Descriptor& descriptor = *from.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    const std::string path = prefix + field.name();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Compare(from.GetReflection()->GetMessage(from, &field), to.GetReflection()->GetMessage(to, &field),
              path + ".", differences);
      continue;
    }
    const std::string before = Present(from, field) ? FieldJson(from, field) : "";
    const std::string after = Present(to, field) ? FieldJson(to, field) : "";
    if (before != after) differences.push_back({path, before, after});
  }
}

}  // namespace

std::string CanonicalJson(const v1::JobSpec& spec) { return MessageJson(spec); }

std::string SpecHash(const v1::JobSpec& spec) {
  const std::string json = CanonicalJson(spec);
  return HashBytes(json.data(), json.size()).Hex();
}

absl::StatusOr<v1::JobSpec> SpecFromJson(absl::string_view json) {
  v1::JobSpec spec;
  const auto status = google::protobuf::util::JsonStringToMessage(std::string(json), &spec);
  if (!status.ok()) {
    return absl::DataLossError(absl::StrCat("not a job spec in JSON: ", std::string(status.message())));
  }
  return spec;
}

std::vector<SpecDifference> CompareSpecs(const v1::JobSpec& from, const v1::JobSpec& to) {
  std::vector<SpecDifference> differences;
  Compare(from, to, "", differences);
  return differences;
}

std::vector<std::string> SpecDifferences(const v1::JobSpec& from, const v1::JobSpec& to) {
  const auto shown = [](const std::string& value) { return value.empty() ? "not set" : value; };
  std::vector<std::string> lines;
  for (const SpecDifference& difference : CompareSpecs(from, to)) {
    lines.push_back(
        absl::StrCat(difference.field, ": ", shown(difference.from), " -> ", shown(difference.to)));
  }
  return lines;
}

}  // namespace accrue
