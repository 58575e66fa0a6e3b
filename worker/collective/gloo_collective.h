// Communicators over Gloo's TCP transport.
//
// The factory is thread-safe and must outlive its communicators' meetings, and so must the store. Gloo speaks plain TCP
// without authentication: bind it to loopback or to a private network. It writes to connections that peers have closed:
// the process ignores SIGPIPE from the factory's creation on.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/collective/collective.h"

namespace accrue {

struct GlooOptions {
  std::string bind_address = "127.0.0.1";  // a host name or address of this machine that the peers can reach
};

// INVALID_ARGUMENT for an address that is not this machine's.
absl::StatusOr<std::unique_ptr<CollectiveFactory>> CreateGlooFactory(const GlooOptions& options,
                                                                     RendezvousStore* store);

}  // namespace accrue
