// Which body a launch of the state operations runs, and with how many blocks: for the device and for the
// CPU's loops.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/hash.h"
#include "worker/backend/cuda/kernels/scan.h"
#include "worker/backend/cuda/kernels/square_sums.h"
#include "worker/backend/cuda/kernels/update.h"

namespace accrue::cuda {

// run(body, blocks), body a value of the body's type.
template <typename Run>
void WithBody(const QuantizeArgs&, int64_t chunks, const Run& run) {
  run(QuantizeBody(), chunks);
}
template <typename Run>
void WithBody(const InspectArgs&, int64_t chunks, const Run& run) {
  run(InspectBody(), chunks);
}
template <typename Run>
void WithBody(const FloatAddArgs&, int64_t chunks, const Run& run) {
  run(FloatAddBody(), chunks);
}
template <typename Run>
void WithBody(const WeightedSumArgs&, int64_t chunks, const Run& run) {
  run(WeightedSumBody(), chunks);
}
template <typename Run>
void WithBody(const SquareSumArgs& args, int64_t chunks, const Run& run) {
  const int64_t blocks = (chunks + kSquareChunks - 1) / kSquareChunks;
  if (args.sums.exact != nullptr) {
    run(SquareSumBody<true>(), blocks);
  } else {
    run(SquareSumBody<false>(), blocks);
  }
}
template <typename Run>
void WithBody(const UpdateKernelArgs& args, int64_t chunks, const Run& run) {
  const bool adamw = args.v != nullptr, exact = args.sums.exact != nullptr;
  if (adamw && exact) run(UpdateBody<true, true>(), chunks);
  if (adamw && !exact) run(UpdateBody<true, false>(), chunks);
  if (!adamw && exact) run(UpdateBody<false, true>(), chunks);
  if (!adamw && !exact) run(UpdateBody<false, false>(), chunks);
}
template <typename Run>
void WithBody(const HashArgs&, int64_t chunks, const Run& run) {
  run(HashBody(), chunks);
}

}  // namespace accrue::cuda
