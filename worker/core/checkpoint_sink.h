// Where a runner's checkpoint shards go.
#pragma once

#include "accrue/v1/worker.pb.h"
#include "worker/optimizer/training_state.h"

namespace accrue {

class CheckpointSink {
 public:
  virtual ~CheckpointSink() = default;
  // Takes the snapshot before it returns (the state may change afterwards) and writes it later; CheckpointWritten with
  // `key` tells the coordinator how that went.
  virtual void Write(const v1::Key& key, const v1::CheckpointOrder& order, const TrainingState& state) = 0;
};

}  // namespace accrue
