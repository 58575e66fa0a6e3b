// The link to the coordinator and its rendezvous store, over gRPC.
//
// Every stream has a connection of its own, so that no attempt waits for what became of an older one; the store's calls
// go over that of the newest.
//
// Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "worker/collective/collective.h"
#include "worker/core/link.h"

namespace accrue {

class GrpcCoordinator {
 public:
  // Does not connect yet. address: HOST:PORT.
  static std::unique_ptr<GrpcCoordinator> Create(const std::string& address);
  virtual ~GrpcCoordinator() = default;

  virtual LinkFactory& links() = 0;
  virtual RendezvousStore& store() = 0;
};

}  // namespace accrue
