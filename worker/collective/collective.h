// All-reduce and broadcast among the members of an epoch. Gloo and NCCL implement it; nothing above sees which.
//
// A Communicator's operations are called by one thread, each by all members in the same order. Abort may be called
// by any thread, at any time, and makes a blocked operation return ABORTED within milliseconds; a communicator that
// was aborted or has failed is of no further use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace accrue {

// The key-value store through which members find each other; the coordinator serves it. Thread-safe.
class RendezvousStore {
 public:
  virtual ~RendezvousStore() = default;
  virtual absl::Status Set(const std::string& communicator, const std::string& name, const std::string& value) = 0;
  // Waits for all names. DEADLINE_EXCEEDED after timeout_ms; CANCELLED when the communicator was given up.
  virtual absl::StatusOr<std::vector<std::string>> Get(const std::string& communicator,
                                                       const std::vector<std::string>& names, int64_t timeout_ms) = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // out[i] = sum over members of in[i], wrapping. in and out do not overlap. UNAVAILABLE when a peer is gone,
  // ABORTED after Abort, DEADLINE_EXCEEDED without progress for the communicator's deadline; out is then undefined
  // and in is unchanged.
  virtual absl::Status AllReduce(const int64_t* in, int64_t* out, int64_t elements) = 0;
  virtual absl::Status AllReduce(const float* in, float* out, int64_t elements) = 0;
  // data of `root` to all. Errors as above.
  virtual absl::Status Broadcast(void* data, size_t size_bytes, int root) = 0;
  virtual void Abort() = 0;
};

class CollectiveFactory {
 public:
  virtual ~CollectiveFactory() = default;
  // Meets the other members under this name. A communicator of size 1 needs nobody. deadline_ms bounds the meeting
  // and, later, each operation's wait for progress. DEADLINE_EXCEEDED names the ranks that did not come.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Form(const std::string& name, int rank, int size,
                                                             int64_t deadline_ms) = 0;
};

}  // namespace accrue
