// Plain values that the coordinator's core speaks: no protobuf, no sockets, no clocks.
//
// They mirror proto/accrue/v1/worker.proto, where each message and field is explained; coordinator/server
// translates.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/exponents.h"
#include "common/ids.h"
#include "common/loss_scale.h"
#include "common/precision.h"
#include "common/schedule.h"

namespace accrue::core {

// Where in a job's history a message belongs. What carries an older value than the receiver's is refused.
struct Key {
  Term term;
  JobId job;
  Timeline timeline;
  Epoch epoch;
  Incarnation incarnation;
  Window window;
  Attempt attempt;
};

struct UnitRange {
  int64_t first = 0;
  int64_t count = 0;
  friend bool operator==(const UnitRange&, const UnitRange&) = default;
};

// What the core needs to know of a job; constant for the job's life.
struct JobConfig {
  JobId id;
  std::string name;
  int64_t units_per_window = 1;
  int64_t total_windows = 0;
  int64_t until_window =
      0;  // stop, with a checkpoint, once this many are committed; total_windows without a limit
  int64_t sequences_per_unit = 1;
  int64_t sequence_length = 1;
  int64_t evaluation_every = 0;  // windows; 0: never, not even after the last window
  int64_t evaluation_units = 0;
  int64_t checkpoint_every = 0;  // windows; 0: only the last
  int64_t min_workers = 1;
  int64_t max_workers = 1;
  bool exact = true;
  Precision precision = Precision::kFp32;
  std::optional<LossScaleConfig> loss_scale;  // of fp16, and of nothing else
  bool mixed_classes = false;  // workers of another numeric class are let in, and the job marked
  bool closed_fleet = false;  // once all workers that are there have refused the job, it has failed
  double audit_fraction = 0;  // of the units, computed twice (audits.h); 0 unless exact
  uint64_t seed = 0;          // keys which
  ScheduleConfig schedule;
};

// What all workers of a job agree on (where it is not mixed, of the class too); the first that loads it says.
struct Layout {
  std::string numeric_class;
  std::vector<std::string> tensors;  // their names, in order
  std::vector<int64_t> tensor_elements;
  int64_t buckets = 0;
  std::string mixed;  // why the windows are not of that class alone; empty: they are
  friend bool operator==(const Layout&, const Layout&) = default;
};

// What the journal knows of a job whose coordinator died: the newest commit, and who held its state.
struct LiveState {
  Layout layout;
  Timeline timeline;  // of that commit; the job goes on with it while somebody holds the state
  Window window;      // windows committed; a member may have stepped one more
  int64_t steps = 0;
  std::string digest;
  std::string parameter_hash;  // empty: not known
  Epoch epoch;
  Attempt attempt;             // of the window on the way,
  std::vector<int> exponents;  // and its exponents; empty before the probe, and in fast mode
  std::optional<LossScale> loss_scale;  // of the window on the way, in fp16
  std::vector<Incarnation> members;
  friend bool operator==(const LiveState&, const LiveState&) = default;
};

// The state a job starts from: nothing, or a verified checkpoint.
struct StartPoint {
  std::string checkpoint_directory;  // empty: from scratch
  Window window;                     // windows applied
  int64_t steps = 0;
  std::string digest;
  std::vector<int> exponents;
  std::optional<LossScale> loss_scale;  // of the next window; without one, the job's first
  std::string computed_in;    // the numeric class that this state was computed in; empty: not known
  std::string mixed;          // why it is not of that class alone; empty: it is
  std::string numeric_class;  // that the job is pinned to from before; empty: its first worker's
  Timeline timeline;  // of what is computed from here; above every one that the journal knows
  // Digests of windows that are committed in the journal beyond `window`, by the window's number. They are
  // computed again, must come out the same, and are not reported a second time.
  std::map<int64_t, std::string> recorded;
  // Held-out losses that the journal knows, by windows applied: they are not evaluated again.
  std::map<int64_t, double> evaluated;
  // Of a coordinator that was restarted while members held the state: they may have outlived it and are awaited.
  std::optional<LiveState> live;
  bool restart = false;  // by a coordinator that was started again, not by a submission
};

struct UnitReport {
  int64_t unit = 0;
  double loss_sum = 0;
  int64_t valid_tokens = 0;
  bool non_finite = false;
  std::vector<int> max_exponents;
  std::vector<uint64_t> bucket_checksums;
  int64_t vanished_elements = 0;
  int64_t compute_ns = 0;
};

struct BucketManifest {
  bool final = false;
  std::vector<UnitRange> units;
};

struct PhaseTimes {
  int64_t compute_ns = 0, accumulate_ns = 0, wait_seal_ns = 0, reduce_ns = 0, step_ns = 0, data_ns = 0,
          evaluate_ns = 0, checkpoint_ns = 0;
};

struct Phase {
  const char* name;
  int64_t PhaseTimes::*ns;
};
// Every phase, by the name that journal, metrics and windows.jsonl give it.
inline constexpr Phase kPhases[] = {
    {"compute", &PhaseTimes::compute_ns}, {"accumulate", &PhaseTimes::accumulate_ns},
    {"wait_seal", &PhaseTimes::wait_seal_ns}, {"reduce", &PhaseTimes::reduce_ns},
    {"step", &PhaseTimes::step_ns}, {"data", &PhaseTimes::data_ns},
    {"evaluate", &PhaseTimes::evaluate_ns}, {"checkpoint", &PhaseTimes::checkpoint_ns},
};

struct EvaluationReport {
  int64_t unit = 0;
  double loss_sum = 0;
  int64_t valid_tokens = 0;
};

struct CheckpointFile {
  std::string path;
  uint64_t size_bytes = 0;
  std::string xxh3_128;
};

enum class JobState {
  kWaiting,   // for workers
  kStarting,  // workers load data and parameters
  kRunning,
  kPaused,
  kFinishing,  // last checkpoint and evaluation
  kSucceeded,
  kFailed,
  kCancelled,
};

enum class Verdict { kReduce, kSkip };

// A worker's part in a committed window.
struct WorkerWindow {
  Incarnation incarnation;
  std::string name;
  int64_t units = 0;
  double gradient_norm = 0;
  PhaseTimes phases;
  int64_t memory_bytes = 0;
};

// One committed window, as reported and journaled.
struct WindowRecord {
  Window window;
  double loss = 0;
  double gradient_norm = 0;
  double learning_rate = 0;
  int64_t tokens = 0;  // valid targets
  std::string digest;
  bool skipped = false;
  Attempt attempt;
  int64_t sequences = 0;
  double clip_coefficient = 1;
  double vanished_fraction = 0;
  std::vector<WorkerWindow> workers;
  Timeline timeline;
  Epoch epoch;
  int64_t duration_ns = 0;  // commit to commit; from the seal of the plan for the first one
  std::vector<int> next_exponents;
  int64_t steps = 0;  // windows that stepped, this one included
  std::optional<LossScale> loss_scale;  // that it was computed with, in fp16
};

// One entry of the ledger: every decision with its reason.
struct LedgerEntry {
  std::string kind;  // submitted, worker, epoch, plan, move, seal, replay, skip, loss_scale, abort, differs, sync, commit,
                     // evaluation, checkpoint, state, mixed
  Timeline timeline;
  Epoch epoch;
  Window window;
  Attempt attempt;
  Incarnation incarnation;
  std::string reason;
  std::string detail;  // a JSON object, kind by kind; empty: nothing to add
};

}  // namespace accrue::core
