// Checks of options, in words for people: CLI11's own tell a range by both its ends, of which one has 309 digits.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace accrue {

// A number above 0; of 0 or above.
CLI::Validator PositiveNumber();
CLI::Validator NonNegativeNumber();

// Whether it can be an address to connect to: HOST:PORT.
bool IsHostPort(const std::string& address);

}  // namespace accrue
