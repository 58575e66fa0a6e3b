// What tests of the runner share: a small engine on host memory, a link that keeps what is sent, and a member, which is
// a runner on a thread of its own with helpers that speak as the coordinator.
#pragma once

#include <bit>
#include <cmath>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/check.h"
#include "common/exponents.h"
#include "common/philox.h"
#include "tests/accumulate/host_backend.h"
#include "worker/collective/collective.h"
#include "worker/core/window_runner.h"

namespace accrue::worker_testing {

inline constexpr int64_t kUnits = 6;  // in a window
inline constexpr char kJobId[] = "tiny-1";

// Loss of a unit: half the squared distance of all parameters from a point that (window, unit) names.
class QuadraticEngine : public Engine {
 public:
  explicit QuadraticEngine(const std::vector<TensorShape>& shapes, int64_t bucket_elements = kBucketElements)
      : layout_(*ParameterLayout::Build(shapes, bucket_elements)) {}
  ~QuadraticEngine() override {
    if (after_all) after_all();
  }

  // A multiplier of the gradient in one window, to provoke replays; NaN provokes a skip.
  int64_t odd_window = -1;
  int64_t odd_unit = -1;
  float odd_factor = 1;
  absl::Status fails;  // not OK: what ComputeUnit returns
  std::function<void(int64_t unit)> before_unit;
  int last_loss_scale = -1;         // exponent of the last unit's
  std::function<void()> after_all;  // when the job is given up

  const ParameterLayout& layout() const override { return layout_; }
  void BindParameters(const float* parameters) override { parameters_ = parameters; }
  void ParametersChanged() override {}
  void InitializeParameters(uint64_t seed, float* host_arena) const override {
    std::fill(host_arena, host_arena + layout_.arena_elements(), 0.0f);
    ForEach([&](const TensorInfo& tensor, int64_t i) {
      host_arena[tensor.arena_offset + i] = Draw(seed, 0, tensor.arena_offset + i);
    });
  }
  absl::StatusOr<UnitLoss> ComputeUnit(const UnitInput& input, GradientSink& sink) override {
    if (!fails.ok()) return fails;
    if (before_unit) before_unit(input.unit);
    last_loss_scale = input.loss_scale_exponent;
    const float factor = input.window == odd_window && (odd_unit < 0 || input.unit == odd_unit) ? odd_factor : 1.0f;
    UnitLoss loss{0, TokensOf(input.unit)};
    for (int t = static_cast<int>(layout_.tensors().size()) - 1; t >= 0; --t) {
      const TensorInfo& tensor = layout_.tensors()[t];
      gradient_.assign(tensor.elements, 0);
      for (int64_t i = 0; i < tensor.elements; ++i) {
        const int64_t place = tensor.arena_offset + i;
        const float distance = parameters_[place] - Draw(7, input.window * 1000 + input.unit, place);
        loss.loss_sum += 0.5 * distance * distance;
        gradient_[i] = std::ldexp(distance * factor, input.loss_scale_exponent);
      }
      sink.Add(t, gradient_.data());
    }
    return loss;
  }
  absl::StatusOr<UnitLoss> EvaluateUnit(const UnitInput& input) override {
    return UnitLoss{static_cast<double>(parameters_[0]) + static_cast<double>(input.unit), 3};
  }
  absl::Status NextTokenLogits(const int32_t*, int64_t, float*) override { return absl::UnimplementedError("none"); }
  int64_t vocabulary() const override { return 10; }
  int64_t WorkspaceBytes() const override { return 0; }

  static int64_t TokensOf(int64_t unit) { return 5 + unit; }

 private:
  static float Draw(uint64_t seed, int64_t counter, int64_t place) {
    const uint64_t bits = SplitMix64(seed * 1'000'003 + static_cast<uint64_t>(counter) * 8'000'009 + static_cast<uint64_t>(place));
    return static_cast<float>(bits >> 40) * 0x1p-24f - 0.5f;
  }
  template <typename Body>
  void ForEach(Body body) const {
    for (const TensorInfo& tensor : layout_.tensors()) {
      for (int64_t i = 0; i < tensor.elements; ++i) body(tensor, i);
    }
  }

