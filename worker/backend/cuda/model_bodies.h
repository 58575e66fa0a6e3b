// Which body a model operation runs, by the element type of its arguments: for the device and for the CPU's
// loops. run(body, blocks), body a value of the body's type; an operation without elements has no blocks.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/elementwise.h"

namespace accrue::cuda {

template <typename Body, typename Run>
void RunGrid(const typename Body::Args& args, const Run& run) {
  run(Body(), Body::Grid(args).blocks());
}

template <template <typename> typename Body, typename Args, typename Run>
void RunTyped(DType dtype, const Args& args, const Run& run) {
  if (dtype == DType::kF32) {
    RunGrid<Body<float>>(args, run);
  } else {
    RunGrid<Body<Bf16>>(args, run);
  }
}

template <typename Run>
void WithConvertBody(const ConvertArgs& args, const Run& run) {
  RunGrid<ConvertBody>(args, run);
}
template <typename Run>
void WithRopeBody(const RopeArgs& args, const Run& run) {
  RunTyped<RopeBody>(args.x.dtype, args, run);
}
template <typename Run>
void WithSwiGluForwardBody(const SwiGluArgs& args, const Run& run) {
  RunTyped<SwiGluForwardBody>(args.y.dtype, args, run);
}
template <typename Run>
void WithSwiGluBackwardBody(const SwiGluArgs& args, const Run& run) {
  RunTyped<SwiGluBackwardBody>(args.dy.dtype, args, run);
}

}  // namespace accrue::cuda
