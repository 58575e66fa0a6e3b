#include "coordinator/core/difference.h"

#include <bit>

#include "absl/strings/str_cat.h"

namespace accrue::core {
namespace {

std::string Hex(uint64_t value) { return absl::StrCat(absl::Hex(value, absl::kZeroPad16)); }

}  // namespace

std::string Difference(const UnitReport& one, const UnitReport& other) {
  // Compared as bits: -0 and 0 differ, a NaN is itself.
  const auto one_loss = std::bit_cast<uint64_t>(one.loss_sum), other_loss = std::bit_cast<uint64_t>(other.loss_sum);
  if (one_loss != other_loss) {
    return absl::StrCat("loss sums ", one.loss_sum, " (", Hex(one_loss), ") and ", other.loss_sum, " (",
                        Hex(other_loss), ")");
  }
  if (one.valid_tokens != other.valid_tokens) {
    return absl::StrCat(one.valid_tokens, " and ", other.valid_tokens, " valid tokens");
  }
  if (one.non_finite != other.non_finite) {
    return one.non_finite ? "a gradient that is not finite, and one that is"
                          : "a gradient that is finite, and one that is not";
  }
  if (one.max_exponents.size() != other.max_exponents.size()) {
    return absl::StrCat(one.max_exponents.size(), " and ", other.max_exponents.size(), " exponents");
  }
  for (size_t tensor = 0; tensor < one.max_exponents.size(); ++tensor) {
    if (one.max_exponents[tensor] == other.max_exponents[tensor]) continue;
    return absl::StrCat("exponents ", one.max_exponents[tensor], " and ", other.max_exponents[tensor], " of tensor ",
                        tensor);
  }
  if (one.bucket_checksums.size() != other.bucket_checksums.size()) {
    return absl::StrCat(one.bucket_checksums.size(), " and ", other.bucket_checksums.size(), " checksums");
  }
  for (size_t bucket = 0; bucket < one.bucket_checksums.size(); ++bucket) {
    if (one.bucket_checksums[bucket] == other.bucket_checksums[bucket]) continue;
    return absl::StrCat("checksums ", Hex(one.bucket_checksums[bucket]), " and ", Hex(other.bucket_checksums[bucket]),
                        " of bucket ", bucket);
  }
  if (one.vanished_elements != other.vanished_elements) {
    return absl::StrCat(one.vanished_elements, " and ", other.vanished_elements, " vanished elements");
  }
  return "";
}

}  // namespace accrue::core
