#include "coordinator/server/address.h"

#include <arpa/inet.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace accrue {
namespace {

bool IsLoopback(const std::string& host, bool& numeric) {
  in_addr v4;
  in6_addr v6;
  numeric = true;
  if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  if (::inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
  numeric = false;
  return false;
}

}  // namespace

absl::StatusOr<Address> ParseLoopbackAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  Address address;
  const bool formed = colon != absl::string_view::npos && colon > 0 &&
                      absl::SimpleAtoi(text.substr(colon + 1), &address.port) && address.port >= 0 &&
                      address.port <= 65535;
  if (formed) address.host = std::string(text.substr(0, colon));
  if (address.host.size() > 2 && address.host.front() == '[' && address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
  }
  if (address.host == "localhost") address.host = "127.0.0.1";
  bool numeric = false;
  const bool loopback = formed && IsLoopback(address.host, numeric);
  if (!formed || !numeric) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected an address like 127.0.0.1:7437 (port 0: any), found \"", text, "\""));
  }
  if (!loopback) {
    return absl::FailedPreconditionError(
        absl::StrCat("refusing to listen on ", text, ": without TLS, which this version does not have, only this machine "
                     "may connect; use a loopback address such as 127.0.0.1:", address.port));
  }
  return address;
}

std::string AddressText(const std::string& host, int port) {
  const bool v6 = host.find(':') != std::string::npos;
  return absl::StrCat(v6 ? "[" : "", host, v6 ? "]" : "", ":", port);
}

}  // namespace accrue
