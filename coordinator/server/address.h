// HOST:PORT, as flags give it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace accrue {

struct Address {
  std::string host;
  int port = 0;  // 0: any
};

// INVALID_ARGUMENT for what is no HOST:PORT; FAILED_PRECONDITION for an address beyond this machine, which would need
// TLS. Hosts are numeric, or "localhost"; IPv6 is written [::1]:7437.
absl::StatusOr<Address> ParseLoopbackAddress(absl::string_view text);

// "127.0.0.1:7437", "[::1]:7437".
std::string AddressText(const std::string& host, int port);

}  // namespace accrue
