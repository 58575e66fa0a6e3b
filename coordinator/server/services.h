// The gRPC services, behind plain functions so that few files see gRPC's headers.
//
// Thread-safe. A service must outlive the server that it is registered with, and what it is given must outlive it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "coordinator/journal/journal.h"
#include "coordinator/server/coordinator.h"
#include "coordinator/server/rendezvous_store.h"

namespace grpc {
class Service;
}

namespace accrue {

// The workers' streams and rendezvous store (callback API: a thread per stream would not do for many workers).
std::unique_ptr<grpc::Service> MakeWorkerService(Coordinator& coordinator, RendezvousStore& rendezvous,
                                                 const Clock& clock);

// What people and tools call (a thread per call: they are few, and limited).
std::unique_ptr<grpc::Service> MakeJobService(Coordinator& coordinator, Journal& journal, FileSystem& file_system,
                                              std::vector<std::string> data_roots);

}  // namespace accrue
