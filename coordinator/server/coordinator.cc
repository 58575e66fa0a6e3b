#include "coordinator/server/coordinator.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "common/status.h"
#include "coordinator/server/data_pins.h"
#include "coordinator/server/translate.h"
#include "coordinator/server/worker_status.h"

namespace accrue {
namespace {

constexpr int64_t kTickNs = 50'000'000;
// For which what may wait does so, for another message to go with; and links that are then flushed in one go.
constexpr int64_t kHoldNs = 100'000'000;
constexpr int kFlushedAtOnce = 16;
constexpr size_t kMaxQueuedTasks = 200'000;
constexpr int64_t kHeartbeatIntervalMs = 250;

// By the variant's index.
constexpr const char* kEventNames[] = {
    "job_submitted",   "job_cancelled",  "job_paused",    "job_resumed",          "worker_joined",
    "worker_gone",     "heartbeat",      "job_loaded",    "units_reported",       "window_computed",
    "worker_stepped",  "reduce_failed",  "worker_holds",  "units_returned",       "communicator_prepared",
    "evaluation_reported", "checkpoint_shard_written", "state_synced", "state_copied",
    "worker_leaving",  "worker_failed_job", "checkpoint_finished", "tick"};
static_assert(std::size(kEventNames) == std::variant_size_v<core::Event>);

// Comes by the points of what is made durable, before its transaction or after it.
void PassDurablePoints(absl::Span<const core::Effect> effects, bool recorded) {
  for (const core::Effect& effect : effects) {
    if (const auto* commit = std::get_if<core::PersistCommit>(&effect)) {
      PassFaultPoint(recorded ? FaultPoint::kCoordinatorCommitRecorded : FaultPoint::kCoordinatorCommitRecording,
                     commit->record.window.value());
    } else if (const auto* epoch = std::get_if<core::PersistEpoch>(&effect)) {
      PassFaultPoint(recorded ? FaultPoint::kCoordinatorEpochRecorded : FaultPoint::kCoordinatorEpochRecording);
      if (recorded && epoch->members.empty()) PassFaultPoint(FaultPoint::kCoordinatorNobodyRecorded);
    } else if (const auto* attempt = std::get_if<core::PersistAttempt>(&effect)) {
      PassFaultPoint(recorded ? FaultPoint::kCoordinatorAttemptRecorded : FaultPoint::kCoordinatorAttemptRecording,
                     attempt->window.value());
    } else if (const auto* evaluation = std::get_if<core::PersistEvaluation>(&effect); evaluation && recorded) {
      PassFaultPoint(FaultPoint::kCoordinatorEvaluationRecorded, evaluation->window.value());
    } else if (const auto* checkpoint = std::get_if<core::PersistCheckpoint>(&effect); checkpoint && recorded) {
      PassFaultPoint(FaultPoint::kCoordinatorCheckpointRecorded, checkpoint->window.value());
    } else if (std::holds_alternative<core::PersistState>(effect) && recorded) {
      PassFaultPoint(FaultPoint::kCoordinatorStateRecorded);
    }
  }
}

// Comes by the points of what a worker says, before anything follows from it.
void PassReceivedPoints(const core::Event& event) {
  if (const auto* holds = std::get_if<core::WorkerHolds>(&event)) {
    PassFaultPoint(FaultPoint::kCoordinatorHoldingReceived, holds->key.window.value());
  } else if (const auto* returned = std::get_if<core::UnitsReturned>(&event)) {
    PassFaultPoint(FaultPoint::kCoordinatorReturnedReceived, returned->key.window.value());
  }
}

double Seconds(int64_t nanoseconds) { return static_cast<double>(nanoseconds) * 1e-9; }

}  // namespace

Coordinator::Coordinator(const CoordinatorOptions& options, Journal& journal, RendezvousStore& rendezvous,
                         Metrics& metrics)
    : options_(options),
      clock_(*options.clock),
      file_system_(*options.file_system),
      journal_(journal),
      rendezvous_(rendezvous),
      metrics_(metrics),
      core_(options.core),
      watchdog_(options.end_process) {
  keeper_ = std::make_unique<CheckpointKeeper>(file_system_, journal_, [this](core::CheckpointFinished finished) {
    Enqueue([this, finished = std::move(finished)] {
      if (finished.error.empty()) metrics_.CheckpointVerified(finished.job, finished.window.value());
      Apply(finished);
    }, /*must=*/true).IgnoreError();
  });
}

Coordinator::~Coordinator() { Stop("the coordinator is gone"); }

absl::Status Coordinator::Start() {
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<JobRecord> records, journal_.Jobs());
  for (const JobRecord& record : records) ACCRUE_RETURN_IF_ERROR(RestoreJob(record));
  RecordFailures();
  Publish();
  keeper_->BackUpJournal();
  thread_ = std::thread([this] { Loop(); });
  return absl::OkStatus();
}

