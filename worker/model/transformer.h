// GPT-2 and Llama-family transformers over a backend's operations: the native engine.
//
// Not thread-safe. The backend must outlive the engine, which owns its activations, scratch and weights in 16 bits;
// all of that is allocated by CreateTransformer; nothing is while units are computed. Only a prompt for
// NextTokenLogits that is longer than a unit takes memory of its own for the call.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"
#include "worker/engine/engine.h"
#include "worker/model/activations.h"
#include "worker/model/config.h"

namespace accrue {

struct TransformerOptions {
  ModelConfig model;
  DType precision = DType::kF32;  // of the computation; parameters are binary32 always
  bool tf32 = false;              // with kF32: products of linear layers in TF32
  int64_t rows = 0;               // sequences in a unit
  int64_t sequence_length = 0;    // T, at most model.context
  uint64_t seed = 0;              // of dropout
  Recompute recompute = Recompute::kNone;  // no result depends on it
};

// Tensor names and shapes are Hugging Face's. ComputeUnit takes units of exactly rows x sequence_length;
// EvaluateUnit takes fewer rows too. INVALID_ARGUMENT for a config or a shape that cannot be, UNIMPLEMENTED
// for a precision that the backend does not compute in, RESOURCE_EXHAUSTED when memory is short.
absl::StatusOr<std::unique_ptr<Engine>> CreateTransformer(const TransformerOptions& options,
                                                          Backend& backend);

}  // namespace accrue
