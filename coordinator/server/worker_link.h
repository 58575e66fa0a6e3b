// One worker's connection, as the event loop sees it: implemented by the gRPC stream, and by fakes in tests.
//
// Thread-safe. Neither call blocks.
#pragma once

#include <string>

#include "accrue/v1/worker.pb.h"

namespace accrue {

class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  // Queued and sent in order. Dropped once the connection ends, which the coordinator learns as WorkerGone.
  virtual void Send(v1::CoordinatorMessage message) = 0;
  // As Send, but it may wait for the next Send or Flush, to go with it.
  virtual void Hold(v1::CoordinatorMessage message) = 0;
  virtual void Flush() = 0;
  // Sends Refused after what is queued, and ends the stream. Later calls have no effect.
  virtual void Refuse(const std::string& reason, bool rejoin) = 0;
  // Ends the stream after what is queued, without a refusal: the worker may come back to the next coordinator as the
  // incarnation that it is. Later calls have no effect.
  virtual void Close(const std::string& reason) = 0;
};

}  // namespace accrue
