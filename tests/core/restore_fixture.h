// A job of four units a window whose coordinator died after three windows; what its three members may come back with.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/exponents.h"
#include "tests/core/harness.h"

namespace accrue::core {

inline constexpr int64_t kCommitted = 3;  // windows, when the coordinator died
inline constexpr int64_t kUnits = 4;
inline const Incarnation kA(1), kB(2), kC(3);

inline CoreOptions RestoreOptions() {
  CoreOptions options = Harness::Options();
  options.check_thoroughly = true;
  options.first_incarnation = 10;
  options.reconnect_ns = 3'000'000'000;
  return options;
}

class RestoreTest : public testing::Test {
 protected:
  RestoreTest() : h(RestoreOptions()) {
    live_.layout = {"cpu", {"a", "b"}, {60, 40}, 1};
    live_.timeline = Timeline(2);
    live_.window = Window(kCommitted);
    live_.steps = kCommitted;
    live_.digest = Harness::DigestOf(kCommitted - 1);
    live_.parameter_hash = "parameters";
    live_.epoch = Epoch(7);
    live_.exponents = NextExponents(kUnits, std::vector<int>{0, -3});
    live_.members = {kA, kB, kC};
    start_.timeline = Timeline(5);
    for (int64_t window = 0; window < kCommitted; ++window)
      start_.recorded[window] = Harness::DigestOf(window);
  }

  void Submit(const JobConfig& config = SmallJob()) {
    start_.live = live_;
    h.Submit(config, start_);
  }

  void Resume(Incarnation worker, const std::string& numeric_class = "cpu") {
    WorkerJoined joined;
    joined.incarnation = worker;
    joined.name = "worker-" + std::to_string(worker.value());
    joined.numeric_class = numeric_class;
    joined.resumed = true;
    h.Apply(joined);
  }

  Key KeyOf(Incarnation worker, int64_t window, int64_t attempt = 0) const {
    return {Term(2), "job", live_.timeline, live_.epoch, worker, Window(window), Attempt(attempt)};
  }

  // The state of the newest commit, and these units of the window on the way.
  WorkerHolds Level(Incarnation worker, std::vector<int64_t> units) {
    WorkerHolds holds;
    holds.from = worker;
    holds.key = KeyOf(worker, kCommitted, live_.attempt.value());
    holds.digest = live_.digest;
    holds.parameter_hash = "parameters";
    for (int64_t unit : units) holds.reports.push_back(h.UnitOf(kCommitted, unit));
    held_[worker] = std::move(units);
    return holds;
  }

  // Stepped the window on the way, of which it had computed these units.
  WorkerHolds Ahead(Incarnation worker, std::vector<UnitRange> computed, std::vector<int64_t> units = {},
                    const std::string& digest = Harness::DigestOf(kCommitted)) {
    WorkerHolds holds = Level(worker, std::move(units));
    holds.key.window = Window(kCommitted + 1);
    holds.key.attempt = Attempt();
    holds.digest = digest;
    for (UnitReport& report : holds.reports) report = h.UnitOf(kCommitted + 1, report.unit);
    WorkerHolds::UncommittedStep& step = holds.step.emplace();
    step.stepped.from = worker;
    step.stepped.key = KeyOf(worker, kCommitted, live_.attempt.value());
    step.stepped.digest = digest;
    step.stepped.parameter_hash = "parameters";
    step.stepped.gradient_norm = 1.5;
    step.stepped.clip_coefficient = 0.25;
    step.stepped.memory_bytes = 77;
    step.computed.from = worker;
    step.computed.key = step.stepped.key;
    step.computed.parameter_hash = "parameters";
    step.computed.buckets = {{false, std::move(computed)}};
    step.computed.local_gradient_norm = 0.75;
    step.valid_tokens = 64;
    step.loss_sum = 160;
    step.vanished_elements = 8;
    step.next_exponents = live_.exponents;
    return holds;
  }

  void Back(const WorkerHolds& holds) {
    Resume(holds.from);
    h.Apply(holds);
  }

  void PassDeadline() {
    h.AdvanceNs(2'999'000'000);
    for (const WorkerView& worker : h.core.Workers()) h.Apply(WorkerHeartbeat{worker.incarnation, 1});
    h.Apply(Tick{});
    EXPECT_EQ(h.View().state, JobState::kWaiting);
    h.AdvanceNs(2'000'000);
    h.Apply(Tick{});
  }

  // Reports what it was leased, and says what its accumulator has by now.
  void Compute(Incarnation worker, int64_t window) {
    h.ReportUnits(worker, window);
    WindowComputed computed;
    computed.from = worker;
    computed.key = h.KeyOf(worker, window);
    computed.parameter_hash = "parameters";
    BucketManifest& manifest = computed.buckets.emplace_back();
    for (int64_t unit : held_[worker]) manifest.units.push_back({unit, 1});
    for (int64_t unit : h.Held(worker, window)) manifest.units.push_back({unit, 1});
    h.Apply(computed);
  }

  std::vector<Expel> Expelled() const { return h.Effects<Expel>(); }

  Harness h;
  LiveState live_;
  StartPoint start_;
  std::map<Incarnation, std::vector<int64_t>> held_;
};

}  // namespace accrue::core
