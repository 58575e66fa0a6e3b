#include "coordinator/server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/version.h"
#include "coordinator/server/translate.h"

namespace accrue {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using Labels = prometheus::Labels;

constexpr size_t kMaxEndedJobs = 32;

prometheus::Histogram::BucketBoundaries FastBuckets() {
  return {1e-5, 2.5e-5, 1e-4, 2.5e-4, 1e-3, 2.5e-3, 1e-2, 2.5e-2, 0.1, 0.25, 1};
}
prometheus::Histogram::BucketBoundaries WindowBuckets() {
  return {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 1000};
}

// Counters that are told as totals.
void RaiseTo(Counter& counter, double total) {
  if (total > counter.Value()) counter.Increment(total - counter.Value());
}

}  // namespace

struct Metrics::State {
  prometheus::Registry registry;

  Family<Counter>& Count(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Gauge>& Measure(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
  }
  Family<Histogram>& Distribute(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }

  // Jobs.
  Family<Counter>& windows = Count("accrue_windows_committed_total", "Windows committed.");
  Family<Counter>& tokens = Count("accrue_tokens_total", "Valid target tokens of committed windows.");
  Family<Counter>& sequences = Count("accrue_sequences_total", "Sequences of committed windows.");
  Family<Counter>& skips = Count("accrue_windows_skipped_total", "Windows committed without an update.");
  Family<Counter>& replays = Count("accrue_window_replays_total", "Attempts at windows that were void.");
  Family<Gauge>& loss = Measure("accrue_loss_nats", "Mean loss per valid token of the last window, in nats.");
  Family<Gauge>& validation_loss =
      Measure("accrue_validation_loss_nats", "Mean loss per valid token of the last evaluation, in nats.");
  Family<Gauge>& norm = Measure("accrue_gradient_norm", "Global gradient norm of the last window, before clipping.");
  Family<Gauge>& clip = Measure("accrue_clip_coefficient", "What the last window's gradient was multiplied by.");
  Family<Gauge>& loss_scale = Measure("accrue_loss_scale", "What the loss of the last window was multiplied by; fp16 only.");
  Family<Gauge>& vanished =
      Measure("accrue_vanished_gradient_ratio", "Share of the last window's gradient elements rounded to zero.");
  Family<Gauge>& rate = Measure("accrue_learning_rate", "Learning rate of the last window.");
  Family<Gauge>& speed = Measure("accrue_tokens_per_second", "Valid target tokens per second of this run.");
  Family<Histogram>& window_seconds = Distribute("accrue_window_seconds", "Time from commit to commit.");
  Family<Gauge>& next_window = Measure("accrue_job_windows_done", "Windows applied to the parameters.");
  Family<Gauge>& total_windows = Measure("accrue_job_windows", "Windows that the job is to run.");
  Family<Gauge>& eta = Measure("accrue_job_remaining_seconds", "Estimated time until the job ends.");
  Family<Gauge>& epoch = Measure("accrue_job_membership_epoch", "The job's membership generation.");
  Family<Gauge>& workers = Measure("accrue_job_workers", "Workers that the job has.");
  Family<Gauge>& reproducible =
      Measure("accrue_job_reproducible", "1: the weights are a function of the job and one numeric class.");
  Family<Gauge>& synthetic = Measure("accrue_job_synthetic", "1: the job's units are synthetic, nothing is learnt.");
  Family<Gauge>& checkpoint = Measure("accrue_checkpoint_window", "Windows applied in the newest verified checkpoint.");
  Family<Gauge>& state = Measure("accrue_job_state", "1 for the state that the job is in.");

  // Workers.
  Family<Counter>& worker_units = Count("accrue_worker_units_total", "Units that the worker's committed windows had.");
  Family<Counter>& worker_phases =
      Count("accrue_worker_phase_seconds_total", "Time that the worker spent in each phase of committed windows.");
  Family<Gauge>& worker_norm =
      Measure("accrue_worker_gradient_norm", "Gradient norm of the worker's own share of the last window.");
  Family<Gauge>& worker_memory = Measure("accrue_worker_memory_bytes", "The worker's resident memory.");
  Family<Gauge>& worker_age = Measure("accrue_worker_heartbeat_age_seconds", "Time since the worker was last heard.");

  // The coordinator.
  Family<Counter>& events = Count("accrue_coordinator_events_total", "Events applied to the core.");
  Family<Counter>& dropped = Count("accrue_coordinator_messages_dropped_total", "Messages that the core did not take.");
  Family<Counter>& journal_failures =
      Count("accrue_journal_transactions_failed_total", "Transactions that the journal could not make durable.");
  Gauge& queue = Measure("accrue_coordinator_queue_events", "Events that wait for the event loop.").Add({});
  Histogram& apply =
      Distribute("accrue_coordinator_apply_seconds", "Time that the core took for an event.").Add({}, FastBuckets());
  Histogram& journal =
      Distribute("accrue_journal_transaction_seconds", "Time of a durable transaction.").Add({}, FastBuckets());
  Gauge& build = Measure("accrue_build_info", "1; the version is in the label.").Add({{"version", kVersion}});

  // Series by what they belong to, so that they can be removed with it: a removal per family.
  std::mutex mutex;
  using Removals = std::vector<std::function<void()>>;
  std::map<std::string, std::map<std::pair<const void*, std::string>, void*>> series ABSL_GUARDED_BY(mutex);
  std::map<std::string, Removals> removals ABSL_GUARDED_BY(mutex);
  std::deque<JobId> ended_jobs ABSL_GUARDED_BY(mutex);

  // The series of `owner` (a job's or a worker's key) in a family; made on first use.
  template <typename Metric, typename... Arguments>
  Metric& Series(const std::string& owner, Family<Metric>& family, const Labels& labels, const std::string& part,
                 Arguments... arguments) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    void*& known = series[owner][{&family, part}];
    if (known == nullptr) {
      Metric& made = family.Add(labels, arguments...);
      known = &made;
      removals[owner].push_back([&family, &made] { family.Remove(&made); });
    }
    return *static_cast<Metric*>(known);
  }
  template <typename Metric, typename... Arguments>
  Metric& OfJob(Family<Metric>& family, const JobId& job, Arguments... arguments)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return Series(JobOwner(job), family, {{"accrue_job", job}}, "", arguments...);
  }
  template <typename Metric>
  Metric& OfWorker(Family<Metric>& family, const std::string& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return Series("worker " + worker, family, {{"worker", worker}}, "");
  }
  static std::string JobOwner(const JobId& job) { return "job " + job; }

  void Remove(const std::string& owner) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    for (const auto& removal : removals[owner]) removal();
    removals.erase(owner);
    series.erase(owner);
  }
};

