// Parameters, optimizer moments, exponents, loss scale and scalars of a job on one worker: all that a digest covers, a
// checkpoint holds and a joiner copies.
//
// Not thread-safe, but what is const may be called by several threads. Memory is the backend's.
//
// Invariants:
//  1. `window()` updates are applied; `steps()` of them were not skipped.
//  2. digest() is the hash of docs/numerics.md, section 9, of exactly what is held.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/hash.h"
#include "common/loss_scale.h"
#include "worker/accumulate/accumulator.h"
#include "worker/backend/backend.h"
#include "worker/engine/layout.h"

namespace accrue {

struct OptimizerConfig {
  OptimizerKind kind = OptimizerKind::kAdamW;
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1, momentum = 0.9;
  double clip_norm = 1.0;  // 0: no clipping
};

// Scalars of one step, as the plan brings them.
struct StepInput {
  float learning_rate = 0, bias_correction1 = 1, bias_correction2 = 1;
  int64_t valid_tokens = 0;
  std::vector<int> next_exponents;  // empty in fast mode
  std::optional<LossScale> next_loss_scale;  // of fp16
};

struct StepOutcome {
  double gradient_norm = 0;  // before clipping
  double clip_coefficient = 1;
  Hash128 digest;
};

// Elements [first, first + elements) of a tensor: whole chunks.
struct StateRun {
  int tensor = 0;
  int64_t first = 0, elements = 0;
};

// One array of one tensor in a state: "p", "m" or "v".
struct StateArray {
  std::string tensor;
  char array = 'p';
  std::vector<int64_t> shape;
  int64_t elements = 0;
};

class TrainingState {
 public:
  // The layout and backend must outlive the state.
  static absl::StatusOr<std::unique_ptr<TrainingState>> Create(const OptimizerConfig& config,
                                                               AccumulationMode mode,
                                                               const ParameterLayout& layout,
                                                               Backend& backend);
  virtual ~TrainingState() = default;

  virtual float* parameters() = 0;  // layout().arena_elements(), in the backend's memory
  virtual const ParameterLayout& layout() const = 0;
  virtual AccumulationMode mode() const = 0;
  virtual int64_t window() const = 0;
  virtual int64_t steps() const = 0;
  // Of the next window; empty before the probe, and in fast mode.
  virtual const std::vector<int>& exponents() const = 0;

  // Sets parameters from host memory, zero moments, window 0, no loss scale.
  virtual void Start(const float* host_arena) = 0;
  // Of the next window, in fp16; nothing before the first step.
  virtual const std::optional<LossScale>& loss_scale() const = 0;
  virtual void SetLossScale(const std::optional<LossScale>& loss_scale) = 0;
  // Sets the exponents of window 0 after the probe.
  virtual void SetExponents(const std::vector<int>& exponents) = 0;

  // Applies the accumulator's sums (all buckets final) and raises window and steps.
  virtual StepOutcome Step(Accumulator& accumulator, const StepInput& input) = 0;
  // Raises window only.
  virtual StepOutcome Skip() = 0;

  virtual Hash128 Digest() = 0;
  // Of the parameters alone, read from memory; compute_copy may be null (fp32).
  virtual Hash128 ParameterHash(const void* compute_copy) = 0;
  // The same of the parameters as the last step or digest left them: takes its chunk hashes, and reads the copy alone.
  virtual Hash128 HeldParameterHash(const void* compute_copy) = 0;

  // The arrays of the state in digest order, and access to them by index into that list: for checkpoints and
  // joiners. Host memory; little-endian binary32.
  virtual const std::vector<StateArray>& arrays() const = 0;
  virtual void ReadArray(int index, float* host) const = 0;
  virtual void WriteArray(int index, const float* host) = 0;
  // The same of a run, in all of its arrays: p, then m, then v. WriteRun and StepRun leave window and steps as they are.
  virtual void ReadRun(const StateRun& run, float* host) const = 0;
  virtual void WriteRun(const StateRun& run, const float* host) = 0;
  // What Step does to the run, in exact mode: sums (of the run, in the backend's memory), the tensor's exponent of that
  // window, and the clip coefficient of the whole.
  virtual void StepRun(const StateRun& run, const int64_t* sums, int exponent, double clip_coefficient,
                       const StepInput& input) = 0;
  // Where an array lies in the backend's memory: to be read; to be written as WriteArray would.
  virtual const float* ArrayData(int index) const = 0;
  virtual float* MutableArrayData(int index) = 0;
  // The loss scale stays.
  virtual void SetProgress(int64_t window, int64_t steps, const std::vector<int>& exponents) = 0;
};

}  // namespace accrue
