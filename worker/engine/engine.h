// The seam between windows and models: an engine names its parameter tensors and computes one unit. Nothing
// outside an engine knows what a layer is.
//
// Not thread-safe: one thread calls an engine. It may use the backend's threads inside.
// Ownership: the parameter arena is the caller's (TrainingState); the engine reads it where BindParameters said.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/layout.h"

namespace accrue {

// One micro-batch. Host memory, valid during the call only.
struct UnitInput {
  int64_t rows = 0;                  // B: sequences
  int64_t sequence_length = 0;       // T
  const int32_t* tokens = nullptr;   // [B, T]
  const int32_t* targets = nullptr;  // [B, T]; -1: not a target
  int64_t window = 0;                // with unit, keys dropout
  int64_t unit = 0;
  int loss_scale_exponent = 0;  // gradients are of the loss times 2^this (docs/numerics.md, section 12); fp16 only
};

struct UnitLoss {
  double loss_sum = 0;       // nats, over valid targets
  int64_t valid_tokens = 0;
};

// Takes each tensor's gradient, once per unit, in any order, as soon as it is complete.
class GradientSink {
 public:
  virtual ~GradientSink() = default;
  // gradient: `elements` of the tensor, binary32, in the backend's memory, of the SUM of the unit's token losses, times
  // the unit's loss scale.
  // Readable until the call returns (on a device: until work queued after it runs).
  virtual void Add(int tensor, const float* gradient) = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;

  virtual const ParameterLayout& layout() const = 0;

  // parameters: layout().arena_elements() in the backend's memory; must outlive the engine's use of it. Call before
  // anything below, and ParametersChanged after every change of what is there.
  virtual void BindParameters(const float* parameters) = 0;
  // Refreshes compute copies (bf16, fp16).
  virtual void ParametersChanged() = 0;
  // The parameters in 16 bits that the computation reads, laid out as the arena; null where it reads the parameters.
  virtual const void* ComputeCopy() const { return nullptr; }

  // Writes initial values, a pure function of the seed (docs/numerics.md, section 3), into host memory of
  // layout().arena_elements(); padding is zeroed.
  virtual void InitializeParameters(uint64_t seed, float* host_arena) const = 0;

  // Forward and backward of one unit. INVALID_ARGUMENT for a shape the engine was not built for, or a token id
  // outside the vocabulary.
  virtual absl::StatusOr<UnitLoss> ComputeUnit(const UnitInput& input, GradientSink& sink) = 0;
  // Forward only, without dropout.
  virtual absl::StatusOr<UnitLoss> EvaluateUnit(const UnitInput& input) = 0;
  // Logits [vocabulary] after the last of `count` tokens (1 <= count <= context), to host memory: for sampling text.
  virtual absl::Status NextTokenLogits(const int32_t* tokens, int64_t count, float* host_logits) = 0;
  virtual int64_t vocabulary() const = 0;

  // Bytes of activations, scratch and compute copies.
  virtual int64_t WorkspaceBytes() const = 0;
};

}  // namespace accrue