void Coordinator::Stop(const std::string& reason) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    // The last task: that streams end now is no worker's death, and must not get on record as one.
    if (!stopping_) {
      queue_.push_back([this, reason] {
        shutting_down_ = changed_ = true;
        for (auto& [incarnation, worker] : workers_) worker.link->Close(reason);
        for (const auto& run : runs_) {
          if (run->log != nullptr) run->log->Sync().IgnoreError();
        }
      });
    }
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  rendezvous_.ShutDown();
}

// ---- the queue ----

absl::Status Coordinator::Enqueue(Task task, bool must) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return absl::UnavailableError("the coordinator is shutting down");
    if (queue_.size() >= kMaxQueuedTasks && !must) {
      return absl::ResourceExhaustedError(absl::StrCat("more than ", kMaxQueuedTasks, " events wait for the coordinator"));
    }
    queue_.push_back(std::move(task));
  }
  wake_.notify_one();
  return absl::OkStatus();
}

absl::Status Coordinator::RunOnLoop(const std::function<absl::Status()>& task) {
  std::promise<absl::Status> done;
  std::future<absl::Status> result = done.get_future();
  ACCRUE_RETURN_IF_ERROR(Enqueue([&] { done.set_value(task()); }));
  return result.get();
}

void Coordinator::Loop() {
  next_tick_ns_ = clock_.SteadyNowNs() + kTickNs;
  while (true) {
    std::deque<Task> batch;
    {
      const int64_t until_flush_ns =
          held_.empty() ? kTickNs : std::max<int64_t>(held_.front().first - clock_.SteadyNowNs(), 0);
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait_for(lock, std::chrono::nanoseconds(std::min(kTickNs, until_flush_ns)), [this] { return stopping_ || !queue_.empty(); });
      if (stopping_ && queue_.empty()) {
        watchdog_.Rest();
        break;
      }
      batch.swap(queue_);
    }
    watchdog_.Expect(absl::Milliseconds(options_.stall_ms), "the coordinator's event loop stands still");
    metrics_.QueueLength(batch.size());
    for (const Task& task : batch) task();
    if (clock_.SteadyNowNs() >= next_tick_ns_) Tick();
    FlushHeld();
    if (changed_) Publish();
  }
  Publish();
}

void Coordinator::Tick() {
  const int64_t now_ns = clock_.SteadyNowNs();
  next_tick_ns_ = now_ns + kTickNs;
  Apply(core::Tick{});
  rendezvous_.Expire(now_ns);
  if (now_ns >= next_retry_ns_) {
    next_retry_ns_ = now_ns + 1'000'000'000;
    RecordFailures();
    for (const auto& [incarnation, worker] : workers_) {
      metrics_.WorkerHeard(worker.name, Seconds(now_ns - worker.last_heard_ns), 0);
    }
    for (const auto& [reason, count] : core_.Dropped()) metrics_.MessageDropped(reason, count);
    changed_ = true;  // what is measured and not decided, such as workers' memory
  }
}

// ---- workers ----

