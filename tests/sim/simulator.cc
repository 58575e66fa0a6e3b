#include "tests/sim/simulator.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/philox.h"
#include "tests/sim/describe.h"

namespace accrue::core {
namespace {

constexpr int64_t kTickNs = 100'000'000, kHeartbeatNs = 250'000'000;
constexpr size_t kCheckpointsKept = 2;
constexpr int64_t kThoroughUnits = 64;  // units a window up to which every invariant is checked after every event

uint64_t HashText(uint64_t hash, const std::string& text) {
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

Simulator::Simulator(const SimulationConfig& config) : config_(config), random_(config.seed) {
  StartCore(config.start);
}

void Simulator::StartCore(const StartPoint& start) {
  CoreOptions options;
  options.term = Term(++term_);
  options.check_thoroughly = config_.job.units_per_window <= kThoroughUnits;
  options.first_incarnation = workers_.empty() ? 1 : workers_.rbegin()->first.value() + 1;
  core_ = std::make_unique<Core>(options);
  durable_timeline_ = start.timeline.value();
  durable_epoch_ = 0;
  durable_attempt_.clear();
}

// The coordinator dies and comes back with its journal and the checkpoints on disk; every stream breaks.
void Simulator::CrashCoordinator() {
  if (Done()) return;
  for (const auto& [incarnation, worker] : workers_) End(*worker, false);
  StartPoint start = config_.start;
  for (const std::string& directory : checkpoint_order_) {
    const SimulatedState& state = checkpoints_.at(directory);
    if (state.window < start.window.value()) continue;
    start.checkpoint_directory = directory;
    start.window = Window(state.window);
    start.digest = absl::StrCat(absl::Hex(state.digest, absl::kZeroPad16));
    start.exponents = state.exponents;
  }
  start.steps = start.window.value();
  for (const WindowRecord& record : result_.commits) {
    const int64_t window = record.window.value();
    if (window >= start.window.value()) start.recorded[window] = record.digest;
    if (window + 1 == start.window.value()) start.steps = record.steps;
  }
  start.evaluated = result_.evaluations;
  start.timeline = Timeline(durable_timeline_ + 1);
  ++result_.crashes;
  StartCore(start);
  Apply(JobSubmitted{config_.job, start});
}

uint64_t Simulator::Random() { return SplitMix64(random_++ * 0x9E3779B97F4A7C15 + config_.seed); }

void Simulator::At(int64_t time_ns, std::function<void()> what) {
  queue_.push({std::max(time_ns, now_ns_), sequence_++, std::move(what)});
}

void Simulator::Violation(const std::string& what) {
  if (!result_.failure.empty()) return;
  result_.failure = absl::StrCat("seed ", config_.seed, " at ", now_ns_ / 1000, " us: ", what);
}

SimulatedWorker* Simulator::Find(Incarnation incarnation) {
  const auto found = workers_.find(incarnation);
  return found == workers_.end() || !found->second->alive ? nullptr : found->second.get();
}

const SimulatedState* Simulator::FindCheckpoint(const std::string& directory) const {
  const auto found = checkpoints_.find(directory);
  return found == checkpoints_.end() ? nullptr : &found->second;
}

bool Simulator::Done() const {
  if (!result_.failure.empty()) return true;
  const JobState state = core_->FindJob(config_.job.id)->state;
  return state == JobState::kSucceeded || state == JobState::kFailed || state == JobState::kCancelled;
}

SimulationResult Simulator::Run() {
  result_.effect_hash = 0xcbf29ce484222325;
  committed_ = config_.start.window.value();
  Apply(JobSubmitted{config_.job, config_.start});
  for (int i = 0; i < config_.workers; ++i) {
    At(static_cast<int64_t>(Uniform() * 50e6), [this] { StartWorker(); });
  }
  std::function<void()> tick = [&] {
    Apply(Tick{});
    At(now_ns_ + kTickNs, tick);
  };
  At(kTickNs, tick);
  PlanFaults();
  while (!Done()) {
    const Timed next = queue_.top();
    queue_.pop();
    now_ns_ = next.time_ns;
    if (now_ns_ > config_.give_up_ns) {
      const JobView view = *core_->FindJob(config_.job.id);
      for (const auto& [incarnation, worker] : workers_) {
        if (config_.trace && worker->alive) std::fprintf(stderr, "%s\n", worker->Doing().c_str());
      }
      Violation(absl::StrCat("no progress: ", view.window.value(), " windows, state ",
                             static_cast<int>(view.state), ", ", view.reason));
      break;
    }
    next.what();
  }
  const JobView view = *core_->FindJob(config_.job.id);
  result_.state = view.state;
  result_.reason = view.reason;
  result_.end_ns = now_ns_;
  result_.dropped = core_->Dropped();
  return std::move(result_);
}

void Simulator::Apply(const Event& event) {
  for (const Effect& effect : core_->Apply(event, now_ns_)) {
    const std::string text = Describe(effect);
    if (config_.trace)
      std::fprintf(stderr, "%10.3f ms %s\n", static_cast<double>(now_ns_) * 1e-6, text.c_str());
    result_.effect_hash = HashText(result_.effect_hash, text);
    ++result_.effects;
    Carry(effect);
  }
}

void Simulator::Carry(const Effect& effect) {
  if (const auto* send = std::get_if<Send>(&effect)) {
    CheckSend(*send);
    SimulatedWorker* worker = Find(send->to);
    if (worker == nullptr) return;
    const int64_t delay =
        config_.delay_ns + static_cast<int64_t>(Uniform() * static_cast<double>(config_.delay_spread_ns));
    worker->last_to_ns = std::max(worker->last_to_ns + 1, now_ns_ + delay);
    At(worker->last_to_ns, [worker, message = send->message] { worker->Receive(message); });
  } else if (const auto* expel = std::get_if<Expel>(&effect)) {
    SimulatedWorker* worker = Find(expel->worker);
    if (expel->reason.find("quarantined") != std::string::npos) {
      ++result_.quarantines;
      const SimulatedWorker& named = *workers_.at(expel->worker);
      if (!named.flipped && !named.faulty) Violation("an honest worker is quarantined");
    }
    if (worker != nullptr) End(*worker, false);
  } else if (const auto* epoch = std::get_if<PersistEpoch>(&effect)) {
    if (epoch->timeline.value() > durable_timeline_) {
      durable_attempt_.clear();
      ++result_.restarts;
    }
    if (epoch->epoch.value() <= durable_epoch_) Violation("an epoch is not raised");
    durable_timeline_ = epoch->timeline.value();
    durable_epoch_ = epoch->epoch.value();
  } else if (const auto* attempt = std::get_if<PersistAttempt>(&effect)) {
    durable_attempt_[attempt->window.value()] = attempt->attempt.value();
    ++result_.attempts;
  } else if (const auto* commit = std::get_if<PersistCommit>(&effect)) {
    CheckCommit(commit->record);
  } else if (const auto* evaluation = std::get_if<PersistEvaluation>(&effect)) {
    if (!result_.evaluations.emplace(evaluation->window.value(), evaluation->loss).second) {
      Violation("an evaluation is reported twice");
    }
  } else if (const auto* finish = std::get_if<FinishCheckpoint>(&effect)) {
    At(now_ns_ + 20'000'000, [this, finish = *finish] { FinishCheckpointFiles(finish); });
  } else if (const auto* given_up = std::get_if<GiveUpCommunicator>(&effect)) {
    collectives_.GiveUp(given_up->communicator);
  }
}

void Simulator::CheckSend(const Send& send) {
  const Key key = std::visit([](const auto& message) { return message.key; }, send.message);
  if (key.timeline.value() > durable_timeline_) Violation("a timeline is published before it is durable");
  if (key.epoch.value() > durable_epoch_) Violation("an epoch is published before it is durable");
  if (key.attempt.value() > durable_attempt_[key.window.value()]) {
    Violation("an attempt is published before it is durable");
  }
  if (std::holds_alternative<Recall>(send.message)) ++result_.recalls;
  if (const auto* seal = std::get_if<Seal>(&send.message)) {
    if (key.window.value() > committed_)
      Violation("a window is sealed before the one before it is committed");
    const auto [known, fresh] = communicator_members_.emplace(seal->communicator, seal->members);
    if (!fresh && known->second != seal->members)
      Violation("a communicator's name is used for other members");
    if (!seal->final_buckets.empty()) ++result_.partial_seals;
  }
}

void Simulator::CheckCommit(const WindowRecord& record) {
  if (record.window.value() != committed_) {
    Violation(absl::StrCat("window ", record.window.value(), " is committed, expected ", committed_));
  }
  ++committed_;
  result_.commits.push_back(record);
  if (record.window.value() < 3 || record.workers.empty()) return;
  double makespan = 0, speed = 0, units = 0;
  for (const WorkerWindow& part : record.workers) {
    const double unit_ns = workers_.at(part.incarnation)->unit_ns();
    makespan = std::max(makespan, unit_ns * static_cast<double>(part.units));
    speed += 1 / unit_ns;
    units += static_cast<double>(part.units);
  }
  result_.worst_makespan_ratio = std::max(result_.worst_makespan_ratio, makespan / (units / speed));
}

void Simulator::StartWorker() {
  if (Done()) return;
  const Incarnation incarnation = core_->NextIncarnation();
  const double unit_ns = config_.unit_ns * (1 + (config_.spread - 1) * Uniform());
  workers_[incarnation] = std::make_unique<SimulatedWorker>(*this, incarnation, unit_ns);
  workers_[incarnation]->faulty = config_.lies > 0 && workers_.size() == 1;
  WorkerJoined joined;
  joined.incarnation = incarnation;
  joined.name = absl::StrCat("w", incarnation.value());
  joined.numeric_class = "simulated";
  Apply(joined);
  Heartbeat(incarnation);
}

void Simulator::Heartbeat(Incarnation incarnation) {
  SimulatedWorker* worker = Find(incarnation);
  if (worker == nullptr) return;
  FromWorker(*worker, WorkerHeartbeat{incarnation, 1});
  At(now_ns_ + kHeartbeatNs, [this, incarnation] { Heartbeat(incarnation); });
}

void Simulator::FromWorker(SimulatedWorker& worker, Event event) {
  const int64_t delay =
      config_.delay_ns + static_cast<int64_t>(Uniform() * static_cast<double>(config_.delay_spread_ns));
  worker.last_from_ns = std::max(worker.last_from_ns + 1, now_ns_ + delay);
  At(worker.last_from_ns, [this, event = std::move(event)] { Apply(event); });
}

// The process ends; another takes its place after a while. tell: the stream's end is seen at once.
void Simulator::End(SimulatedWorker& worker, bool tell) {
  if (!worker.alive) return;
  if (tell) FromWorker(worker, WorkerGone{worker.incarnation(), "its stream ended"});
  worker.alive = false;
  ++result_.deaths;
  collectives_.Break(worker.incarnation());
  At(now_ns_ + static_cast<int64_t>((0.2 + Uniform()) * 1e9), [this] { StartWorker(); });
}

void Simulator::PlanFaults() {
  if (config_.slow_down_at_ns > 0) {
    At(config_.slow_down_at_ns, [this] { workers_.begin()->second->SlowDown(config_.slow_down); });
  }
  const double rates[] = {config_.kills,  config_.stops,   config_.leaves, config_.joins,
                          config_.breaks, config_.crashes, config_.pauses, config_.flips, config_.slows};
  for (int kind = 0; kind < 9; ++kind) {
    if (rates[kind] <= 0) continue;
    double time_s = 0;
    while (true) {
      time_s += -std::log(1 - Uniform()) / rates[kind];
      if (time_s * 1e9 > static_cast<double>(config_.faults_until_ns)) break;
      At(static_cast<int64_t>(time_s * 1e9), [this, kind] { Strike(kind); });
    }
  }
}

void Simulator::Strike(int kind) {
  if (kind == 3) return StartWorker();
  if (kind == 4) return collectives_.BreakOne();
  if (kind == 5) return CrashCoordinator();
  if (kind == 6) {
    Apply(JobPaused{config_.job.id});
    At(now_ns_ + 400'000'000, [this] { Apply(JobResumed{config_.job.id}); });
    return;
  }
  std::vector<SimulatedWorker*> alive;
  for (const auto& [incarnation, worker] : workers_) {
    if (worker->alive && !worker->leaving) alive.push_back(worker.get());
  }
  if (alive.empty()) return;
  SimulatedWorker& victim = *alive[Random() % alive.size()];
  if (config_.trace) {
    std::fprintf(stderr, "%10.3f ms strike %d on %lld\n", static_cast<double>(now_ns_) * 1e-6, kind,
                 static_cast<long long>(victim.incarnation().value()));
  }
  if (kind == 7) return victim.Flip();
  if (kind == 8) {
    victim.SlowDown(2 + 4 * Uniform());
    At(now_ns_ + static_cast<int64_t>(2e9 * Uniform()), [&victim] { victim.SlowDown(1); });
    return;
  }
  if (kind == 2) {
    victim.leaving = true;
    FromWorker(victim, WorkerLeaving{victim.incarnation(), "SIGTERM"});
    if (victim.idle()) End(victim, true);
  } else {
    End(victim, kind == 0);
  }
}

void Simulator::FinishCheckpointFiles(const FinishCheckpoint& finish) {
  CheckpointFinished finished{finish.job, finish.window, "", ""};
  if (finish.files.empty() || finish.files.size() != finish.files[0].size_bytes) {
    Violation("a checkpoint has not all of its shards");
  }
  for (const CheckpointFile& file : finish.files) {
    if (file.xxh3_128 == finish.digest) continue;
    if (config_.flips <= 0) Violation("a shard is of another state than the checkpoint");
    finished.error = "a shard's digest differs";
  }
  if (!finished.error.empty()) {
    // Written from memory that had changed after its step.
  } else if (Uniform() < config_.failed_checkpoints / 2) {
    finished.error = "the disk is full";
  } else {
    finished.directory = absl::StrCat("checkpoint-", finish.window.value(), "-", finish.timeline.value());
    uint64_t digest = 0;
    if (std::sscanf(finish.digest.c_str(), "%lx", &digest) != 1) Violation("a digest is not a number");
    checkpoints_[finished.directory] = {finish.window.value(), digest, finish.exponents};
    checkpoint_order_.push_back(finished.directory);
    if (checkpoint_order_.size() > kCheckpointsKept) {
      checkpoints_.erase(checkpoint_order_.front());
      checkpoint_order_.erase(checkpoint_order_.begin());
    }
  }
  Apply(finished);
}

// The draw of rare things must not depend on the digest, or a broken digest would show elsewhere first.
uint64_t Simulator::DrawOf(int64_t window, int64_t unit) const {
  return SplitMix64(config_.content_seed * 1'000'003 + static_cast<uint64_t>(window) * 65'537 +
                    static_cast<uint64_t>(unit));
}

uint64_t Simulator::GradientOf(uint64_t digest, int64_t window, int64_t unit,
                               const std::vector<int>& exponents) const {
  uint64_t gradient = SplitMix64(digest ^ DrawOf(window, unit));
  for (int exponent : exponents) gradient = SplitMix64(gradient + static_cast<uint64_t>(exponent));
  return gradient;
}

UnitReport Simulator::UnitOf(uint64_t digest, int64_t window, int64_t unit,
                             const std::vector<int>& exponents) const {
  const uint64_t draw = DrawOf(window, unit);
  const double chance = static_cast<double>(draw >> 11) * 0x1p-53;
  const double window_chance =
      static_cast<double>(SplitMix64(config_.content_seed + 77 + static_cast<uint64_t>(window)) >> 11) *
      0x1p-53;
  const uint64_t gradient = GradientOf(digest, window, unit, exponents);
  UnitReport report;
  report.unit = unit;
  report.loss_sum = static_cast<double>(gradient % 10'000) / 16;
  const int64_t tokens = config_.job.sequences_per_unit * config_.job.sequence_length;
  report.valid_tokens =
      window_chance < config_.empty ? 0 : static_cast<int64_t>(draw % static_cast<uint64_t>(tokens)) + 1;
  report.non_finite = chance < config_.non_finite;
  const bool overflow = chance > 1 - config_.overflows;
  report.max_exponents = {static_cast<int>(draw % 3) + (overflow ? 20 : 0), static_cast<int>(draw % 5) - 4};
  for (int64_t b = 0; b < kSimulatedBuckets; ++b) report.bucket_checksums.push_back(SimulatedGradient(gradient, b));
  report.compute_ns = 1;
  return report;
}

// A fault that comes and goes: of one unit it shows once. (Two workers that stand by different results end the job.)
void Simulator::MaybeLie(const SimulatedWorker& worker, UnitReport& report, uint64_t& gradient) {
  if (!worker.faulty || Uniform() >= config_.lies) return;
  if (!lied_about_.emplace(worker.state().window, report.unit).second) return;
  ++result_.lies;
  if (config_.lie == SimulationConfig::Lie::kGradient) {
    gradient ^= Random();
    for (int64_t b = 0; b < kSimulatedBuckets; ++b) {
      report.bucket_checksums[static_cast<size_t>(b)] = SimulatedGradient(gradient, b);
    }
  } else if (config_.lie == SimulationConfig::Lie::kNotFinite) {
    report.non_finite = true;
  } else {
    report.max_exponents[Random() % 2] += 100;
  }
}

EvaluationReport Simulator::EvaluationOf(uint64_t digest, int64_t unit) const {
  const uint64_t draw = SplitMix64(digest + static_cast<uint64_t>(unit));
  return {unit, static_cast<double>(draw % 10'000) / 7, static_cast<int64_t>(draw % 50) + 1};
}

std::vector<std::string> ReferenceDigests(const SimulationConfig& config) {
  SimulationConfig alone;
  alone.content_seed = config.content_seed;
  alone.job = config.job;
  alone.job.min_workers = 1;
  alone.job.evaluation_units = 0;
  alone.job.checkpoint_every = 0;
  alone.overflows = config.overflows;
  alone.non_finite = config.non_finite;
  alone.empty = config.empty;
  alone.workers = 1;
  const SimulationResult result = Simulator(alone).Run();
  std::vector<std::string> digests;
  for (const WindowRecord& record : result.commits) digests.push_back(record.digest);
  return digests;
}

}  // namespace accrue::core
