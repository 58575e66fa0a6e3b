// Feeds a Core by hand: one job, workers that answer exactly when the test says so.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "coordinator/core/core.h"

namespace accrue::core {

// Two tensors, four units a window, no gathering time.
JobConfig SmallJob();

class Harness {
 public:
  explicit Harness(CoreOptions options = Options());
  static CoreOptions Options();

  // Applies and keeps the effects; `now_ns` is moved by Advance only.
  const std::vector<Effect>& Apply(const Event& event);
  void AdvanceNs(int64_t delta_ns) { now_ns_ += delta_ns; }
  // Lets the time pass; every worker is heard, and the coordinator ticks.
  void Wait(int64_t delta_ns);

  void Submit(const JobConfig& config, const StartPoint& start = {});
  Incarnation Join(const std::string& numeric_class = "cpu", const std::string& bf16_numeric_class = "cpu bf16");
  // A joined worker that answered its AssignJob.
  void Load(Incarnation worker, const std::string& digest = "scratch");
  // Joins and loads n workers, answers the probe: window 0 is planned.
  std::vector<Incarnation> Start(int workers);
  void AnswerProbe(Incarnation worker);

  // What a worker was told last; fails the program if it never was.
  template <typename Message>
  const Message& Last(Incarnation worker) const {
    const auto found = last_.find({worker.value(), Index<Message>()});
    return std::get<Message>(found->second);
  }
  const std::vector<Effect>& effects() const { return effects_; }  // of the last Apply
  // Those of one kind; of messages: to whom.
  template <typename Kind>
  std::vector<Kind> Effects() const {
    std::vector<Kind> found;
    for (const Effect& effect : effects_) {
      if (std::holds_alternative<Kind>(effect)) found.push_back(std::get<Kind>(effect));
    }
    return found;
  }
  template <typename Message>
  std::map<Incarnation, Message> Sent() const {
    std::map<Incarnation, Message> sent;
    for (const Send& send : Effects<Send>()) {
      if (std::holds_alternative<Message>(send.message)) sent[send.to] = std::get<Message>(send.message);
    }
    return sent;
  }

  // Reports all units of `window` that the worker holds a plan for and has not reported, as UnitOf says.
  void ReportUnits(Incarnation worker, int64_t window);
  // One of these units, as it says.
  void ReportUnit(Incarnation worker, int64_t window, const UnitReport& report);
  // Answers the worker's last Recall.
  void Return(Incarnation worker, const std::vector<UnitRange>& units);
  // Reports the units that the worker was given to audit, its special ones as they are.
  void ReportAudits(Incarnation worker, int64_t window);
  void SendComputed(Incarnation worker, int64_t window, const std::string& hash = "parameters");
  void Compute(Incarnation worker, int64_t window) {
    ReportUnits(worker, window);
    SendComputed(worker, window);
  }
  void Step(Incarnation worker, int64_t window, const std::string& digest, double norm = 1.5);
  // Every member computes and steps.
  void RunWindow(const std::vector<Incarnation>& workers, int64_t window);
  void Fail(Incarnation worker, std::vector<Incarnation> unreachable = {}, int64_t final_buckets = 0);
  void Synced(Incarnation worker, const std::string& digest);
  void Gone(Incarnation worker) { Apply(WorkerGone{worker, "killed"}); }
  void Leave(Incarnation worker) { Apply(WorkerLeaving{worker, "SIGTERM"}); }
  // Answers the worker's last Plan's evaluation units: loss 2 a token, unit + 1 tokens.
  void Evaluate(Incarnation worker);
  // Answers the newest order, of a Seal or a CheckpointNow.
  void WriteShard(Incarnation worker, const std::string& error = "");
  void VerifyCheckpoint(int64_t window, const std::string& error = "");

  // The digest that RunWindow reports.
  static std::string DigestOf(int64_t window) { return "digest-" + std::to_string(window); }
  // What a unit reports; tests change it by unit.
  UnitReport UnitOf(int64_t window, int64_t unit) const;
  std::map<std::pair<int64_t, int64_t>, UnitReport> special;  // by (window, unit)
  std::string parameter_hash;  // that Step says
  int64_t buckets = 1;  // of the layout; to be set before anybody loads
  // What one worker reports of a unit, by (incarnation, window, unit): the next time, and the times after that.
  std::map<std::tuple<int64_t, int64_t, int64_t>, std::vector<UnitReport>> lies;
  // Audits are answered at once and truthfully, so that tests of other things need not; their effects are added to
  // those of the Apply that asked for them.
  bool answer_audits = true;
  bool answer_prepares = true;  // likewise: every communicator is formed at once

  // Units that the worker was given to audit and has not reported, ascending.
  std::vector<int64_t> Audited(Incarnation worker, int64_t window) const;
  // Units held by the worker for the window's present attempt, ascending.
  std::vector<int64_t> Held(Incarnation worker, int64_t window) const;
  std::vector<WindowRecord> commits;
  std::vector<PersistEvaluation> evaluations;
  std::vector<LedgerEntry> ledger;
  JobView View() const { return *core.FindJob("job"); }
  Key KeyOf(Incarnation worker, int64_t window) const;

  Core core;

 private:
  template <typename Message>
  static size_t Index() {
    return WorkerMessage(Message()).index();
  }
  struct Share {
    Key key;
    std::vector<int64_t> units;
    size_t reported = 0;
    int64_t final_buckets = 0;
    std::vector<int64_t> audits;
  };
  void Take(const Effect& effect);
  UnitReport WordOf(Incarnation worker, int64_t window, int64_t unit);

  int64_t now_ns_ = 1'000'000'000;
  std::vector<Effect> effects_;
  std::map<std::pair<int64_t, size_t>, WorkerMessage> last_;
  std::map<int64_t, std::pair<Key, CheckpointOrder>> orders_;
  std::map<std::pair<int64_t, int64_t>, Share> shares_;  // by (incarnation, window)
};

}  // namespace accrue::core
