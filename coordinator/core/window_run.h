// One window on its way from the plan to the commit: leases, unit reports, manifests, steps.
//
// Plain bookkeeping; the decisions are Machine's. Invariants:
//  1. reports[u] is valid if and only if leases.Done(u).
//  2. A part is `computed` only while its manifest is exactly the units that it is leased.
//  3. With f the largest final_buckets of the parts, buckets before f are sums over all units, held by a member; in
//     each other bucket every member holds exactly the units that it is leased and has reported.
//  4. Units done by workers that are gone (leases.orphans()) are there only while some part holds all buckets final.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/core/audits.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/leases.h"
#include "coordinator/core/types.h"
#include "coordinator/core/worker_map.h"

namespace accrue::core {

// A held-out loss on the way: after `window` windows were applied.
struct Evaluation {
  Evaluation(int64_t window_number, int64_t units)
      : window(window_number), leases(units), reports(static_cast<size_t>(units)) {}

  int64_t window = 0;
  Leases leases;
  std::vector<EvaluationReport> reports;
};

// A member's share of a window beyond its leases.
struct Part {
  bool computed = false;
  std::string parameter_hash;
  double gradient_norm = 0;
  int64_t final_buckets = 0;  // leading ones, that hold the sums over all units of the window
  int64_t progress_ns = 0;    // when it last reported a unit, or was given some while it had none left
  int64_t recalled = 0;       // units that it was asked to give back, and has not answered; 0: none
  int recalls = 0;            // times that it was asked
  int64_t active_ns = 0;      // when last something came of it, or it was given something; or nothing was asked of it
};

// What tells when a member will be done: as last looked at, brought up to date where something changed.
struct Standing {
  double unit_ns = 0;       // Worker::unit_ns
  int64_t pending = 0;      // units leased and not done
  int64_t progress_ns = 0;  // of its Part,
  int64_t recalled = 0;     // as this
  // Units that are not begun, and may be asked for; of who was asked before, none.
  int64_t Waiting() const { return recalled > 0 ? 0 : std::max<int64_t>(pending - 1, 0); }
  // All others: one is under way; of who was asked before, all that it keeps counts as that.
  int64_t Kept() const { return recalled > 0 ? std::max<int64_t>(pending - recalled, 0) : std::min<int64_t>(pending, 1); }
  friend bool operator==(const Standing&, const Standing&) = default;
};

// A unit's report by a worker whose accumulator is gone: computed again, it must come out the same.
struct LostReport {
  Incarnation incarnation;
  std::string worker;
  UnitReport report;
};

// A member's account of its update.
struct Step {
  std::string digest;
  double gradient_norm = 0;
  double clip_coefficient = 1;
  PhaseTimes phases;
  int64_t memory_bytes = 0;
  std::string parameter_hash;
};

// Sums over a window's units, in unit order.
struct Totals {
  double loss_sum = 0;
  int64_t valid_tokens = 0;
  bool non_finite = false;
  int64_t vanished_elements = 0;
  std::vector<int> max_exponents;
  std::vector<uint64_t> bucket_checksums;
};

// From the seal on.
struct Sealed {
  Epoch epoch;
  Verdict verdict = Verdict::kReduce;
  std::string communicator;
  Totals totals;
  std::vector<int> next_exponents;
  std::optional<LossScale> next_loss_scale;
  struct Failure {
    std::string reason;
    int64_t final_buckets = 0;
  };
  std::map<Incarnation, Step> steps;           // members that stepped
  std::map<Incarnation, Failure> failed;       // members whose reduce failed
  std::map<Incarnation, int64_t> unreachable;  // how often a member was named as not reachable
  bool aborting = false;
  int64_t abort_deadline_ns = 0;
};

struct WindowRun {
  WindowRun(int64_t window_number, int64_t units, int64_t bucket_count)
      : number(window_number), buckets(bucket_count), leases(units) {
    reports.resize(static_cast<size_t>(units));
  }

  int64_t number = 0;
  int64_t buckets = 0;
  Attempt attempt;
  int64_t planned_at_ns = 0;
  int64_t begun_at_ns = -1;  // since when members can work on this attempt; -1: the window before is not committed
  StepScalars scalars;
  Leases leases;
  std::vector<UnitReport> reports;
  std::map<int64_t, LostReport> lost;  // by unit
  std::string disputed;  // why what is final cannot be trusted: a unit in it came out differently when computed again
  WorkerMap<Part> parts;
  int64_t computed = 0;                  // parts that are
  int64_t recalls = 0;                   // parts that were asked to give units back, and have not answered
  int64_t returned = 0;                  // units given back and not leased since
  std::vector<Standing> standings;       // of the members, in their order: Machine::UpdateStandings
  Epoch standings_epoch;                 // whose members these are
  std::optional<Evaluation> evaluation;  // on the parameters before this window's step
  Audits audits;
  Epoch audits_epoch;  // for which all of them were looked at
  std::optional<Sealed> sealed;

  // The worker's standing is to be looked at again.
  void Touch(Incarnation worker) { leases.Touch(worker); }
  void NoteProgress(Incarnation worker, int64_t now_ns);
  // Leases `count` free units; the worker has to compute before it counts as computed again.
  std::vector<UnitRange> Grant(Incarnation worker, int64_t count);
  void Take(UnitReport report);
  // "" if the manifest is the final buckets that the worker has, and in the others exactly what it was leased and
  // has reported; else what is wrong.
  std::string CheckManifest(Incarnation worker, const std::vector<BucketManifest>& manifest) const;
  // The largest of all parts.
  int64_t FinalBuckets() const;
  // All of its leases are done.
  bool Finished(Incarnation worker) const;
  void MarkComputed(Incarnation worker, const std::string& parameter_hash, double gradient_norm);
  // What it reported is compared with what others report of the same units. To be called before it is dropped.
  void RememberReports(Incarnation worker, const std::string& name);
  // Its accumulator is gone, and with it its units, done or not: they are free. But what is done stays done if
  // another holds all buckets final.
  void Drop(Incarnation worker);
  // The reduce is given up: takes down what each member has of it, and drops the parts of all others.
  void Unseal(const std::vector<Incarnation>& members);
  // Whose parts are there although they are no members.
  std::vector<Incarnation> PartsBeyond(const std::vector<Incarnation>& members) const;
  // The attempt is void: nothing is done, leases stay.
  void StartOver(Attempt next);
  Totals Sum() const;
  // Ends the program if an invariant is broken. O(units).
  void Check(const std::vector<Incarnation>& members) const;

 private:
  std::string CheckUnits(Incarnation worker, const std::vector<UnitRange>& ranges, int64_t expected) const;
};

}  // namespace accrue::core