void Coordinator::Join(const v1::Hello& hello, std::shared_ptr<WorkerLink> link,
                       std::function<void(Incarnation)> joined) {
  const absl::Status status = Enqueue([this, hello, link, joined = std::move(joined)] {
    const bool resumes = hello.incarnation() != 0;
    const Incarnation former(hello.incarnation());
    // Before anything is kept of it: the incarnation that it names may be here, on a stream of its own.
    const std::string refusal = resumes ? core_.WhyNotAwaited(former) : "";
    if (!refusal.empty()) {
      LogInfo("worker must rejoin", {{"worker", hello.name()}, {"incarnation", former}, {"reason", refusal}});
      return link->Refuse(refusal, /*rejoin=*/true);
    }
    const Incarnation incarnation = resumes ? former : core_.NextIncarnation();
    workers_[incarnation] = {link, hello.name(), clock_.SteadyNowNs()};
    changed_ = true;
    joined(incarnation);
    PassFaultPoint(FaultPoint::kCoordinatorWelcoming);
    v1::CoordinatorMessage welcome;
    welcome.mutable_welcome()->set_term(options_.core.term.value());
    welcome.mutable_welcome()->set_incarnation(incarnation.value());
    welcome.mutable_welcome()->set_heartbeat_interval_ms(kHeartbeatIntervalMs);
    welcome.mutable_welcome()->set_resumed(resumes);
    link->Send(std::move(welcome));
    LogInfo(resumes ? "worker is back" : "worker joined", {{"worker", hello.name()}, {"incarnation", incarnation}, {"backend", hello.backend()},
                              {"threads", hello.threads()}, {"numeric_class", hello.numeric_class()},
                              {"bf16_numeric_class", hello.bf16_numeric_class()},
                              {"fp16_numeric_class", hello.fp16_numeric_class()},
                              {"tf32_numeric_class", hello.tf32_numeric_class()}});
    Apply(JoinFromProto(hello, incarnation));
  });
  if (!status.ok()) link->Close(std::string(status.message()));  // what it holds, it may keep
}

// A worker whose data differ is refused, and others may do; but where the coordinator's own copy has changed since
// submit, nobody is to be waited for.
void Coordinator::CheckDataOf(core::WorkerFailedJob& failed) {
  const std::shared_ptr<const Snapshot> snapshot = board_.Get();
  const JobEntry* const job = snapshot->FindJob(failed.key.job);
  if (job == nullptr) return;
  const v1::JobState state = job->status.state();
  if (state != v1::JOB_STATE_WAITING && state != v1::JOB_STATE_STARTING) return;  // some can compute it
  const absl::Status status = CheckPins(file_system_, journal_, *job->resolved);
  if (status.ok()) return;
  failed.fatal_for_job = true;
  failed.reason = std::string(status.message());
}

absl::Status Coordinator::Receive(Incarnation from, const v1::WorkerMessage& message) {
  ACCRUE_ASSIGN_OR_RETURN(core::Event event, EventFromProto(message, from));
  if (auto* const failed = std::get_if<core::WorkerFailedJob>(&event)) CheckDataOf(*failed);
  return Enqueue([this, from, event = std::move(event)] {
    const auto worker = workers_.find(from);
    if (worker == workers_.end()) return;
    worker->second.last_heard_ns = clock_.SteadyNowNs();
    if (const auto* heartbeat = std::get_if<core::WorkerHeartbeat>(&event)) {
      metrics_.WorkerHeard(worker->second.name, 0, heartbeat->memory_bytes);
    }
    if (const auto* failed = std::get_if<core::WorkerFailedJob>(&event)) {
      LogWarning("a worker cannot go on with a job", {{"worker", worker->second.name}, {"job", failed->key.job},
                                                      {"status", failed->status}, {"reason", failed->reason}});
    }
    PassReceivedPoints(event);
    Apply(event);
  });
}

void Coordinator::Left(Incarnation from, const std::string& reason) {
  Enqueue([this, from, reason] {
    const auto worker = workers_.find(from);
    if (worker == workers_.end()) return;
    LogInfo("worker left", {{"worker", worker->second.name}, {"incarnation", from}, {"reason", reason}});
    metrics_.WorkerGone(worker->second.name);
    workers_.erase(worker);
    Apply(core::WorkerGone{from, reason});
    changed_ = true;
  }, /*must=*/true).IgnoreError();
}

// ---- events and effects ----

void Coordinator::Apply(const core::Event& event) {
  ApplyOne(event);
  while (!own_events_.empty()) {
    const core::Event next = std::move(own_events_.front());
    own_events_.pop_front();
    ApplyOne(next);
  }
}

