// How much memory a job takes on a worker: a dry run of what the worker does when it loads the job.
//
// Thread-safe: the function shares nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "accrue/v1/job.pb.h"
#include "worker/backend/backend.h"
#include "worker/model/activations.h"

namespace accrue {

// Bytes, of one worker, whatever the number of workers.
struct MemoryEstimate {
  int64_t parameters = 0;        // how many there are
  int64_t parameter_bytes = 0;   // binary32
  int64_t compute_copy_bytes = 0;  // bf16, fp16: the parameters that are computed with; else 0
  int64_t optimizer_bytes = 0;   // moments
  int64_t accumulator_bytes = 0;
  int64_t activation_bytes = 0;  // of one unit
  int64_t gradient_bytes = 0;    // of one unit: scratch for the tensors that one operation gives, and for the head
  int64_t staging_bytes = 0;     // a bucket on its way through the all-reduce
  int64_t total_bytes = 0;       // of all of the above
  int buffers = 0;               // that the total is allocated in

  // Beside the total, in host memory while a checkpoint is written; the workers of a job share it.
  int64_t checkpoint_bytes = 0;
  // Beside the total, on a worker that sends its state to one that joins; 0 where that happens between two windows.
  int64_t joining_bytes = 0;

  // What does not depend on the unit, scratch and staging aside.
  int64_t StateBytes() const {
    return parameter_bytes + compute_copy_bytes + optimizer_bytes + accumulator_bytes;
  }
};

// Takes a valid spec with defaults whose model's shape is known. INVALID_ARGUMENT for one that no worker can load.
absl::StatusOr<MemoryEstimate> EstimateMemory(const v1::JobSpec& spec);

// What a job takes at a recompute level, all else being as its spec has it.
struct LevelEstimate {
  Recompute recompute = Recompute::kNone;
  int64_t activation_bytes = 0;
  int64_t total_bytes = 0;
  // With which the total is within what was given: the largest divisor of batch.sequences; 0: not even 1 is.
  int64_t largest_micro_batch = 0;
};

// In the order of kRecomputeLevels. estimate: of the spec.
absl::StatusOr<std::vector<LevelEstimate>> EstimateLevels(const v1::JobSpec& spec,
                                                          const MemoryEstimate& estimate,
                                                          int64_t memory_bytes);

// Sees to it, before anything is loaded, that the backend has room for all that the job will allocate there;
// takes it at once where the backend wants that. RESOURCE_EXHAUSTED with what the job takes, what is free,
// and with which settings it would fit.
absl::Status ReserveMemory(const v1::JobSpec& spec, Backend& backend);

}  // namespace accrue
