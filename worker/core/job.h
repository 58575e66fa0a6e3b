// A job on this worker: engine, state, accumulator and data, put together by a JobFactory.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "accrue/v1/worker.pb.h"
#include "common/data/dataset.h"
#include "worker/accumulate/accumulator.h"
#include "worker/backend/backend.h"
#include "worker/data/unit_source.h"
#include "worker/engine/engine.h"
#include "worker/optimizer/training_state.h"

namespace accrue {

// Members in the order of dependence: what comes later uses what comes before.
struct Job {
  std::shared_ptr<Backend> backend;  // of the process: jobs follow each other on it
  std::unique_ptr<Engine> engine;
  std::unique_ptr<TrainingState> state;
  std::unique_ptr<Accumulator> accumulator;
  std::unique_ptr<Dataset> train;
  std::unique_ptr<Dataset> validation;  // null without held-out data
  std::unique_ptr<UnitSource> units;
  // Whether the state is the job's: false when the worker waits for a StateSync.
  bool holds_state = false;
};

class JobFactory {
 public:
  virtual ~JobFactory() = default;
  // Verifies the data, builds the engine, and initialises or reads the state. FAILED_PRECONDITION or NOT_FOUND for data
  // that is not the job's, DATA_LOSS for a damaged checkpoint, RESOURCE_EXHAUSTED when memory is short, UNIMPLEMENTED
  // for what this worker's device cannot do: these say that this worker is unfit. INVALID_ARGUMENT: nobody can run it.
  virtual absl::StatusOr<std::unique_ptr<Job>> Load(const v1::AssignJob& assignment) = 0;
};

}  // namespace accrue
