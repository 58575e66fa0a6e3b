// What a member sends to a newcomer that copies its state beside the work: a begin, then runs of the state in order, and
// between them, for each window that ends meanwhile, what the runs sent so far are stepped by. So whatever the receiver
// holds is of the window that it was told last.
//
// Everything goes by Broadcast from rank 0 of a communicator of the two. All fields are in the machine's order: members
// share a numeric class.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/hash.h"
#include "common/loss_scale.h"
#include "worker/engine/layout.h"
#include "worker/optimizer/training_state.h"

namespace accrue {

// A loss scale that there may be, in the machine's order.
struct PackedLossScale {
  int64_t there = 0, exponent = 0, good_windows = 0;
};
inline PackedLossScale Pack(const std::optional<LossScale>& scale) {
  return scale ? PackedLossScale{1, scale->exponent, scale->good_windows} : PackedLossScale();
}
inline std::optional<LossScale> Unpack(const PackedLossScale& packed) {
  if (packed.there == 0) return std::nullopt;
  return LossScale{static_cast<int>(packed.exponent), packed.good_windows};
}

struct CopyHeader {
  enum Kind : int64_t {
    kBegin = 1,  // exponents follow
    kRun,        // the next run follows: its p, m and v
    kStep,       // next exponents follow; those of the window; then the sums of each run that was sent
    kSkip,       // next exponents follow
    kNothing,    // the source is still there
  };
  static constexpr int64_t kFormat = 2;

  int64_t kind = kNothing;
  int64_t window = 0, steps = 0;  // of the source's state, after a step
  int64_t exponents = 0;          // how many follow
  PackedLossScale loss_scale;     // of the next window; kBegin, kStep and kSkip
  // kBegin
  int64_t format = kFormat, runs = 0, floats = 0;
  // kStep
  double clip_coefficient = 1;
  float learning_rate = 0, bias_correction1 = 1, bias_correction2 = 1, reserved = 0;
  int64_t valid_tokens = 0;
  Hash128 digest;  // kStep and kSkip: of the source's state
};

// Accumulators that a source has beside its own: of the windows whose sums wait, the one that is being sent included. Who
// needs more never gets level.
inline constexpr int kSpareAccumulators = 2;

// All runs of a layout, in order: short, so that nobody waits long for the copying of one.
std::vector<StateRun> StateRunsOf(const ParameterLayout& layout);
// Floats of a run in all arrays of a state.
int64_t FloatsOf(const StateRun& run, const TrainingState& state);
int64_t LongestRun(const std::vector<StateRun>& runs);

}  // namespace accrue