Metrics::Metrics() : state_(std::make_unique<State>()) { state_->build.Set(1); }
Metrics::~Metrics() = default;

void Metrics::WindowCommitted(const JobId& job, const core::WindowRecord& window) {
  State& s = *state_;
  const std::lock_guard<std::mutex> lock(s.mutex);
  s.OfJob(s.windows, job).Increment();
  s.OfJob(s.tokens, job).Increment(static_cast<double>(window.tokens));
  s.OfJob(s.sequences, job).Increment(static_cast<double>(window.sequences));
  if (window.skipped) s.OfJob(s.skips, job).Increment();
  s.OfJob(s.loss, job).Set(window.loss);
  s.OfJob(s.norm, job).Set(window.gradient_norm);
  s.OfJob(s.clip, job).Set(window.clip_coefficient);
  s.OfJob(s.vanished, job).Set(window.vanished_fraction);
  if (window.loss_scale) s.OfJob(s.loss_scale, job).Set(static_cast<double>(window.loss_scale->Value()));
  s.OfJob(s.rate, job).Set(window.learning_rate);
  s.OfJob(s.window_seconds, job, WindowBuckets()).Observe(static_cast<double>(window.duration_ns) * 1e-9);
  for (const core::WorkerWindow& worker : window.workers) {
    s.OfWorker(s.worker_units, worker.name).Increment(static_cast<double>(worker.units));
    s.OfWorker(s.worker_norm, worker.name).Set(worker.gradient_norm);
    s.OfWorker(s.worker_memory, worker.name).Set(static_cast<double>(worker.memory_bytes));
    for (const core::Phase& phase : core::kPhases) {
      s.Series("worker " + worker.name, s.worker_phases, {{"worker", worker.name}, {"phase", phase.name}}, phase.name)
          .Increment(static_cast<double>(std::max<int64_t>(0, worker.phases.*phase.ns)) * 1e-9);
    }
  }
}

