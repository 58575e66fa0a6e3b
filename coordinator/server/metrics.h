// What Prometheus sees. docs/metrics.md documents every series.
//
// Thread-safe. Series of a job are labelled accrue_job (a label named "job" is Prometheus's own); those of a worker by
// its name, and go when it goes. The newest jobs that are over stay, so that a scrape sees their last values.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "accrue/v1/client.pb.h"
#include "coordinator/core/types.h"

namespace accrue {

class Metrics {
 public:
  Metrics();
  ~Metrics();

  // ---- jobs ----
  void WindowCommitted(const JobId& job, const core::WindowRecord& window);
  void EvaluationDone(const JobId& job, double loss);
  void CheckpointVerified(const JobId& job, int64_t window);
  // Gauges; and the counter of replays, which only ever rises within a process.
  void JobChanged(const v1::JobStatus& status);

  // ---- workers ----
  void WorkerHeard(const std::string& worker, double heartbeat_age_seconds, int64_t memory_bytes);
  void WorkerGone(const std::string& worker);

  // ---- the coordinator ----
  void EventApplied(const char* kind, double apply_seconds);
  void MessageDropped(const std::string& reason, int64_t total);
  void QueueLength(size_t events);
  void JournalTransaction(double seconds, bool ok);

  // In Prometheus's text format.
  std::string Text() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace accrue
