// The worker's side of one stream to the coordinator.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "accrue/v1/worker.pb.h"

namespace accrue {

// Takes what comes from the coordinator. Called by one of the link's threads at a time; must not block.
class LinkReceiver {
 public:
  virtual ~LinkReceiver() = default;
  virtual void OnMessage(v1::CoordinatorMessage message) = 0;
  // The stream is over; nothing follows. Called once.
  virtual void OnLost(const absl::Status& status) = 0;
};

class CoordinatorLink {
 public:
  virtual ~CoordinatorLink() = default;
  // Queues a message; the order is kept. Thread-safe, never blocks. Without effect once the stream is over.
  virtual void Send(v1::WorkerMessage message) = 0;
  // Sends what is queued, ends the stream and waits, for a bounded time, until it is over.
  virtual void Close() = 0;
};

class LinkFactory {
 public:
  virtual ~LinkFactory() = default;
  // Begins to open a stream, and does not wait for it. The receiver must outlive the link; it is called by other threads
  // than this one, until the link is destroyed. A coordinator that is away shows as OnLost.
  virtual std::unique_ptr<CoordinatorLink> Connect(LinkReceiver* receiver) = 0;
};

}  // namespace accrue
