#include "client/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/check.h"
#include "common/philox.h"

namespace accrue {

int32_t Sampler::Draw(const float* logits, int64_t count) {
  ACCRUE_CHECK(count >= 1);
  const auto value = [logits](int32_t id) {
    return std::isfinite(logits[id]) ? logits[id] : -std::numeric_limits<float>::infinity();
  };
  order_.resize(static_cast<size_t>(count));
  std::iota(order_.begin(), order_.end(), 0);
  const int64_t kept = options_.top_k > 0 ? std::min(options_.top_k, count) : count;
  // Equal logits in the order of their ids.
  const auto before = [&](int32_t a, int32_t b) {
    return value(a) != value(b) ? value(a) > value(b) : a < b;
  };
  if (kept < count) std::nth_element(order_.begin(), order_.begin() + kept - 1, order_.end(), before);
  order_.resize(static_cast<size_t>(kept));
  const int32_t best = *std::min_element(order_.begin(), order_.end(), before);
  if (options_.temperature <= 0 || std::isinf(value(best))) return best;
  std::sort(order_.begin(), order_.end());

  double sum = 0;
  const auto weight = [&](int32_t id) {
    return std::exp((static_cast<double>(value(id)) - value(best)) / options_.temperature);
  };
  for (const int32_t id : order_) sum += weight(id);
  const PhiloxBlock block = Philox4x32({draws_++, 0, 0, 0x53414d50}, options_.seed);
  const double uniform = (static_cast<double>(block[0]) * 4294967296.0 + block[1]) / 18446744073709551616.0;
  double left = uniform * sum;
  for (const int32_t id : order_) {
    left -= weight(id);
    if (left < 0) return id;
  }
  return best;  // the rounding of the sums ate the rest
}

}  // namespace accrue
