// A worker's sum of the gradients of its units in one window, and what proves what is in it.
//
// Not thread-safe. Memory is the backend's, allocated once.
//
// Invariants:
//  1. Between units, buckets [0, final_buckets()) hold sums over all members; the others, which are open, hold exactly
//     units(): those of them that came after a bucket became final are not in that one again.
//  2. Add is called for every tensor of the layout once between a Begin and FinishUnit.
//  3. A unit is added to open buckets only; what FinishUnit says of it is of the whole unit all the same, as any other
//     accumulator with these exponents would say it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/exponents.h"
#include "worker/backend/backend.h"
#include "worker/engine/engine.h"

namespace accrue {

enum class AccumulationMode { kExact, kFast };

// What a unit report says of a unit's gradient; docs/numerics.md, sections 5 and 6 (common/exponents.h).
struct UnitStats {
  int64_t unit = 0;
  bool non_finite = false;
  std::vector<int> max_exponents;          // per tensor: ceil_log2(max|g|), or kZeroExponent
  std::vector<uint64_t> bucket_checksums;  // per bucket, final or not; empty in fast mode and for a probe
  int64_t vanished_elements = 0;
};

class Accumulator : public GradientSink {
 public:
  // The layout and backend must outlive the accumulator. RESOURCE_EXHAUSTED when memory is short.
  static absl::StatusOr<std::unique_ptr<Accumulator>> Create(AccumulationMode mode,
                                                             const ParameterLayout& layout, Backend& backend);

  // Forgets all units, one under way included. exponents: k per tensor (ignored in fast mode, where it may be
  // empty).
  virtual void Reset(const std::vector<int>& exponents) = 0;
  // Gradients given from here on are of the loss times 2^exponent, which is taken off exactly: what FinishUnit, the sums of
  // exact mode and Norm say is of the loss itself. The sums of fast mode stay multiplied. Between units; of a window, one.
  virtual void SetLossScale(int exponent) = 0;
  virtual int loss_scale_exponent() const = 0;
  // The next Add calls belong to this unit.
  virtual void BeginUnit(int64_t unit) = 0;
  // Like BeginUnit, with the same stats, but nothing is accumulated: for a unit that is computed to be compared.
  virtual void BeginAudit(int64_t unit) = 0;
  // Like BeginUnit, but nothing is accumulated: only the maxima are taken.
  virtual void BeginProbe() = 0;
  // Valid until the next Begin.
  virtual const UnitStats& FinishUnit() = 0;

  // Units in the accumulator, in the order of their coming.
  virtual const std::vector<int64_t>& units() const = 0;
  virtual int final_buckets() const = 0;  // buckets become final in order
  bool final(int bucket) const { return bucket < final_buckets(); }

  // The sums of a bucket: layout.buckets()[b].elements values in the backend's memory. Zero for a window
  // without units. The int64 form in exact mode, the float form in fast mode.
  virtual int64_t* ExactBucket(int bucket) = 0;
  virtual float* FastBucket(int bucket) = 0;
  // Declares that the memory of bucket final_buckets() now holds the sums over all members.
  virtual void MarkFinal(int bucket) = 0;
  // Linear checksum (section 6) of what the bucket's memory, or `staging` of its size, holds. Exact mode.
  virtual uint64_t BucketChecksum(int bucket) = 0;
  virtual uint64_t StagingChecksum(int bucket, const int64_t* staging) = 0;

  // sqrt of the sum of squares of the sums held, over valid_tokens (section 7, item 2).
  virtual double Norm(int64_t valid_tokens) = 0;

  // Gives away the sums, all of which are final, as they lie in the arena. `replacement`, a buffer of their size from the
  // same backend whose padding is zero, takes their place; the accumulator is then as after a Reset.
  virtual std::unique_ptr<DeviceBuffer> TakeSums(std::unique_ptr<DeviceBuffer> replacement) = 0;

  virtual AccumulationMode mode() const = 0;
  virtual const std::vector<int>& exponents() const = 0;
  // The whole tensor's sums, for the update.
  virtual const int64_t* ExactTensor(int tensor) const = 0;
  virtual const float* FastTensor(int tensor) const = 0;
};

}  // namespace accrue
