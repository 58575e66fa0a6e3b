// The coordinator as a pure state machine: Apply(event, now) -> effects. docs/life_of_a_window.md tells the
// story.
//
// No threads, sockets, clocks, disks or protobuf: one caller at a time, time comes in as an argument, and the
// same events at the same times give the same effects. So it is simulated with thousands of workers from a
// seed.
//
// Invariants, checked after every event:
//  1. Each unit of a committed window was counted exactly once in every bucket; windows commit in order, none is skipped.
//  2. Nothing of an incarnation that is gone, of an older epoch, attempt or timeline is counted.
//  3. A job has at most one window sealed and not committed.
//  4. What Persist recorded is never contradicted by a later effect.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/core/effects.h"
#include "coordinator/core/events.h"
#include "coordinator/core/types.h"

namespace accrue::core {

struct CoreOptions {
  Term term;
  int64_t dead_after_ns = 3'000'000'000;  // silence after which a worker is given up
  int64_t reconnect_ns = 3'000'000'000;   // for members that outlived the last coordinator to come back
  int64_t first_incarnation = 1;
  // A job that has workers.min loaded waits this long without news for more of them, and at most ten times as
  // long for workers that are still loading.
  int64_t gather_ns = 300'000'000;
  int64_t abort_timeout_ns = 10'000'000'000;  // for the answers to an Abort; who stays silent is expelled
  // Pause after a reduce that failed without a death; twice as long after each further one in a row.
  int64_t reduce_retry_ns = 100'000'000;
  int64_t sync_timeout_ns = 120'000'000'000;  // for a joiner to hold the state
  // For members and newcomers to form a communicator beside the work; after that it is formed at the seal.
  int64_t prepare_timeout_ns = 5'000'000'000;
  // Whether a newcomer copies the state beside the members' work, where a job allows it, or always between two windows.
  bool copy_beside = true;
  // A member of which nothing comes for so many times its usual unit time, and for so long at least, loses its leases
  // although it is heard. Above the worker's own limit (--stall-timeout), which is half of these.
  double lease_timeout_units = 40;
  int64_t lease_timeout_least_ns = 60'000'000'000;
  bool check_thoroughly = false;  // every invariant after every event, at O(units): for simulations
  // Units not begun are taken from a late worker if the window ends sooner by so much of the time that it would take if
  // split ideally, and by so much at least; who is late is looked at so often.
  double move_threshold = 0.05;
  int64_t move_gain_ns = 10'000'000;
  int64_t balance_interval_ns = 20'000'000;
  double plan_threshold = 0.03;  // gain in makespan below which a plan keeps the shares of the last
};

struct JobView {
  JobId id;
  std::string name;
  JobState state = JobState::kWaiting;
  std::string reason;
  Window window;  // windows committed
  int64_t total_windows = 0;
  double loss = 0;
  std::optional<double> validation_loss;
  std::string digest;
  int64_t workers = 0;
  Epoch epoch;
  Timeline timeline;
  int64_t replays = 0;
  int64_t windows_skipped = 0;
  std::string mixed;  // why its windows are not of one numeric class; empty: they are
  std::optional<Window> checkpoint;  // newest verified
};

struct WorkerView {
  Incarnation incarnation;
  std::string name, host, backend, device;
  int64_t process_id = 0;
  int threads = 0;
  std::string state;
  JobId job;
  double unit_seconds = 0;  // exponentially weighted mean
  int64_t memory_bytes = 0;
  int64_t windows = 0;
};

class Core {
 public:
  explicit Core(const CoreOptions& options);
  ~Core();

  std::vector<Effect> Apply(const Event& event, int64_t now_ns);

  // "" if WorkerJoined{resumed} of this incarnation of a former term is awaited; else why it must come back as a new
  // one.
  std::string WhyNotAwaited(Incarnation incarnation) const;

  // For the server to hand out before WorkerJoined; never repeats within a term.
  Incarnation NextIncarnation();

  // What is to be shown; computed on demand.
  std::vector<JobView> Jobs() const;
  std::optional<JobView> FindJob(const JobId& job) const;
  std::vector<WorkerView> Workers() const;
  // Messages that were not taken, by reason: stale or contradictory. For metrics.
  const std::map<std::string, int64_t>& Dropped() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace accrue::core
