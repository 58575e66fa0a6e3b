// What the state operations need of a device: launches of their kernels, and a way for small results to the
// host.
//
// Not thread-safe: one compute thread drives a device. Launches and reads are done in call order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "worker/backend/cuda/kernels/hash.h"
#include "worker/backend/cuda/kernels/scan.h"
#include "worker/backend/cuda/kernels/square_sums.h"
#include "worker/backend/cuda/kernels/update.h"

namespace accrue::cuda {

class StateDevice {
 public:
  virtual ~StateDevice() = default;

  // One launch of the body that takes these arguments, for chunks 0 .. chunks - 1 of the arrays that they
  // name.
  virtual void Launch(const QuantizeArgs& args, int64_t chunks) = 0;
  virtual void Launch(const InspectArgs& args, int64_t chunks) = 0;
  virtual void Launch(const FloatAddArgs& args, int64_t chunks) = 0;
  virtual void Launch(const WeightedSumArgs& args, int64_t chunks) = 0;
  virtual void Launch(const SquareSumArgs& args, int64_t chunks) = 0;
  virtual void Launch(const UpdateKernelArgs& args, int64_t chunks) = 0;
  virtual void Launch(const HashArgs& args, int64_t chunks) = 0;

  // Device memory for what launches report, aligned to 16; room for kChunkResultBytes of one chunk at least.
  virtual void* results() = 0;
  virtual size_t result_bytes() const = 0;
  // The most that a launch reports of a chunk: the hashes of p, m and v.
  static constexpr size_t kChunkResultBytes = 3 * sizeof(xxh3::Canonical);
  // Its first size_bytes once everything launched so far is done, in host memory that is valid until the next
  // call.
  virtual const void* ReadResults(size_t size_bytes) = 0;
};

}  // namespace accrue::cuda
