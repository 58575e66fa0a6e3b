// The link to the coordinator and its rendezvous store, over gRPC.
//
// Thread-safe. One channel serves both.
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
