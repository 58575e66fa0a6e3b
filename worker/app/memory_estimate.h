// How much memory a job takes on a worker: a dry run of what the worker does when it loads the job.
//
// Thread-safe: the function shares nothing.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "accrue/v1/job.pb.h"
#include "worker/backend/backend.h"

namespace accrue {

// Bytes, of one worker, whatever the number of workers.
struct MemoryEstimate {
  int64_t parameters = 0;        // how many there are
  int64_t parameter_bytes = 0;   // binary32
  int64_t compute_copy_bytes = 0;  // bf16: the parameters that are computed with; 0 in fp32
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
};

// Takes a valid spec with defaults whose model's shape is known. INVALID_ARGUMENT for one that no worker can load.
absl::StatusOr<MemoryEstimate> EstimateMemory(const v1::JobSpec& spec);

// Takes from the backend, where it wants to know ahead, all that the job will allocate there: a device that is too small
// says so before anything is loaded. RESOURCE_EXHAUSTED with what the job takes and what is free.
absl::Status ReserveMemory(const v1::JobSpec& spec, Backend& backend);

}  // namespace accrue
