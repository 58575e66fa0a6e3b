// Gloo's context over TCP with every member connected to every other: what gloo::rendezvous::Context is, but with one
// key a member and one fetch, a meeting that can be stopped, and each member's Doorbell.
//
// Thread-safety: Meet and the collectives built on this are called by one thread; Close and FailPairs by any.
#pragma once

#include <gloo/context.h>
#include <gloo/transport/device.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/collective/abortable_transport.h"
#include "worker/collective/collective.h"

namespace accrue {

class GlooMesh : public gloo::Context {
 public:
  GlooMesh(int rank, int size, std::shared_ptr<gloo::transport::Device> device);

  // Publishes this member's addresses in the store under the communicator's name, awaits those of all others, and
  // connects, for which there are some 2 s at most, since all are there then. Once. ABORTED after Stop;
  // DEADLINE_EXCEEDED with the ranks that did not come (UnreachableRanks); else the store's errors, or UNAVAILABLE.
  absl::Status Meet(const std::string& name, const std::string& doorbell, int64_t deadline_ms, RendezvousStore& store);

  // Ends a Meet under way, or one to come, or every operation of a mesh that is connected. Only a connection that this
  // side is opening, and that nobody answers, goes on until its time is over.
  void Stop();
  // Makes every pair fail, here and at the peers.
  void FailPairs();

  // The peers whose doorbell cannot be reached; empty before all have met.
  std::vector<int> UnreachablePeers(int64_t timeout_ms) const;

 private:
  absl::Status CreatePairs(int64_t deadline_ms);
  std::string OwnAddresses(const std::string& doorbell) const;
  absl::StatusOr<std::vector<std::string>> AddressesOfAll(const std::string& name, int64_t deadline_ms,
                                                          RendezvousStore& store);
  absl::Status WhoIsMissing(const std::string& name, int64_t deadline_ms, RendezvousStore& store);
  absl::Status Connect(const std::vector<std::string>& addresses);
  absl::Status ConnectTo(int peer, const std::vector<char>& address);
  bool stopped() const;

  mutable absl::Mutex mutex_;
  bool connected_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  int awaited_ ABSL_GUARDED_BY(mutex_) = -1;  // the peer whose connection Meet waits for

  std::shared_ptr<AbortableTransport> transport_;  // all that transportContext_ is
  std::vector<std::string> doorbells_;             // by rank, once all have met
};

// Gloo has no exception of its own for it.
bool IsTimeOut(const std::exception& error);

}  // namespace accrue
