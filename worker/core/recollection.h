// What a worker has told its coordinator of work that no commit has settled, so that it can tell it to another one.
//
// Stands between a runner and its link: what is sent through it is remembered whether or not it arrives. Of the compute
// thread; the link must outlive it. Memory is that of the reports of two windows.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "accrue/v1/worker.pb.h"
#include "worker/core/link.h"

namespace accrue {

class Recollection : public CoordinatorLink {
 public:
  explicit Recollection(CoordinatorLink& link) : link_(link) {}

  void Send(v1::WorkerMessage message) override;
  void Close() override { link_.Close(); }

  // A seal has come; the last one of a window is the one that its step follows.
  void TakeSeal(const v1::Seal& seal) { seals_[seal.key().window()] = seal; }

  // The state is to be another's.
  void Forget();

  // The report of each of these units, of this attempt.
  void RecallUnits(int64_t window, int64_t attempt, const std::vector<int64_t>& units, v1::Holding& holding) const;
  // Evaluations of the state with so many windows applied.
  void RecallEvaluations(int64_t window, v1::Holding& holding) const;
  // The step into that state, with its seal and what was said before it.
  void RecallStep(int64_t window, v1::Holding& holding) const;
  // The digest of that state, if it came by a step; else "".
  std::string DigestOf(int64_t window) const;

 private:
  struct Units {
    int64_t attempt = 0;
    std::map<int64_t, v1::UnitReport> by_number;
  };

  void Remember(const v1::UnitReports& reports);
  void Remember(const v1::EvaluationReports& reports);
  void Remember(const v1::Stepped& stepped);

  CoordinatorLink& link_;
  // By window.
  std::map<int64_t, Units> units_;
  std::map<int64_t, std::map<int64_t, v1::EvaluationReport>> evaluations_;
  std::map<int64_t, v1::WindowComputed> computed_;
  std::map<int64_t, v1::Seal> seals_;
  v1::Stepped stepped_;  // the last; without a digest before the first
};

}  // namespace accrue
