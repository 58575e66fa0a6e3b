// The coordinator's one thread of decisions: it owns the core, feeds it events, and carries out its effects in order.
//
//   worker streams ──┐                       ┌── messages to workers (WorkerLink)
//   RPC handlers ────┼─> queue ─> core ──────┼── journal (durable before what follows is carried out)
//   tick, keeper ────┘                       └── files, rendezvous, checkpoints, snapshot
//
// Thread-safe, but for Start and Stop, which belong to one thread. What it is given must outlive it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "accrue/v1/client.pb.h"
#include "accrue/v1/worker.pb.h"
#include "common/clock.h"
#include "common/file_system.h"
#include "common/end_process.h"
#include "common/watchdog.h"
#include "coordinator/core/core.h"
#include "coordinator/journal/journal.h"
#include "coordinator/server/checkpoint_keeper.h"
#include "coordinator/server/job_run.h"
#include "coordinator/server/metrics.h"
#include "coordinator/server/output_folder.h"
#include "coordinator/server/rendezvous_store.h"
#include "coordinator/server/snapshot.h"
#include "coordinator/server/submission.h"
#include "coordinator/server/worker_link.h"

namespace accrue {

struct CoordinatorOptions {
  core::CoreOptions core;
  std::string state_directory;  // jobs without an output folder get one under here
  const Clock* clock = &Clock::Real();
  FileSystem* file_system = &FileSystem::Real();
  int64_t stall_ms = 30'000;  // for which the event loop may stand still; then end_process is called
  Watchdog::End end_process = EndProcess;
};

class Coordinator {
 public:
  Coordinator(const CoordinatorOptions& options, Journal& journal, RendezvousStore& rendezvous, Metrics& metrics);
  ~Coordinator();

  // Takes up the journal's unfinished jobs, each from what its members still hold, else from its newest good checkpoint,
  // and starts the loop.
  absl::Status Start();
  // Ends workers' streams and the loop, once what is queued is done. Jobs stay as they are in the journal, and workers
  // may come back to the next coordinator with what they hold.
  void Stop(const std::string& reason);

  // ---- from workers' streams ----
  // A new life, or one of a former term that a job awaits; else refused. `joined` is called on the loop, before anything
  // is sent to the link but Welcome.
  void Join(const v1::Hello& hello, std::shared_ptr<WorkerLink> link, std::function<void(Incarnation)> joined);
  // INVALID_ARGUMENT for a message that makes no sense, RESOURCE_EXHAUSTED when too many events wait: end the
  // stream. UNAVAILABLE when the coordinator is stopping: end it without a refusal.
  absl::Status Receive(Incarnation from, const v1::WorkerMessage& message);
  void Left(Incarnation from, const std::string& reason);

  // ---- from RPC handlers; each waits for the loop ----
  // Verifies checkpoints on the caller's thread, which may take a while. ALREADY_EXISTS while a job of that name, or in that folder, is not over; the codes of PrepareFolder.
  absl::StatusOr<v1::SubmitResponse> Submit(ResolvedSubmission submission, const FolderRequest& request);
  // NOT_FOUND for an unknown job; FAILED_PRECONDITION for one that is over. Returns what it is afterwards.
  absl::StatusOr<v1::JobStatus> Cancel(const std::string& job, const std::string& reason, bool checkpoint);
  absl::StatusOr<v1::JobStatus> Pause(const std::string& job);
  absl::StatusOr<v1::JobStatus> Resume(const std::string& job);
  // By incarnation or name; its process ends once it is released. NOT_FOUND for a worker that is not connected,
  // FAILED_PRECONDITION for a name that several have. Returns what it is afterwards.
  absl::StatusOr<v1::WorkerStatus> DrainWorker(const std::string& worker, bool at_once, const std::string& reason);

  const SnapshotBoard& board() const { return board_; }
  Term term() const { return options_.core.term; }

 private:
  using Task = std::function<void()>;
  struct WorkerEntry {
    std::shared_ptr<WorkerLink> link;
    std::string name;
    int64_t last_heard_ns = 0;
    bool drained = false;  // by a person: its release ends its process
  };

  void CheckDataOf(core::WorkerFailedJob& failed);

  // ---- the queue: any thread ----
  // RESOURCE_EXHAUSTED beyond the limit, unless it must be; UNAVAILABLE once it is to stop.
  absl::Status Enqueue(Task task, bool must = false);
  // Runs the task on the loop and waits for it. UNAVAILABLE once it is to stop.
  absl::Status RunOnLoop(const std::function<absl::Status()>& task);

  // ---- everything below runs on the loop, or before it starts ----
  void Loop();
  void Tick();
  void Apply(const core::Event& event);
  void ApplyOne(const core::Event& event);
  void Execute(std::vector<core::Effect> effects);
  absl::Status MakeDurable(absl::Span<const core::Effect> effects);
  // What is left to do when it could not be made durable: no decision of it may be published.
  void ExecuteUnrecorded(const std::vector<core::Effect>& effects, const absl::Status& status);
  void OnCommit(const core::PersistCommit& effect);
  void OnEvaluation(const core::PersistEvaluation& effect);
  void OnStateChanged(const core::PersistState& effect);
  void OnFinishCheckpoint(const core::FinishCheckpoint& effect);
  void SendToWorker(const core::Send& effect);
  void FlushHeld();
  void DropReplacedCommunicator(const core::WorkerMessage& message);
  // Ends the job for a reason of the server's own; takes effect after the event on the way.
  void FailJob(JobRun& run, const absl::Status& status);
  void RecordFailures();
  void Publish();

  absl::Status RestoreJob(const JobRecord& record);
  absl::Status TakeUpJob(JobRun& run);
  absl::StatusOr<core::StartPoint> StartAgain(JobRun& run, std::vector<std::string>& warnings);
  // ALREADY_EXISTS while a job of that name, or in that folder, is not over.
  absl::Status CheckFree(const std::string& name, const std::string& output_directory) const;
  absl::Status AddJob(std::unique_ptr<JobRun> run, const core::StartPoint& start);
  // Applies an event to a job that is not over, found by id or name.
  absl::StatusOr<v1::JobStatus> Steer(const std::string& job, const std::function<core::Event(const JobId&)>& event);
  // What Steer does first, where the event is to outlast this process.
  absl::Status Remember(JobRun& run, const core::Event& event);
  JobRun* FindRun(const JobId& id);
  v1::JobStatus StatusOfRun(const JobRun& run) const;
  std::shared_ptr<WorkerLink> LinkOf(Incarnation worker) const;

  const CoordinatorOptions options_;
  const Clock& clock_;
  FileSystem& file_system_;
  Journal& journal_;
  RendezvousStore& rendezvous_;
  Metrics& metrics_;
  SnapshotBoard board_;

  core::Core core_;
  std::vector<std::unique_ptr<JobRun>> runs_;  // in order of submission
  std::map<Incarnation, WorkerEntry> workers_;
  std::map<JobId, Timeline> timelines_;  // as last made durable by this process
  std::deque<core::Event> own_events_;  // that effects gave rise to
  std::deque<std::pair<int64_t, Incarnation>> held_;  // who is to be flushed when
  int64_t next_tick_ns_ = 0;
  int64_t next_retry_ns_ = 0;
  bool changed_ = true;  // since the last snapshot

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool shutting_down_ = false;  // for the snapshot

  Watchdog watchdog_;           // of the loop
  std::mutex submit_mutex_;  // one submission at a time touches output folders
  std::thread thread_;
  std::unique_ptr<CheckpointKeeper> keeper_;  // ends first: it reports to the queue
};

}  // namespace accrue
