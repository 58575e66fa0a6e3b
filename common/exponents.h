// The arithmetic of exact accumulation that coordinator and workers share: exponents, the replay condition,
// linear checksums. docs/numerics.md, sections 3, 5 and 6.
//
// Pure functions of integers; thread-safe. No floating-point rounding anywhere.
#pragma once

#include <cstdint>
#include <vector>

#include "common/check.h"
#include "common/philox.h"

namespace accrue {

// Elements of a chunk, the unit in which whole states are summed and hashed.
inline constexpr int64_t kChunkElements = 16384;
// E of a tensor without a non-zero finite gradient element.
inline constexpr int kZeroExponent = -1000;
// k stays within +-kMaxExponent, so that 2^k and 2^-k are normal in binary32.
inline constexpr int kMaxExponent = 126;
// Bits between a tensor's largest element in the last window and the replay condition.
inline constexpr int kHeadroomBits = 10;

// The least e with max_abs <= 2^e; kZeroExponent for 0. Requires a finite max_abs >= 0; subnormals count in
// full.
int CeilLog2(float max_abs);

// The least e with units <= 2^e. Requires units >= 1.
int CeilLog2(int64_t units);

// k per tensor for the window after one whose largest E per tensor, over all of its units, were
// max_exponents_over_units. An all-zero tensor takes the largest E over tensors; if all are zero, E = 0.
std::vector<int> NextExponents(int64_t units_per_window, const std::vector<int>& max_exponents_over_units);

// The largest |g| * 2^k that a unit may bring is 2^QuantizedLimitExponent: the sum of all units then fits
// int64 with a bit to spare.
inline int QuantizedLimitExponent(int64_t units_per_window) { return 62 - CeilLog2(units_per_window); }

// Whether a unit whose tensor has largest exponent max_exponent voids an attempt with exponent k.
inline bool NeedsReplay(int64_t units_per_window, int max_exponent, int k) {
  return max_exponent != kZeroExponent && max_exponent + k > QuantizedLimitExponent(units_per_window);
}
// Of any tensor. Requires lists of equal length.
bool NeedsReplay(int64_t units_per_window, const std::vector<int>& max_exponents,
                 const std::vector<int>& exponents);

// into[i] = the larger of into[i] and unit[i]: E over units. An empty `into` takes the unit's. Otherwise
// requires equal lengths.
void MergeMaxExponents(const std::vector<int>& unit, std::vector<int>& into);

// into[b] += unit[b] modulo 2^64: the checksum of a sum is the sum of the checksums. An empty `into` takes
// the unit's. Otherwise requires equal lengths.
void AddChecksums(const std::vector<uint64_t>& unit, std::vector<uint64_t>& into);

// r_j: of element j of a chunk, odd.
constexpr uint64_t ElementWeight(int64_t element) { return SplitMix64(static_cast<uint64_t>(element)) | 1; }
// R_c: of chunk c of the layout, odd.
constexpr uint64_t ChunkWeight(int64_t chunk) {
  return SplitMix64(static_cast<uint64_t>(chunk) + (uint64_t{1} << 32)) | 1;
}

}  // namespace accrue
