#include "common/exponents.h"

#include <algorithm>
#include <bit>

namespace accrue {

int CeilLog2(float max_abs) {
  const uint32_t bits = std::bit_cast<uint32_t>(max_abs);
  ACCRUE_CHECK(bits < 0x7f800000);  // finite, not negative
  if (bits == 0) return kZeroExponent;
  const uint32_t mantissa = bits & 0x7fffff;
  const int biased = static_cast<int>(bits >> 23);
  if (biased == 0) return static_cast<int>(std::bit_width(mantissa - 1)) - 149;  // mantissa * 2^-149
  return biased - 127 + (mantissa != 0 ? 1 : 0);
}

int CeilLog2(int64_t units) {
  ACCRUE_CHECK(units >= 1);
  return static_cast<int>(std::bit_width(static_cast<uint64_t>(units) - 1));
}

std::vector<int> NextExponents(int64_t units_per_window, const std::vector<int>& max_exponents_over_units) {
  int largest = kZeroExponent;
  for (int exponent : max_exponents_over_units) largest = std::max(largest, exponent);
  if (largest == kZeroExponent) largest = 0;
  const int budget = QuantizedLimitExponent(units_per_window) - kHeadroomBits;
  std::vector<int> exponents;
  exponents.reserve(max_exponents_over_units.size());
  for (int exponent : max_exponents_over_units) {
    const int k = budget - (exponent == kZeroExponent ? largest : exponent);
    exponents.push_back(std::clamp(k, -kMaxExponent, kMaxExponent));
  }
  return exponents;
}

bool NeedsReplay(int64_t units_per_window, const std::vector<int>& max_exponents,
                 const std::vector<int>& exponents) {
  ACCRUE_CHECK(max_exponents.size() == exponents.size());
  for (size_t tensor = 0; tensor < exponents.size(); ++tensor) {
    if (NeedsReplay(units_per_window, max_exponents[tensor], exponents[tensor])) return true;
  }
  return false;
}

void MergeMaxExponents(const std::vector<int>& unit, std::vector<int>& into) {
  if (into.empty()) into.assign(unit.size(), kZeroExponent);
  ACCRUE_CHECK(into.size() == unit.size());
  for (size_t tensor = 0; tensor < unit.size(); ++tensor) into[tensor] = std::max(into[tensor], unit[tensor]);
}

void AddChecksums(const std::vector<uint64_t>& unit, std::vector<uint64_t>& into) {
  if (into.empty()) into.assign(unit.size(), 0);
  ACCRUE_CHECK(into.size() == unit.size());
  for (size_t bucket = 0; bucket < unit.size(); ++bucket) into[bucket] += unit[bucket];
}

}  // namespace accrue