  const ParameterLayout layout_;
  const float* parameters_ = nullptr;
  std::vector<float> gradient_;
};

// Units without content: the engine looks at their names alone.
class NamedUnits : public UnitSource {
 public:
  void Expect(const std::vector<UnitName>&) override {}
  UnitInput Training(const UnitName& name) override { return {.window = name.window, .unit = name.unit}; }
  UnitInput Evaluation(int64_t unit) override { return {.window = 0, .unit = unit}; }
};

// Held-out data that nobody reads.
class NoData : public Dataset {
 public:
  int64_t sequences() const override { return 1; }
  int64_t tokens() const override { return 1; }
  bool masked() const override { return false; }
  int64_t SequenceAt(int64_t) const override { return 0; }
  std::vector<Range> RangesOf(int64_t) const override { return {}; }
  void Read(int64_t, int32_t*, int32_t*) const override {}
};

// Keeps what the worker sends until the test takes it.
class FakeLink : public CoordinatorLink {
 public:
  void Send(v1::WorkerMessage message) override {
    absl::MutexLock lock(&mutex_);
    sent_.push_back(std::move(message));
  }
  void Close() override {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  bool closed() {
    absl::MutexLock lock(&mutex_);
    return closed_;
  }
  // The oldest message that nobody took. Fails the test after a long time.
  v1::WorkerMessage Take() {
    absl::MutexLock lock(&mutex_);
    auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !sent_.empty(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&ready), absl::Seconds(30))) {
      ADD_FAILURE() << "the worker sent nothing";
      return {};
    }
    v1::WorkerMessage message = std::move(sent_.front());
    sent_.pop_front();
    return message;
  }
  size_t waiting() {
    absl::MutexLock lock(&mutex_);
    return sent_.size();
  }

 private:
  absl::Mutex mutex_;
  std::deque<v1::WorkerMessage> sent_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

class FakeCheckpoints : public CheckpointSink {
 public:
  void Write(const v1::Key& key, const v1::CheckpointOrder& order, const TrainingState& state) override {
    absl::MutexLock lock(&mutex_);
    windows_.push_back(state.window());
    directories_.push_back(order.directory());
  }
  std::vector<int64_t> windows() {
    absl::MutexLock lock(&mutex_);
    return windows_;
  }