void Coordinator::ApplyOne(const core::Event& event) {
  const int64_t begin_ns = clock_.SteadyNowNs();
  std::vector<core::Effect> effects = core_.Apply(event, begin_ns);
  metrics_.EventApplied(kEventNames[event.index()], Seconds(clock_.SteadyNowNs() - begin_ns));
  if (effects.empty()) return;
  changed_ = true;
  const bool restores =
      std::holds_alternative<core::WorkerHolds>(event) &&
      std::any_of(effects.begin(), effects.end(),
                  [](const core::Effect& effect) { return std::holds_alternative<core::PersistEpoch>(effect); });
  Execute(std::move(effects));
  if (restores) PassFaultPoint(FaultPoint::kCoordinatorRestored, std::get<core::WorkerHolds>(event).key.window.value());
}

void Coordinator::Execute(std::vector<core::Effect> effects) {
  for (core::Effect& effect : effects) {
    // A job that the server had to end has failed, whatever the core, which was told to cancel it, calls that.
    auto* const state = std::get_if<core::PersistState>(&effect);
    const JobRun* const run = state == nullptr ? nullptr : FindRun(state->job);
    if (run == nullptr || run->failure.empty() || !IsTerminal(state->state)) continue;
    state->state = core::JobState::kFailed;
    state->reason = run->failure;
  }
  if (const absl::Status status = MakeDurable(effects); !status.ok()) return ExecuteUnrecorded(effects, status);
  for (const core::Effect& effect : effects) {
    if (const auto* send = std::get_if<core::Send>(&effect)) {
      SendToWorker(*send);
    } else if (const auto* expel = std::get_if<core::Expel>(&effect)) {
      LogWarning("worker expelled", {{"incarnation", expel->worker}, {"reason", expel->reason}});
      PassFaultPoint(FaultPoint::kCoordinatorExpelling);
      if (const auto link = LinkOf(expel->worker)) link->Refuse(expel->reason, expel->rejoin);
    } else if (const auto* commit = std::get_if<core::PersistCommit>(&effect)) {
      OnCommit(*commit);
    } else if (const auto* layout = std::get_if<core::PersistLayout>(&effect)) {
      if (JobRun* const run = FindRun(layout->job)) run->SetLayout(layout->layout);
    } else if (const auto* evaluation = std::get_if<core::PersistEvaluation>(&effect)) {
      OnEvaluation(*evaluation);
    } else if (const auto* state = std::get_if<core::PersistState>(&effect)) {
      OnStateChanged(*state);
    } else if (const auto* finish = std::get_if<core::FinishCheckpoint>(&effect)) {
      OnFinishCheckpoint(*finish);
    } else if (const auto* give_up = std::get_if<core::GiveUpCommunicator>(&effect)) {
      rendezvous_.GiveUp(give_up->communicator);
    } else if (std::holds_alternative<core::PersistCheckpoint>(effect)) {
      keeper_->BackUpJournal();
    }
  }
}

absl::Status Coordinator::MakeDurable(absl::Span<const core::Effect> effects) {
  bool any = false;
  for (const core::Effect& effect : effects) {
    any = any || !(std::holds_alternative<core::Send>(effect) || std::holds_alternative<core::Expel>(effect) ||
                   std::holds_alternative<core::FinishCheckpoint>(effect) ||
                   std::holds_alternative<core::GiveUpCommunicator>(effect));
  }
  if (!any) return absl::OkStatus();
  // All of one event in one transaction, before any of its effects is seen outside.
  PassDurablePoints(effects, /*recorded=*/false);
  const int64_t begin_ns = clock_.SteadyNowNs();
  const absl::Status status = journal_.Record(effects, clock_.WallNowUnixNs());
  metrics_.JournalTransaction(Seconds(clock_.SteadyNowNs() - begin_ns), status.ok());
  if (!status.ok()) return status;
  PassDurablePoints(effects, /*recorded=*/true);
  for (const core::Effect& effect : effects) {
    const auto* const epoch = std::get_if<core::PersistEpoch>(&effect);
    if (epoch == nullptr) continue;
    const Timeline before = timelines_.try_emplace(epoch->job, epoch->timeline).first->second;
    if (before < epoch->timeline) PassFaultPoint(FaultPoint::kCoordinatorTimelineRecorded);
    timelines_[epoch->job] = epoch->timeline;
  }
  return status;
}

