// One worker process: joins a coordinator, runs the jobs that it is assigned, and comes back after a lost connection.
//
// Each stream is one life, an incarnation: when it breaks, the job held is dropped, and the next stream is a new life
// that the coordinator gives the state again. Run is called by one thread, which becomes the compute thread; Drain by
// any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "accrue/v1/worker.pb.h"
#include "common/clock.h"
#include "worker/core/abort_deadline.h"
#include "worker/core/checkpoint_sink.h"
#include "worker/core/collective_guard.h"
#include "worker/core/inbox.h"
#include "worker/core/job.h"
#include "worker/core/link.h"

namespace accrue {

struct WorkerOptions {
  v1::Hello hello;  // incarnation 0
  int64_t welcome_timeout_ms = 10'000;
  int64_t first_backoff_ms = 100;  // doubles up to the longest
  int64_t longest_backoff_ms = 5'000;
  int64_t collective_deadline_ms = 20'000;
  int64_t abort_deadline_ms = 5'000;  // for an aborted operation to return
};

// What a worker works with; all of it must outlive the worker.
struct WorkerParts {
  LinkFactory& links;
  JobFactory& jobs;
  CollectiveFactory& collectives;
  std::function<std::unique_ptr<CheckpointSink>(CoordinatorLink&)> make_checkpoint_sink;
  const Clock& clock;
  // Called with what hangs when the abort deadline has passed.
  std::function<void(const std::string& what)> end_process = EndProcess;
};

class Worker {
 public:
  Worker(const WorkerOptions& options, const WorkerParts& parts) : options_(options), parts_(parts) {}

  // Until Drain is called and the job at hand has let go, or the coordinator ends the process: OK. FAILED_PRECONDITION
  // when the coordinator refuses this worker for good (another version).
  absl::Status Run();

  // Finishes the window at hand, then leaves.
  void Drain(const std::string& reason);

 private:
  struct LifeEnd {
    enum class Kind { kLost, kDrained, kShutDown, kRefused } kind = Kind::kLost;
    std::string reason;
    bool welcomed = false;
  };

  LifeEnd Live();
  LifeEnd Serve(CoordinatorLink& link, CollectiveGuard& guard, CheckpointSink& checkpoints, int64_t incarnation);

  const WorkerOptions options_;
  const WorkerParts parts_;
  Inbox inbox_;  // of all lives; emptied between them
  std::atomic<bool> draining_{false};
};

}  // namespace accrue