 private:
  absl::Mutex mutex_;
  std::vector<int64_t> windows_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> directories_ ABSL_GUARDED_BY(mutex_);
};

inline std::vector<TensorShape> SmallShapes() { return {{"a", {40}}, {"b.weight", {200, 100}}, {"c", {4, 5}}}; }

inline std::unique_ptr<Job> MakeJob(bool holds_state, AccumulationMode mode = AccumulationMode::kExact,
                                    OptimizerKind optimizer = OptimizerKind::kAdamW,
                                    const std::vector<TensorShape>& shapes = SmallShapes(),
                                    int64_t bucket_elements = kBucketElements) {
  auto job = std::make_unique<Job>();
  job->backend = std::make_unique<HostBackend>();
  job->engine = std::make_unique<QuadraticEngine>(shapes, bucket_elements);
  const ParameterLayout& layout = job->engine->layout();
  job->state = *TrainingState::Create({.kind = optimizer}, mode, layout, *job->backend);
  job->accumulator = *Accumulator::Create(mode, layout, *job->backend);
  job->validation = std::make_unique<NoData>();
  job->units = std::make_unique<NamedUnits>();
  job->engine->BindParameters(job->state->parameters());
  job->holds_state = holds_state;
  std::vector<float> values(static_cast<size_t>(layout.arena_elements()));
  if (holds_state) job->engine->InitializeParameters(3, values.data());
  job->state->Start(values.data());
  return job;
}

// A runner on its own thread, and the coordinator's words to it.
class Member {
 public:
  Member(int64_t incarnation, CollectiveFactory& collectives, std::unique_ptr<Job> job,
         const Clock& clock = Clock::Real(), Tracer* tracer = nullptr, Preparer* preparer = nullptr)
      : job(std::move(job)), incarnation_(incarnation) {
    guard.Observe(Assignment());
    guard.BeginJob();
    thread_ = std::thread([this, &collectives, &clock, tracer, preparer] {
      // Longer than FakeLink waits: what only a deadline ends fails the test.
      const RunnerContext context{link,  inbox,   guard,   collectives, checkpoints,
                                  clock, 300'000, nullptr, preparer,    tracer};
      end = WindowRunner(context, Assignment().assign_job(), *this->job).Run();
    });
    const v1::WorkerMessage message = link.Take();
    EXPECT_TRUE(message.has_job_loaded());
    loaded = message.job_loaded();
  }
  ~Member() { Release(); }

  // Ends the runner and waits for that.
  void Release() {
    if (!thread_.joinable()) return;
    v1::CoordinatorMessage message;
    *message.mutable_release()->mutable_key() = Key(0);
    Tell(message);
    thread_.join();
  }
  void Join() { thread_.join(); }

  void Tell(const v1::CoordinatorMessage& message) {
    guard.Observe(message);
    ASSERT_TRUE(inbox.Push(message));
  }

  v1::Key Key(int64_t window, int64_t attempt = 0) const {
    v1::Key key;
    key.set_term(term);
    key.set_job_id(kJobId);
    key.set_timeline(2);
    key.set_epoch(epoch);
    key.set_incarnation(incarnation_);
    key.set_window(window);
    key.set_attempt(attempt);
    return key;
  }

  void Plan(int64_t window, const std::vector<std::pair<int64_t, int64_t>>& ranges, std::vector<int> exponents = {},
            int64_t attempt = 0, int64_t evaluation_units = 0, std::optional<LossScale> loss_scale = std::nullopt) {
    v1::CoordinatorMessage message;
    v1::Plan& plan = *message.mutable_plan();
    *plan.mutable_key() = Key(window, attempt);
    for (const auto& [first, count] : ranges) {
      v1::UnitRange& range = *plan.add_units();
      range.set_first(first);
      range.set_count(count);
    }
    plan.mutable_scalars()->set_learning_rate_bits(std::bit_cast<uint32_t>(0.01f));
    plan.mutable_scalars()->set_bias_correction1_bits(std::bit_cast<uint32_t>(0.1f + 0.1f * static_cast<float>(window)));
    plan.mutable_scalars()->set_bias_correction2_bits(std::bit_cast<uint32_t>(0.05f + 0.05f * static_cast<float>(window)));
    plan.mutable_exponents()->Assign(exponents.begin(), exponents.end());
    if (evaluation_units > 0) plan.add_evaluation_units()->set_count(evaluation_units);
    if (loss_scale) {
      plan.mutable_loss_scale()->set_exponent(loss_scale->exponent);
      plan.mutable_loss_scale()->set_good_windows(loss_scale->good_windows);
    }
    Tell(message);
  }

  void Commit(int64_t window, const std::string& digest) {
    v1::CoordinatorMessage message;
    *message.mutable_commit()->mutable_key() = Key(window);
    message.mutable_commit()->set_digest(digest);
    Tell(message);
  }

  // Takes unit and evaluation reports up to WindowComputed.
  v1::WindowComputed TakeComputed(std::vector<v1::UnitReport>* reports,
                                  std::vector<v1::EvaluationReport>* evaluations = nullptr) {
    while (true) {
      v1::WorkerMessage message = link.Take();
      if (message.has_unit_reports()) {
        for (const v1::UnitReport& report : message.unit_reports().reports()) reports->push_back(report);
      } else if (message.has_evaluation_reports() && evaluations != nullptr) {
        for (const v1::EvaluationReport& report : message.evaluation_reports().reports()) evaluations->push_back(report);
      } else {
        EXPECT_TRUE(message.has_window_computed()) << message.DebugString();
        return message.window_computed();
      }
    }
  }

  v1::Stepped TakeStepped() {
    const v1::WorkerMessage message = link.Take();
    EXPECT_TRUE(message.has_stepped()) << message.DebugString();
    return message.stepped();
  }
  v1::ReduceFailed TakeReduceFailed() {
    const v1::WorkerMessage message = link.Take();
    EXPECT_TRUE(message.has_reduce_failed()) << message.DebugString();
    return message.reduce_failed();
  }

  QuadraticEngine& engine() { return static_cast<QuadraticEngine&>(*job->engine); }

  std::unique_ptr<Job> job;
  int64_t epoch = 1, term = 1;
  FakeLink link;
  Inbox inbox;
  CollectiveGuard guard;
  FakeCheckpoints checkpoints;
  v1::JobLoaded loaded;
  RunEnd end;  // once joined

 private:
  v1::CoordinatorMessage Assignment() const {
    v1::CoordinatorMessage message;
    *message.mutable_assign_job()->mutable_key() = Key(0);
    return message;
  }

  const int64_t incarnation_;
  std::thread thread_;
};

// The seal that follows from all units' reports, for the given members.
inline v1::Seal SealOf(const std::vector<v1::UnitReport>& reports, const std::vector<int64_t>& members,
                       const std::string& communicator, bool exact = true) {
  v1::Seal seal;
  seal.set_verdict(v1::VERDICT_REDUCE);
  seal.set_communicator(communicator);
  seal.mutable_members()->Assign(members.begin(), members.end());
  std::vector<int> exponents;
  std::vector<uint64_t> checksums;
  int64_t tokens = 0;
  for (const v1::UnitReport& report : reports) {
    if (report.non_finite()) seal.set_verdict(v1::VERDICT_SKIP);
    tokens += report.valid_tokens();
    MergeMaxExponents({report.max_exponents().begin(), report.max_exponents().end()}, exponents);
    if (exact) AddChecksums({report.bucket_checksums().begin(), report.bucket_checksums().end()}, checksums);
  }
  seal.set_valid_tokens(tokens);
  seal.mutable_bucket_checksums()->Assign(checksums.begin(), checksums.end());
  if (exact) {
    const std::vector<int> next = NextExponents(kUnits, exponents);
    seal.mutable_next_exponents()->Assign(next.begin(), next.end());
  }
  return seal;
}

inline void TellSeal(Member& member, v1::Seal seal, int64_t window, int64_t attempt = 0) {
  v1::CoordinatorMessage message;
  *seal.mutable_key() = member.Key(window, attempt);
  *message.mutable_seal() = std::move(seal);
  member.Tell(message);
}

}  // namespace accrue::worker_testing
