#include "common/data_tools/records.h"

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace accrue {
namespace {

using Json = nlohmann::json;

}  // namespace

bool IsBlank(absl::string_view line) {
  for (const char c : line) {
    if (!absl::ascii_isspace(static_cast<unsigned char>(c))) return false;
  }
  return true;
}

absl::string_view RecordKindName(RecordKind kind) {
  return kind == RecordKind::kText ? "\"text\"" : "\"prompt\" and \"completion\"";
}

absl::StatusOr<Record> ParseRecord(absl::string_view line, const std::string& place) {
  if (line.size() > kMaxRecordBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": expected a line of at most ", kMaxRecordBytes, " bytes, found ", line.size()));
  }
  Json json;
  try {
    json = Json::parse(line.begin(), line.end());
  } catch (const Json::exception& error) {
    const auto* parse_error = dynamic_cast<const Json::parse_error*>(&error);
    return absl::InvalidArgumentError(
        absl::StrCat(place, ":", parse_error != nullptr ? parse_error->byte : 1,
                     ": expected a JSON object, found something that is not JSON"));
  }
  const auto bad = [&](absl::string_view found) {
    return absl::InvalidArgumentError(absl::StrCat(
        place,
        ": expected an object with \"text\", or with \"prompt\" and \"completion\", each a string; found ",
        found));
  };
  if (!json.is_object()) return bad(json.type_name());
  const auto take = [&](const char* name, std::string* out) -> absl::Status {
    const auto it = json.find(name);
    if (it == json.end()) return bad(absl::StrCat("no \"", name, "\""));
    if (!it->is_string()) return bad(absl::StrCat("a \"", name, "\" that is ", it->type_name()));
    *out = std::move(it->get_ref<std::string&>());
    return absl::OkStatus();
  };
  Record record;
  if (json.contains("prompt") || json.contains("completion")) {
    record.kind = RecordKind::kPromptCompletion;
    if (json.contains("text")) return bad("\"text\" beside \"prompt\" or \"completion\"");
    if (absl::Status status = take("prompt", &record.prompt); !status.ok()) return status;
    if (absl::Status status = take("completion", &record.completion); !status.ok()) return status;
    return record;
  }
  if (absl::Status status = take("text", &record.text); !status.ok()) return status;
  return record;
}

}  // namespace accrue
