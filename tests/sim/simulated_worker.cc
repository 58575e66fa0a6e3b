#include "tests/sim/simulated_worker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/philox.h"
#include "tests/sim/simulator.h"

namespace accrue::core {
namespace {

constexpr int64_t kLoadNs = 150'000'000, kStepNs = 3'000'000, kShardNs = 120'000'000;
constexpr int64_t kMeetNs = 20'000'000;      // until a communicator is formed ahead
constexpr double kMeetingFails = 0.05;
constexpr double kCopyBreaks = 0.02;         // in a step of a copy
constexpr int64_t kSilenceNs = 600'000'000;  // until the other side of a copy, which cannot be reached, is missed

uint64_t Mix(uint64_t a, uint64_t b) {
  return SplitMix64(a ^ (b + 0x9E3779B97F4A7C15 + (a << 6) + (a >> 2)));
}

std::string Text(uint64_t digest) { return absl::StrCat(absl::Hex(digest, absl::kZeroPad16)); }

}  // namespace

template <typename Done>
void SimulatedWorker::After(int64_t delay_ns, Busy what, Done done) {
  busy_ = what;
  simulator_.AtWorker(simulator_.now_ns() + delay_ns, incarnation_, [this, generation = generation_, done = std::move(done)] {
    if (generation != generation_) return;
    busy_ = Busy::kNo;
    done();
    Next();
  });
}

void SimulatedWorker::Forget() {
  ++generation_;
  busy_ = Busy::kNo;
  ClearAccumulator();
  shares_.clear();
  seal_.reset();
  sync_.reset();
  copy_.reset();
  probe_.reset();
  orders_.clear();
  collective_.clear();
  evaluations_.clear();
  step_.reset();
  communicator_.clear();
  prepared_.clear();
}

void SimulatedWorker::ClearAccumulator() {
  accumulator_.clear();
  reports_.clear();
  final_sums_.clear();
}

std::string SimulatedWorker::Doing() const {
  std::string text = absl::StrCat("worker ", incarnation_.value(), " busy ", static_cast<int>(busy_),
                                  " state ", has_state_ ? state_.window : -1, leaving ? " leaving" : "",
                                  seal_ ? " sealed" : "", " collective '", collective_, "'");
  for (const auto& [window, share] : shares_) {
    absl::StrAppend(&text, " [", window, ": ", share.units.size(), " units, ", share.evaluation.size(),
                    " to evaluate, computed ", share.told_computed, "]");
  }
  return text;
}

SimulatedWorker::Share* SimulatedWorker::Current() {
  const auto found = shares_.find(state_.window);
  return has_state_ && found != shares_.end() ? &found->second : nullptr;
}

void SimulatedWorker::Receive(const WorkerMessage& message) {
  if (!alive) return;
  if (const auto* assign = std::get_if<AssignJob>(&message)) {
    OnAssign(*assign);
  } else if (const auto* plan = std::get_if<Plan>(&message)) {
    OnPlan(*plan);
  } else if (const auto* recall = std::get_if<Recall>(&message)) {
    OnRecall(*recall);
  } else if (const auto* probe = std::get_if<ProbeOrder>(&message)) {
    probe_ = *probe;
  } else if (const auto* seal = std::get_if<Seal>(&message)) {
    seal_ = *seal;
  } else if (const auto* replay = std::get_if<Replay>(&message)) {
    if (replay->key.window.value() == state_.window) {
      ++generation_;
      busy_ = Busy::kNo;
      ClearAccumulator();
      seal_.reset();
      collective_.clear();
      if (Share* share = Current()) {  // nothing is done before the new attempt's Plan
        share->units.clear();
        share->audits.clear();
      }
    }
  } else if (const auto* abort = std::get_if<Abort>(&message)) {
    const bool of_sync = busy_ == Busy::kSyncing && sync_ && abort->key.epoch >= sync_->key.epoch;
    const bool of_seal = seal_ && (busy_ == Busy::kNo || busy_ == Busy::kReducing) &&
                         abort->key.window == seal_->key.window && abort->key.attempt == seal_->key.attempt &&
                         abort->key.epoch >= seal_->key.epoch;
    if (of_sync || of_seal) CollectiveFailed(collective_, "told to abort");
  } else if (const auto* commit = std::get_if<Commit>(&message)) {
    if (step_ && commit->key.window == step_->stepped.key.window) step_.reset();
  } else if (const auto* sync = std::get_if<StateSync>(&message)) {
    if (busy_ == Busy::kSyncing) {
      ++generation_;
      busy_ = Busy::kNo;
      collective_.clear();
    }
    sync_ = *sync;
  } else if (const auto* copy = std::get_if<CopyState>(&message)) {
    OnCopyState(*copy);
  } else if (const auto* prepare = std::get_if<Prepare>(&message)) {
    OnPrepare(*prepare);
  } else if (const auto* order = std::get_if<CheckpointNow>(&message)) {
    orders_.push_back(*order);
  } else if (std::holds_alternative<Release>(message)) {
    Forget();
    has_state_ = false;
    key_ = Key();
    if (leaving) simulator_.End(*this, true);
  }
  Next();
}

void SimulatedWorker::Flip() {
  if (!has_state_) return;
  state_.digest ^= simulator_.Random() | 1;
  flipped = true;
}

void SimulatedWorker::OnAssign(const AssignJob& assign) {
  Forget();
  has_state_ = false;
  key_ = assign.key;
  After(static_cast<int64_t>(static_cast<double>(kLoadNs) * (1 + simulator_.Uniform())), Busy::kLoading,
        [this, assign] {
          JobLoaded loaded;
          loaded.from = incarnation_;
          loaded.key = assign.key;
          loaded.tensor_elements = {1000, 24};
          loaded.buckets = kSimulatedBuckets;
          if (assign.start == AssignJob::Start::kFromScratch) {
            state_ = SimulatedState{0, Mix(simulator_.config().content_seed, 1), {}};
            has_state_ = true;
          } else if (assign.start == AssignJob::Start::kFromCheckpoint) {
            const SimulatedState* stored = simulator_.FindCheckpoint(assign.checkpoint_directory);
            if (stored == nullptr) {
              simulator_.FromWorker(*this, WorkerFailedJob{incarnation_, assign.key, "NOT_FOUND",
                                                           "the checkpoint was deleted", false});
              return;
            }
            state_ = *stored;
            has_state_ = true;
          }
          flipped = false;
          if (has_state_) {
            loaded.parameter_hash = Text(state_.digest);
            loaded.key.window = Window(state_.window);
            loaded.digest = Text(state_.digest);
            loaded.exponents = state_.exponents;
          }
          simulator_.FromWorker(*this, std::move(loaded));
        });
}

void SimulatedWorker::OnPlan(const Plan& plan) {
  Share& share = shares_[plan.key.window.value()];
  if (plan.key.attempt > share.key.attempt) {
    share.units.clear();
    share.audits.clear();
    share.told_computed = false;
    if (plan.key.window.value() == state_.window) ClearAccumulator();
  }
  if (std::exchange(share.awaits_plan, false)) share.told_computed = false;
  share.key = plan.key;
  share.scalars = plan.scalars;
  if (!plan.exponents.empty()) share.exponents = plan.exponents;
  if (plan.loss_scale) share.loss_scale = plan.loss_scale;
  for (const UnitRange& range : plan.units) {
    for (int64_t i = 0; i < range.count; ++i) share.units.push_back(range.first + i);
    share.told_computed = false;
  }
  for (const UnitRange& range : plan.evaluation_units) {
    for (int64_t i = 0; i < range.count; ++i) share.evaluation.push_back(range.first + i);
  }
  for (const UnitRange& range : plan.audit_units) {
    for (int64_t i = 0; i < range.count; ++i) share.audits.push_back(range.first + i);
  }
  if (plan.evaluation_only) share.told_computed = true;
  if (shares_.rbegin()->first > state_.window + 1 && has_state_ && busy_ != Busy::kStepping) {
    simulator_.Violation("a worker is planned more than one window ahead");
  }
}

// The last ones first; nothing if they are of another attempt than the worker's.
void SimulatedWorker::OnRecall(const Recall& recall) {
  UnitsReturned returned{incarnation_, recall.key, {}};
  const auto share = shares_.find(recall.key.window.value());
  if (share != shares_.end() && share->second.key.attempt == recall.key.attempt) {
    std::deque<int64_t>& units = share->second.units;
    for (int64_t left = recall.units; left > 0 && !units.empty(); --left) {
      returned.units.push_back({units.back(), 1});
      units.pop_back();
    }
  }
  simulator_.FromWorker(*this, std::move(returned));
}

void SimulatedWorker::Next() {
  if (!alive || busy_ != Busy::kNo) return;
  if (owes_holding_) SendHolding();
  if (sync_) return BeginSync();
  if (!orders_.empty()) {
    WriteCheckpoint(orders_.front().key, orders_.front().order);
    orders_.pop_front();
    return Next();
  }
  if (probe_) {
    return After(static_cast<int64_t>(unit_ns_), Busy::kProbing, [this] {
      const ProbeOrder probe = *std::exchange(probe_, std::nullopt);
      UnitsReported reported{
          incarnation_, probe.key, true, {simulator_.UnitOf(state_.digest, state_.window, 0, {})}};
      simulator_.FromWorker(*this, std::move(reported));
    });
  }
  Share* share = Current();
  if (share == nullptr) return;
  if (seal_) return BeginReduce();
  if (!share->evaluation.empty()) return EvaluateNext(*share);
  if (!share->units.empty()) return ComputeNext(*share);
  if (!share->told_computed) TellComputed(*share);
  if (!share->audits.empty()) AuditNext(*share);
}

void SimulatedWorker::TakeScales(const Share& share) {
  if (!share.exponents.empty()) state_.exponents = share.exponents;
  if (share.loss_scale) state_.loss_scale = share.loss_scale;
}

void SimulatedWorker::ComputeNext(Share& share) {
  TakeScales(share);
  const double jitter = 1 + simulator_.config().jitter * (simulator_.Uniform() - 0.5);
  const auto time_ns = static_cast<int64_t>(unit_ns_ * slowdown_ * jitter);
  const int64_t unit = share.units.front();
  share.units.pop_front();
  After(time_ns, Busy::kComputing, [this, unit, time_ns] {
    UnitReport report = simulator_.UnitOf(state_.digest, state_.window, unit, state_.Scales());
    report.compute_ns = time_ns;
    uint64_t gradient = simulator_.GradientOf(state_.digest, state_.window, unit, state_.Scales());
    simulator_.MaybeLie(*this, report, gradient);
    reports_[unit] = report;
    simulator_.CountUnit();
    accumulator_.emplace_back(unit, gradient);
    simulator_.FromWorker(*this, UnitsReported{incarnation_, Current()->key, false, {report}});
  });
}

// Computes a unit for its report alone.
void SimulatedWorker::AuditNext(Share& share) {
  TakeScales(share);
  const int64_t unit = share.audits.front();
  share.audits.pop_front();
  After(static_cast<int64_t>(unit_ns_), Busy::kAuditing, [this, unit] {
    UnitReport report = simulator_.UnitOf(state_.digest, state_.window, unit, state_.Scales());
    uint64_t gradient = 0;
    simulator_.MaybeLie(*this, report, gradient);
    simulator_.FromWorker(*this, UnitsReported{incarnation_, Current()->key, false, {report}, true});
  });
}

void SimulatedWorker::EvaluateNext(Share& share) {
  const int64_t unit = share.evaluation.front();
  share.evaluation.pop_front();
  After(static_cast<int64_t>(unit_ns_ / 3), Busy::kEvaluating, [this, unit] {
    evaluations_.push_back(simulator_.EvaluationOf(state_.digest, unit));
    simulator_.FromWorker(*this, EvaluationReported{incarnation_, Current()->key, {evaluations_.back()}});
  });
}

void SimulatedWorker::TellComputed(Share& share) {
  share.told_computed = true;
  TakeScales(share);
  WindowComputed computed;
  computed.from = incarnation_;
  computed.key = share.key;
  computed.parameter_hash = Text(state_.digest);
  BucketManifest open;
  for (const auto& [unit, gradient] : accumulator_) open.units.push_back({unit, 1});
  const auto final_buckets = static_cast<int64_t>(final_sums_.size());
  if (final_buckets == 0) {
    computed.buckets = {open};
  } else {
    for (int64_t b = 0; b < kSimulatedBuckets; ++b) {
      computed.buckets.push_back(b < final_buckets ? BucketManifest{true, {}} : open);
    }
  }
  computed_ = computed;
  simulator_.FromWorker(*this, std::move(computed));
}

void SimulatedWorker::BeginReduce() {
  if (seal_->key.window.value() != state_.window) {
    simulator_.Violation("a seal of another window than the worker's");
    return;
  }
  if (seal_->verdict == Verdict::kSkip) return BeginStep();
  TakeCommunicator();
  busy_ = Busy::kReducing;
  collective_ = absl::StrCat(seal_->communicator, "#", state_.window, ".", seal_->key.attempt.value());
  simulator_.collectives().JoinReduce(collective_, *this, *seal_);
}

void SimulatedWorker::TakeCommunicator() {
  const std::string& named = seal_->communicator;
  if (named == communicator_) return;
  const bool is_here = is_formed_ && prepared_ == named;
  if (is_here) simulator_.Cover("a communicator formed ahead is used");
  if (!is_here && named.find("/ahead/") != std::string::npos) {
    simulator_.Violation(absl::StrCat("a seal names ", named, ", which is not formed here"));
  }
  communicator_ = named;
  if (is_here) prepared_.clear();
}

void SimulatedWorker::BucketDone(const std::string& collective, int64_t bucket, const SimulatedSum& sum) {
  if (!alive || busy_ != Busy::kReducing || collective != collective_) return;
  if (sum.checksum != seal_->bucket_checksums[static_cast<size_t>(bucket)]) {
    simulator_.Violation(absl::StrCat("bucket ", bucket, " has not the expected checksum"));
  }
  if (bucket >= static_cast<int64_t>(final_sums_.size())) {
    final_sums_.push_back(sum);
  } else if (final_sums_[static_cast<size_t>(bucket)].hash != sum.hash) {
    simulator_.Violation(absl::StrCat("bucket ", bucket, " was final with other sums"));
  }
  if (bucket + 1 < kSimulatedBuckets) return;
  busy_ = Busy::kNo;
  collective_.clear();
  BeginStep();
}

void SimulatedWorker::CollectiveFailed(const std::string& collective, const std::string& reason,
                                       std::vector<Incarnation> unreachable) {
  if (!alive || collective != collective_) return;
  ReduceFailed failed;
  failed.from = incarnation_;
  failed.reason = reason;
  failed.unreachable = std::move(unreachable);
  if (busy_ == Busy::kSyncing) {
    failed.key = sync_ ? sync_->key : key_;
    sync_.reset();
  } else if (seal_ && (busy_ == Busy::kReducing || busy_ == Busy::kNo)) {
    communicator_.clear();
    failed.key = seal_->key;
    failed.final_buckets = static_cast<int64_t>(final_sums_.size());
    seal_.reset();
  } else {
    return;
  }
  collective_.clear();
  busy_ = Busy::kNo;
  simulator_.FromWorker(*this, std::move(failed));
  Next();
}

void SimulatedWorker::BeginStep() {
  SimulatedState next;
  next.window = state_.window + 1;
  next.exponents = seal_->next_exponents;
  next.loss_scale = seal_->next_loss_scale;
  next.digest = Mix(state_.digest, static_cast<uint64_t>(state_.window));
  if (seal_->verdict == Verdict::kReduce) {
    for (const SimulatedSum& sum : final_sums_) next.digest = Mix(next.digest, sum.hash);
    const StepScalars& scalars = Current()->scalars;
    next.digest = Mix(next.digest, static_cast<uint64_t>(seal_->valid_tokens));
    next.digest = Mix(next.digest, scalars.learning_rate_bits);
    next.digest = Mix(next.digest, Mix(scalars.bias_correction1_bits, scalars.bias_correction2_bits));
  }
  for (int scale : next.Scales()) next.digest = Mix(next.digest, static_cast<uint64_t>(scale));
  if (next.loss_scale) next.digest = Mix(next.digest, static_cast<uint64_t>(next.loss_scale->good_windows));
  const auto time_ns = static_cast<int64_t>(static_cast<double>(kStepNs) * (1 + simulator_.Uniform()));
  After(time_ns, Busy::kStepping, [this, next] {
    const Seal seal = *std::exchange(seal_, std::nullopt);
    shares_.erase(state_.window);
    ClearAccumulator();
    state_ = next;
    evaluations_.clear();
    WorkerStepped stepped;
    stepped.from = incarnation_;
    stepped.key = seal.key;
    stepped.digest = stepped.parameter_hash = Text(state_.digest);
    stepped.gradient_norm = static_cast<double>(state_.digest % 1000);
    step_ = {stepped, computed_, seal.verdict, seal.valid_tokens, seal.loss_sum, seal.vanished_elements,
             seal.next_exponents, seal.next_loss_scale};
    simulator_.FromWorker(*this, std::move(stepped));
    if (seal.checkpoint) WriteCheckpoint(seal.key, *seal.checkpoint);
  });
}

void SimulatedWorker::WriteCheckpoint(const Key& key, const CheckpointOrder& order) {
  if (order.window.value() != state_.window)
    simulator_.Violation("a checkpoint of a state that the worker has not");
  CheckpointShardWritten written;
  written.from = incarnation_;
  written.key = key;
  written.checkpoint_window = order.window;
  std::string exponents;
  for (int exponent : state_.exponents) absl::StrAppend(&exponents, exponent, " ");
  written.files = {
      {absl::StrCat("shard-", order.shard), static_cast<uint64_t>(order.shards), Text(state_.digest)}};
  if (simulator_.Uniform() < simulator_.config().faults.failed_checkpoints) {
    written.files.clear();
    written.error = "the disk is full";
  }
  const auto time_ns = static_cast<int64_t>(static_cast<double>(kShardNs) * (0.5 + simulator_.Uniform()));
  simulator_.AtWorker(simulator_.now_ns() + time_ns, incarnation_,
                      [this, written] { simulator_.FromWorker(*this, written); });
}

void SimulatedWorker::BeginSync() {
  busy_ = Busy::kSyncing;
  collective_ = sync_->communicator;
  if (sync_->source != incarnation_) {
    ClearAccumulator();
    shares_.clear();
    seal_.reset();
    step_.reset();
    evaluations_.clear();
    has_state_ = false;
  } else if (state_.window != sync_->key.window.value()) {
    simulator_.Violation("the source of a sync holds another window's state");
  }
  simulator_.collectives().JoinSync(collective_, *this, *sync_);
}

void SimulatedWorker::SyncDone(const std::string& collective, const SimulatedState& state) {
  if (!alive || busy_ != Busy::kSyncing || collective != collective_) return;
  const StateSync sync = *std::exchange(sync_, std::nullopt);
  busy_ = Busy::kNo;
  collective_.clear();
  if (sync.source != incarnation_) {
    state_ = state;
    has_state_ = true;
    flipped = false;
  }
  simulator_.FromWorker(*this, StateSynced{incarnation_, sync.key, Text(state_.digest)});
  Next();
}

void SimulatedWorker::OnCopyState(const CopyState& order) {
  if (order.receiver != incarnation_) return;
  if (order.end) {
    if (copy_ && copy_->communicator == order.communicator) copy_.reset();
    return;
  }
  copy_ = order;
  ClearAccumulator();
  shares_.clear();
  seal_.reset();
  has_state_ = false;
  Follow();
}

// Beside whatever it does. Members that are gone or cut off are missed after a while, or make it fail at once.
void SimulatedWorker::OnPrepare(const Prepare& order) {
  prepared_ = order.communicator;
  is_formed_ = false;
  const auto time_ns = static_cast<int64_t>(static_cast<double>(kMeetNs) * (1 + simulator_.Uniform()));
  simulator_.AtWorker(simulator_.now_ns() + time_ns, incarnation_, [this, order] {
    if (prepared_ != order.communicator) return;
    CommunicatorPrepared prepared{incarnation_, order.key, order.communicator, ""};
    bool all_here = true;
    for (Incarnation member : order.members) {
      all_here &= simulator_.Find(member) != nullptr && !simulator_.collectives().Apart(incarnation_, member);
    }
    if (!all_here && simulator_.Uniform() < 0.5) {
      simulator_.Cover("preparation never answered");
      return;
    }
    is_formed_ = all_here && simulator_.Uniform() >= kMeetingFails;
    if (!is_formed_) {
      simulator_.Cover("preparation failed");
      prepared.error = "no meeting";
      prepared_.clear();
    }
    simulator_.FromWorker(*this, std::move(prepared));
  });
}

// Gets level with the source, as it is by then, and again and again until it is told that this is enough; now and then the
// copy breaks.
void SimulatedWorker::Follow() {
  const auto time_ns = static_cast<int64_t>(static_cast<double>(kStepNs) * (1 + 4 * simulator_.Uniform()));
  simulator_.AtWorker(simulator_.now_ns() + time_ns, incarnation_, [this, name = copy_->communicator] {
    if (!copy_ || copy_->communicator != name) return;
    const SimulatedWorker* source = simulator_.Find(copy_->source);
    if (simulator_.collectives().Apart(incarnation_, copy_->source)) {
      return simulator_.AtWorker(simulator_.now_ns() + kSilenceNs, incarnation_, [this, name] { BreakCopy(name); });
    }
    if (source == nullptr || !source->alive || !source->has_state_ || simulator_.Uniform() < kCopyBreaks) {
      return BreakCopy(name);
    }
    if (!has_state_ || state_.window != source->state_.window || state_.digest != source->state_.digest) {
      state_ = source->state_;
      flipped = source->flipped;
      has_state_ = true;
      simulator_.Cover("state copied");
      StateCopied copied{incarnation_, copy_->key, name, Text(state_.digest), ""};
      copied.key.window = Window(state_.window);
      simulator_.FromWorker(*this, std::move(copied));
    }
    Follow();
  });
}

// Either side says so first.
void SimulatedWorker::BreakCopy(const std::string& name) {
  if (!copy_ || copy_->communicator != name) return;
  simulator_.Cover("copy broken");
  StateCopied copied{incarnation_, copy_->key, name, "", "the copy broke"};
  SimulatedWorker* source = simulator_.Find(copy_->source);
  copy_.reset();
  const bool source_says_so = source != nullptr && source->alive && simulator_.Uniform() < 0.5;
  SimulatedWorker& speaker = source_says_so ? *source : *this;
  copied.from = copied.key.incarnation = speaker.incarnation_;
  simulator_.FromWorker(speaker, std::move(copied));
}

}  // namespace accrue::core