void Metrics::EvaluationDone(const JobId& job, double loss) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->OfJob(state_->validation_loss, job).Set(loss);
}

void Metrics::CheckpointVerified(const JobId& job, int64_t window) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->OfJob(state_->checkpoint, job).Set(static_cast<double>(window));
}

void Metrics::JobChanged(const v1::JobStatus& status) {
  State& s = *state_;
  const std::lock_guard<std::mutex> lock(s.mutex);
  const JobId& job = status.job_id();
  const bool over = status.state() == v1::JOB_STATE_SUCCEEDED || status.state() == v1::JOB_STATE_FAILED ||
                    status.state() == v1::JOB_STATE_CANCELLED;
  if (over) {
    if (std::find(s.ended_jobs.begin(), s.ended_jobs.end(), job) == s.ended_jobs.end()) s.ended_jobs.push_back(job);
    if (s.ended_jobs.size() > kMaxEndedJobs) {
      s.Remove(State::JobOwner(s.ended_jobs.front()));
      s.ended_jobs.pop_front();
    }
  }
  RaiseTo(s.OfJob(s.replays, job), static_cast<double>(status.restarts_of_windows()));
  s.OfJob(s.speed, job).Set(status.tokens_per_second());
  s.OfJob(s.next_window, job).Set(static_cast<double>(status.window()));
  s.OfJob(s.total_windows, job).Set(static_cast<double>(status.total_windows()));
  s.OfJob(s.eta, job).Set(status.eta_seconds());
  s.OfJob(s.epoch, job).Set(static_cast<double>(status.epoch()));
  s.OfJob(s.workers, job).Set(static_cast<double>(status.workers()));
  s.OfJob(s.synthetic, job).Set(status.synthetic() ? 1 : 0);
  s.OfJob(s.reproducible, job).Set(status.reproducible() ? 1 : 0);
  for (int state = v1::JOB_STATE_WAITING; state <= v1::JOB_STATE_CANCELLED; ++state) {
    const char* const name = JobStateName(static_cast<v1::JobState>(state));
    s.Series(State::JobOwner(job), s.state, {{"accrue_job", job}, {"state", name}}, name)
        .Set(status.state() == state ? 1 : 0);
  }
}

void Metrics::WorkerHeard(const std::string& worker, double heartbeat_age_seconds, int64_t memory_bytes) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->OfWorker(state_->worker_age, worker).Set(heartbeat_age_seconds);
  if (memory_bytes > 0) state_->OfWorker(state_->worker_memory, worker).Set(static_cast<double>(memory_bytes));
}

void Metrics::WorkerGone(const std::string& worker) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->Remove("worker " + worker);
}

void Metrics::EventApplied(const char* kind, double apply_seconds) {
  State& s = *state_;
  const std::lock_guard<std::mutex> lock(s.mutex);
  s.Series("coordinator", s.events, {{"kind", kind}}, kind).Increment();
  s.apply.Observe(apply_seconds);
}

void Metrics::MessageDropped(const std::string& reason, int64_t total) {
  State& s = *state_;
  const std::lock_guard<std::mutex> lock(s.mutex);
  RaiseTo(s.Series("coordinator", s.dropped, {{"reason", reason}}, reason), static_cast<double>(total));
}

void Metrics::QueueLength(size_t events) { state_->queue.Set(static_cast<double>(events)); }

void Metrics::JournalTransaction(double seconds, bool ok) {
  State& s = *state_;
  s.journal.Observe(seconds);
  const std::lock_guard<std::mutex> lock(s.mutex);
  Counter& failures = s.Series("coordinator", s.journal_failures, {}, "");
  if (!ok) failures.Increment();
}

std::string Metrics::Text() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);  // no series goes while it is read
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

}  // namespace accrue
