#include "common/option_checks.h"

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace accrue {
namespace {

std::string Found(const std::string& text) { return absl::StrCat(", found \"", absl::Utf8SafeCHexEscape(text), "\""); }

}  // namespace

CLI::Validator PositiveNumber() {
  return CLI::Validator(
      [](const std::string& text) {
        double value = 0;
        return absl::SimpleAtod(text, &value) && value > 0 ? "" : "expected a number above 0" + Found(text);
      },
      "");
}

CLI::Validator NonNegativeNumber() {
  return CLI::Validator(
      [](const std::string& text) {
        double value = 0;
        return absl::SimpleAtod(text, &value) && value >= 0 ? "" : "expected a number of 0 or above" + Found(text);
      },
      "");
}

bool IsHostPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  return colon != std::string::npos && colon > 0 && absl::SimpleAtoi(address.substr(colon + 1), &port) && port > 0 &&
         port < 65536;
}

}  // namespace accrue