void Coordinator::ExecuteUnrecorded(const std::vector<core::Effect>& effects, const absl::Status& status) {
  LogError("the journal could not record a decision", {{"error", status}});
  for (const core::Effect& effect : effects) {
    JobId job;
    std::visit([&job](const auto& one) {
      if constexpr (requires { one.job; }) job = one.job;
    }, effect);
    if (JobRun* const run = FindRun(job)) FailJob(*run, Annotate(status, "the journal could not record a decision"));
    // Letting go of workers is safe whatever the journal holds.
    const auto* send = std::get_if<core::Send>(&effect);
    if (send != nullptr && std::holds_alternative<core::Release>(send->message)) SendToWorker(*send);
    if (const auto* expel = std::get_if<core::Expel>(&effect)) {
      if (const auto link = LinkOf(expel->worker)) link->Refuse(expel->reason, expel->rejoin);
    }
    if (const auto* give_up = std::get_if<core::GiveUpCommunicator>(&effect)) rendezvous_.GiveUp(give_up->communicator);
  }
}

void Coordinator::SendToWorker(const core::Send& effect) {
  const auto link = LinkOf(effect.to);
  if (link == nullptr) return;
  const core::Key& key = KeyOf(effect.message);
  JobContext context;
  if (JobRun* const run = FindRun(key.job)) {
    context.job = run->resolved.get();
    if (run->data != nullptr) {
      context.sequences_of = [run](Window window, const std::vector<core::UnitRange>& units) {
        return SequencesOf(*run->data, run->resolved->spec(), window, units);
      };
    }
  }
  DropReplacedCommunicator(effect.message);
  v1::CoordinatorMessage message = MessageToProto(effect.message, context);
  if (message.has_release() && workers_.at(effect.to).drained) message.mutable_release()->set_shut_down(true);
  if (!effect.may_wait) return link->Send(std::move(message));
  link->Hold(std::move(message));
  held_.emplace_back(clock_.SteadyNowNs() + kHoldNs, effect.to);
}

// A few at a time, so that no event waits for them.
void Coordinator::FlushHeld() {
  for (int i = 0; i < kFlushedAtOnce && !held_.empty() && held_.front().first <= clock_.SteadyNowNs(); ++i) {
    if (const auto link = LinkOf(held_.front().second)) link->Flush();
    held_.pop_front();
  }
}

void Coordinator::DropReplacedCommunicator(const core::WorkerMessage& message) {
  JobRun* const run = FindRun(KeyOf(message).job);
  if (run == nullptr) return;
  const auto replace = [this](std::string& present, const std::string& next) {
    if (present == next) return;
    if (!present.empty()) rendezvous_.GiveUp(present);
    present = next;
  };
  if (const auto* seal = std::get_if<core::Seal>(&message); seal != nullptr && !seal->communicator.empty()) {
    replace(run->seal_communicator, seal->communicator);
  }
  if (const auto* sync = std::get_if<core::StateSync>(&message)) replace(run->sync_communicator, sync->communicator);
}

void Coordinator::OnCommit(const core::PersistCommit& effect) {
  JobRun* const run = FindRun(effect.job);
  if (run == nullptr) return;
  run->last_commit = CommitRecord{effect.record, clock_.WallNowUnixNs(), std::nullopt};
  run->last_window_line = WindowLine(*run->last_commit);
  run->pace.Committed(clock_.SteadyNowNs(), effect.record.tokens);
  metrics_.WindowCommitted(effect.job, effect.record);
  LogDebug("window committed", {{"job", effect.job}, {"window", effect.record.window}, {"loss", effect.record.loss},
                                {"digest", effect.record.digest}});
  const std::optional<LossScale>& loss_scale = effect.record.loss_scale;
  if (effect.record.skipped && effect.record.tokens > 0 && loss_scale && loss_scale->exponent == kLeastLossScale) {
    LogWarning("a window was skipped at the least loss scale, so the next will be too: activations leave the range of "
               "fp16, or the model has diverged; go back to a checkpoint with a lower learning rate, or compute in bf16 or "
               "fp32",
               {{"job", effect.job}, {"window", effect.record.window}, {"loss_scale", loss_scale->Value()}});
  }
  if (run->log == nullptr) return;
  if (const absl::Status status = run->log->Append(*run->last_commit); !status.ok()) FailJob(*run, status);
  PassFaultPoint(FaultPoint::kCoordinatorCommitLogged, effect.record.window.value());
}

