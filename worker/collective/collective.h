// All-reduce and broadcast among the members of an epoch. Gloo and NCCL implement it; nothing above sees which. Pointers
// are the memory of the backend that computes, unless called host.
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
  // Meets the other members: once, before the operations. A communicator of size 1 needs nobody. DEADLINE_EXCEEDED
  // when members did not come, CANCELLED when the communicator was given up meanwhile; else errors as below.
  virtual absl::Status Meet() = 0;
  // out[i] = sum over members of in[i], wrapping. in and out do not overlap. UNAVAILABLE when a peer is gone,
  // ABORTED after Abort, DEADLINE_EXCEEDED without progress for the communicator's deadline; out is then undefined
  // and in is unchanged. The status may name ranks: see UnreachableRanks.
  virtual absl::Status AllReduce(const int64_t* in, int64_t* out, int64_t elements) = 0;
  virtual absl::Status AllReduce(const float* in, float* out, int64_t elements) = 0;
  // data of `root`, which is only read there, to all. Errors as above; data of the others is then undefined.
  virtual absl::Status Broadcast(void* data, size_t size_bytes, int root) = 0;
  // The same of host memory.
  virtual absl::Status BroadcastHost(void* data, size_t size_bytes, int root) {
    return Broadcast(data, size_bytes, root);  // where the two are one
  }
  virtual void Abort() = 0;
};

class CollectiveFactory {
 public:
  virtual ~CollectiveFactory() = default;
  // A communicator of this name, before its Meet. deadline_ms bounds the meeting and, later, each operation's wait for
  // progress.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string& name, int rank, int size,
                                                               int64_t deadline_ms) = 0;
  // The same for host memory alone, and for a thread of its own beside the one that computes.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> CreateForHost(const std::string& name, int rank, int size,
                                                                      int64_t deadline_ms) {
    return Create(name, rank, size, deadline_ms);  // where all memory is the host's
  }
  // The same as Create, but its Meet is of another thread, while the one that computes is in operations of other
  // communicators; that one has it from then on. UNIMPLEMENTED where this cannot be. Who wraps a factory must pass
  // it on.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string& name, int rank, int size,
                                                                    int64_t deadline_ms) = 0;
  // Create and Meet, for who need not abort the meeting.
  absl::StatusOr<std::unique_ptr<Communicator>> Form(const std::string& name, int rank, int size, int64_t deadline_ms);
};

// The peers that a failed operation, or a failed meeting, could not reach, as far as that can be told: ascending, of a
// status of a Communicator. Empty when it cannot, and for what was aborted.
std::vector<int> UnreachableRanks(const absl::Status& status);
// No effect on an OK status.
void SetUnreachableRanks(const std::vector<int>& ranks, absl::Status& status);

}  // namespace accrue
