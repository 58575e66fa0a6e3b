// Communicators over NCCL, for memory of a GPU.
//
// Every call of NCCL is non-blocking: the thread that is in an operation looks at the operation, at the communicator's
// state and at Abort in turn, until one of them ends it. An operation that fails, is aborted, or takes longer than the
// deadline takes the communicator with it: ncclCommAbort, made by that same thread, so that no two threads are in NCCL at
// once. Should NCCL itself hang there, worker/core/abort_deadline.h ends the process.
//
// Members find each other by the store: each sets the address of its doorbell, the first one also NCCL's unique id.
//
// The factory is thread-safe and must outlive its communicators; what it is given must outlive it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "worker/collective/collective.h"
#include "worker/collective/nccl/nccl_calls.h"

namespace accrue::nccl {

struct Options {
  std::string bind_address = "127.0.0.1";  // of the doorbell: a host name or address of this machine
};

// INVALID_ARGUMENT for an address that is not this machine's.
absl::StatusOr<std::unique_ptr<CollectiveFactory>> CreateNcclFactory(const Options& options, Calls& calls,
                                                                     const Clock& clock, RendezvousStore* store);

}  // namespace accrue::nccl