void Coordinator::OnEvaluation(const core::PersistEvaluation& effect) {
  JobRun* const run = FindRun(effect.job);
  if (run == nullptr) return;
  run->validation_loss = effect.loss;
  metrics_.EvaluationDone(effect.job, effect.loss);
  LogInfo("evaluation", {{"job", effect.job}, {"window", effect.window}, {"loss", effect.loss}});
  if (run->log == nullptr) return;
  const absl::Status status = run->log->Append(EvaluationRecord{effect.window, effect.loss, effect.tokens});
  if (!status.ok()) FailJob(*run, status);
}

void Coordinator::OnStateChanged(const core::PersistState& effect) {
  JobRun* const run = FindRun(effect.job);
  if (run == nullptr) return;
  run->record.state = effect.state;
  run->record.reason = effect.reason;
  LogInfo("job state", {{"job", effect.job}, {"state", v1::JobState_Name(JobStateToProto(effect.state))},
                        {"reason", effect.reason}});
  if (!IsTerminal(effect.state)) return;
  run->failure_unrecorded = false;
  run->data.reset();
  if (run->log != nullptr) {
    if (const absl::Status status = run->log->Sync(); !status.ok()) {
      LogError("the window log could not be synced", {{"job", effect.job}, {"error", status}});
    }
    run->log.reset();
  }
  run->folder.reset();
  keeper_->BackUpJournal();
}

void Coordinator::OnFinishCheckpoint(const core::FinishCheckpoint& effect) {
  JobRun* const run = FindRun(effect.job);
  ACCRUE_CHECK(run != nullptr);
  keeper_->Finish({effect, run->resolved, run->tensors, run->last_window_line});
}

void Coordinator::FailJob(JobRun& run, const absl::Status& status) {
  if (!run.failure.empty()) return;
  run.failure = std::string(status.message());
  run.failure_unrecorded = true;
  changed_ = true;
  LogError("job failed", {{"job", run.record.id}, {"reason", run.failure}});
  if (run.in_core) own_events_.push_back(core::JobCancelled{run.record.id, run.failure, /*checkpoint=*/false});
}

// What a full disk kept from being written is written once there is room.
void Coordinator::RecordFailures() {
  for (const auto& run : runs_) {
    if (!run->failure_unrecorded) continue;
    const core::Effect effect = core::PersistState{run->record.id, core::JobState::kFailed, run->failure};
    if (!journal_.Record({effect}, clock_.WallNowUnixNs()).ok()) return;
    run->record.state = core::JobState::kFailed;
    run->record.reason = run->failure;
    run->failure_unrecorded = false;
  }
}

// ---- what is shown ----

v1::JobStatus Coordinator::StatusOfRun(const JobRun& run) const {
  const std::optional<core::JobView> view = run.in_core ? core_.FindJob(run.record.id) : std::nullopt;
  return StatusOf(run, view.has_value() ? &*view : nullptr);
}

void Coordinator::Publish() {
  changed_ = false;
  Snapshot snapshot;
  snapshot.shutting_down = shutting_down_;
  for (const auto& run : runs_) {
    snapshot.jobs.push_back({StatusOfRun(*run), run->resolved});
    if (run->in_core) metrics_.JobChanged(snapshot.jobs.back().status);
  }
  snapshot.workers = StatusOfWorkers(core_.Workers());
  board_.Publish(std::move(snapshot));
}

JobRun* Coordinator::FindRun(const JobId& id) {
  if (id.empty()) return nullptr;
  // Jobs at work are the newest.
  for (auto run = runs_.rbegin(); run != runs_.rend(); ++run) {
    if ((*run)->record.id == id) return run->get();
  }
  return nullptr;
}

std::shared_ptr<WorkerLink> Coordinator::LinkOf(Incarnation worker) const {
  const auto found = workers_.find(worker);
  return found == workers_.end() ? nullptr : found->second.link;
}

}  // namespace accrue
