// One worker process: joins a coordinator and runs the jobs that it is assigned, one after the other.
//
// An incarnation lasts from a Welcome until the coordinator refuses it or it has nothing to keep when its stream ends; what
// it holds outlives the coordinator (worker/core/session.h). Run is called by one thread, which becomes the compute
// thread; Drain and LeaveAtOnce by any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "accrue/v1/worker.pb.h"
#include "common/clock.h"
#include "common/end_process.h"
#include "worker/core/abort_deadline.h"
#include "worker/core/checkpoint_sink.h"
#include "worker/core/collective_guard.h"
#include "worker/core/inbox.h"
#include "worker/core/job.h"
#include "worker/core/link.h"
#include "worker/core/preparer.h"
#include "worker/core/session.h"
#include "worker/core/stall_watch.h"
#include "worker/trace/tracer.h"

namespace accrue {

struct WorkerOptions {
  SessionOptions session;
  int64_t collective_deadline_ms = 20'000;
  int64_t abort_deadline_ms = 5'000;  // for an aborted operation to return
  int64_t stall_ms = 30'000;          // that a unit may stand still for at least; StallWatch
};

// What a worker works with; all of it must outlive the worker.
struct WorkerParts {
  LinkFactory& links;
  JobFactory& jobs;
  CollectiveFactory& collectives;
  std::function<std::unique_ptr<CheckpointSink>(CoordinatorLink&)> make_checkpoint_sink;
  const Clock& clock;
  // Called with what hangs when the abort deadline has passed, or when the compute thread stands still.
  std::function<void(const std::string& what)> end_process = EndProcess;
  Tracer* tracer = nullptr;  // null: nothing is traced
};

class Worker {
 public:
  Worker(const WorkerOptions& options, const WorkerParts& parts)
      : options_(options),
        parts_(parts),
        stall_watch_(absl::Milliseconds(options.stall_ms), parts.end_process),
        abort_deadline_(absl::Milliseconds(options.abort_deadline_ms), parts.end_process),
        preparer_(parts.collectives, options.collective_deadline_ms, &abort_deadline_,
                  [this](v1::WorkerMessage message) { session_.Send(std::move(message)); }),
        session_(options.session, parts.links, inbox_, parts.clock, &abort_deadline_, &preparer_) {}
  ~Worker() { preparer_.Stop(); }

  // Until Drain is called and the job at hand has let go, or the coordinator ends the process: OK. FAILED_PRECONDITION
  // when the coordinator refuses this worker for good (another version).
  absl::Status Run();

  // Finishes the window at hand, then leaves; at once where there is no coordinator.
  void Drain(const std::string& reason);
  // Hands the units back and ends the stream, in a bounded time, whatever Run is doing. Run returns once it has finished
  // the unit at hand; the process need not wait for that.
  void LeaveAtOnce(const std::string& reason);

 private:
  // An incarnation, on the compute thread.
  struct Life {
    Joined joined;
    std::unique_ptr<CheckpointSink> checkpoints;  // destroyed, it reports what it still writes
  };
  struct End {
    std::string reason;
    bool refused = false;
  };

  End Serve();
  // Empty: goes on. May begin and end lives; an assignment is left to RunJob.
  std::optional<End> Handle(InboxEvent& event);
  std::optional<End> RunJob(const v1::AssignJob& assignment);

  const WorkerOptions options_;
  const WorkerParts parts_;
  Inbox inbox_;
  StallWatch stall_watch_;
  AbortDeadlineTimer abort_deadline_;
  Preparer preparer_;  // uses the session until it is stopped
  Session session_;
  std::atomic<bool> draining_{false};

  // Of the compute thread.
  std::optional<Life> life_;
  std::optional<InboxEvent> next_;  // ended the last job, and is to be acted on before what is in the inbox
};

}  // namespace accrue
