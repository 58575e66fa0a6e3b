// Numbers as people read them, messages as JSON, tables. Pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "accrue/v1/client.pb.h"

namespace accrue {

std::string FormatCount(int64_t value);        // 1,234,567
std::string FormatDuration(double seconds);    // 0.4s, 42s, 3m 05s, 2h 07m, 3d 04h
std::string FormatBytes(uint64_t size_bytes);  // 512 B, 1.5 GiB
// Of 80GiB, 1.5 TB (thousands), 512m or a number of bytes. INVALID_ARGUMENT for anything else, and for less than 1 MiB,
// which no device has: a unit was forgotten.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);
std::string FormatParameters(int64_t count);   // 124.4M
std::string FormatLoss(double loss);           // 3.2145
std::string FormatRate(double learning_rate);  // 6.00e-04
std::string FormatTime(int64_t unix_ns);       // 2026-01-02T03:04:05Z

// "succeeded" of JOB_STATE_SUCCEEDED.
std::string StateName(v1::JobState state);
// Succeeded, failed or cancelled.
bool HasEnded(v1::JobState state);

// Every field of the message under its own name: integers as numbers, enums as their names in lower case,
// absent optional fields and numbers that are not finite as null. A JobSpec as CanonicalJson has it.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

// The fields of an object as an indented block of YAML.
std::string FormatFields(const nlohmann::ordered_json& object, const std::string& indent);

// Columns as wide as their widest cell, two spaces apart, the first row being their titles; columns of
// numbers to the right.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

}  // namespace accrue
