#include "tests/sim/simulator.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/philox.h"
#include "tests/sim/describe.h"

namespace accrue::core {
namespace {

constexpr int64_t kTickNs = 100'000'000, kHeartbeatNs = 250'000'000;
constexpr int64_t kLeaseTimeoutNs = 4'000'000'000;
constexpr size_t kCheckpointsKept = 2;
constexpr int64_t kVerifyNs = 20'000'000;  // until a checkpoint's files are verified
constexpr int64_t kThoroughUnits = 64;     // units a window up to which every invariant is checked after every event

uint64_t HashText(uint64_t hash, const std::string& text) {
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

Simulator::Simulator(const SimulationConfig& config)
    : config_(config), random_(config.seed), quiet_from_ns_(config.faults.until_ns), journal_(config.start.timeline) {
  result_.effect_hash = 0xcbf29ce484222325;
}

// ---- time ----

uint64_t Simulator::Random() { return SplitMix64(random_++ * 0x9E3779B97F4A7C15 + config_.seed); }

void Simulator::At(int64_t time_ns, std::function<void()> what) {
  queue_.push({std::max(time_ns, now_ns_), sequence_++, std::move(what)});
}

void Simulator::AtWorker(int64_t time_ns, Incarnation incarnation, std::function<void()> what) {
  At(time_ns, [this, incarnation, what = std::move(what)] {
    SimulatedWorker* worker = Find(incarnation);
    if (worker == nullptr) return;
    if (now_ns_ >= worker->frozen_until_ns && worker->held_back.empty()) return what();
    worker->held_back.push_back(what);
    if (worker->held_back.size() == 1) Thaw(worker->frozen_until_ns, incarnation);
  });
}

// What was held back comes in the order in which it would have come, however often the worker was frozen meanwhile.
void Simulator::Thaw(int64_t time_ns, Incarnation incarnation) {
  At(time_ns, [this, incarnation] {
    SimulatedWorker* worker = Find(incarnation);
    if (worker == nullptr) return;
    if (now_ns_ < worker->frozen_until_ns) return Thaw(worker->frozen_until_ns, incarnation);
    for (const std::function<void()>& what : std::exchange(worker->held_back, {})) {
      if (worker->alive) what();
    }
  });
}

SimulationResult Simulator::Run() {
  StartCore(config_.start);
  Apply(JobSubmitted{config_.job, config_.start});
  for (int i = 0; i < config_.workers; ++i) At(static_cast<int64_t>(Uniform() * 50e6), [this] { StartWorker(); });
  At(kTickNs, [this] { Tick(); });
  faults_.Plan();
  while (!Done()) {
    const Timed next = queue_.top();
    queue_.pop();
    now_ns_ = next.time_ns;
    if (now_ns_ > config_.give_up_ns) Violation(absl::StrCat("it takes too long, ", Stuck()));
    next.what();
  }
  if (up()) {
    for (const auto& [reason, count] : core_->Dropped()) result_.dropped[reason] += count;
  }
  result_.state = journal_.state();
  result_.reason = journal_.reason();
  result_.commits = journal_.commits();
  result_.evaluations = journal_.evaluations();
  result_.end_ns = now_ns_;
  return std::move(result_);
}

void Simulator::Tick() {
  Apply(core::Tick{});
  invariants_.OnTick();
  At(now_ns_ + kTickNs, [this] { Tick(); });
}

bool Simulator::Done() const {
  const JobState state = journal_.state();
  return !result_.failure.empty() || state == JobState::kSucceeded || state == JobState::kFailed ||
         state == JobState::kCancelled;
}

void Simulator::Violation(const std::string& what) {
  Trace(absl::StrCat("VIOLATION: ", what));
  if (!result_.failure.empty()) return;
  result_.failure = absl::StrCat("seed ", config_.seed, " at ", now_ns_ / 1000, " us: ", what);
}

void Simulator::Trace(const std::string& what) const {
  if (!config_.trace) return;
  std::fprintf(stderr, "%10.3f ms %s\n", static_cast<double>(now_ns_) * 1e-6, what.c_str());
}

std::string Simulator::Stuck() const {
  std::string text = "the coordinator is down";
  if (up()) {
    const JobView view = *core_->FindJob(config_.job.id);
    text = absl::StrCat(view.window.value(), " windows, state ", static_cast<int>(view.state), ", ", view.reason);
  }
  for (Incarnation worker : living_) absl::StrAppend(&text, "\n  ", workers_.at(worker)->Doing());
  return text;
}

// ---- the coordinator ----

void Simulator::StartCore(const StartPoint& start) {
  CoreOptions options;
  options.term = Term(++term_);
  options.lease_timeout_least_ns = kLeaseTimeoutNs;
  options.check_thoroughly = config_.job.units_per_window <= kThoroughUnits;
  options.first_incarnation = workers_.empty() ? 1 : workers_.rbegin()->first.value() + 1;
  core_ = std::make_unique<Core>(options);
  invariants_.OnCoordinatorStarted(start.live ? start.live->timeline : start.timeline);
}

// An event's transaction is on disk before any of its effects is carried out. A coordinator that dies in between leaves
// none, or a part of them done.
void Simulator::Apply(const Event& event) {
  if (!up()) return;
  const int64_t number = result_.events++;
  const int64_t begin_ns = config_.cpu_ns ? config_.cpu_ns() : 0;
  const std::vector<Effect> effects = core_->Apply(event, now_ns_);
  if (config_.cpu_ns) result_.core_cpu_ns += config_.cpu_ns() - begin_ns;
  invariants_.OnApplied(event, effects);
  if (effects.empty()) {
    if (number == config_.crash_at && config_.crash_cut == 0) CrashCoordinator();
    if (number == config_.kill_at) KillOne();
    return;
  }
  const bool durable = journal_.Write(effects);
  const std::optional<int64_t> carried = DrawCrash(number, effects.size());
  if (carried == -1) {
    Cover(durable ? "coordinator died before its transaction was synced" : "coordinator died before it sent");
    return CrashCoordinator();
  }
  const Timeline before = journal_.timeline();
  journal_.Sync();
  if (journal_.timeline() > before) ++result_.restarts;
  invariants_.OnDurable(effects);
  if (config_.on_durable) config_.on_durable(effects);
  int64_t left = carried.value_or(static_cast<int64_t>(effects.size()));
  for (const Effect& effect : effects) {
    if (left-- == 0) break;
    if (config_.hash_effects || config_.trace) {
      const std::string text = Describe(effect);
      Trace(text);
      result_.effect_hash = HashText(result_.effect_hash, text);
    }
    ++result_.effects;
    Carry(effect);
  }
  if (carried) {
    Cover("coordinator died after its transaction was synced");
    return CrashCoordinator();
  }
  if (number == config_.kill_at) KillOne();
}

void Simulator::KillOne() {
  if (living_.empty()) return;
  const size_t victim = static_cast<size_t>(config_.kill_worker) % living_.size();
  End(*workers_.at(*std::next(living_.begin(), static_cast<int64_t>(victim))), /*told=*/true);
}

std::optional<int64_t> Simulator::DrawCrash(int64_t number, size_t effects) {
  const auto count = static_cast<int64_t>(effects);
  if (number == config_.crash_at) {
    const int64_t cuts[] = {-1, 0, count / 2, count};
    return cuts[config_.crash_cut];
  }
  if (!crash_wanted_) return std::nullopt;
  return static_cast<int64_t>(Random() % static_cast<uint64_t>(count + 2)) - 1;
}

void Simulator::CrashCoordinator() {
  if (!up() || Done()) return;
  Trace("the coordinator dies");
  crash_wanted_ = false;
  ++result_.crashes;
  for (const auto& [reason, count] : core_->Dropped()) result_.dropped[reason] += count;
  core_.reset();
  journal_.Crash();
  for (const FinishCheckpoint& finish : std::exchange(finishing_, {})) {
    if (Uniform() < 0.5 && IsGood(finish)) StoreCheckpoint(finish);  // it got so far
  }
  network_.CoordinatorDied();
  const int64_t back_ns = now_ns_ + static_cast<int64_t>((0.02 + 1.5 * Uniform()) * 1e9);
  QuietFrom(back_ns);
  At(back_ns, [this] { RestartCoordinator(); });
}

// As coordinator/server/coordinator_jobs.cc, StartAgain.
void Simulator::RestartCoordinator() {
  if (Done()) return;
  StartPoint start = config_.start;
  for (const Checkpoint& checkpoint : checkpoints_) {
    if (checkpoint.state.window < start.window.value()) continue;
    start.checkpoint_directory = checkpoint.directory;
    start.window = Window(checkpoint.state.window);
    start.steps = checkpoint.steps;
    start.digest = absl::StrCat(absl::Hex(checkpoint.state.digest, absl::kZeroPad16));
    start.exponents = checkpoint.state.exponents;
    start.loss_scale = checkpoint.state.loss_scale;
  }
  start = journal_.Restart(std::move(start));
  if (config_.on_restart) config_.on_restart(start);
  Cover(start.live ? "coordinator back, members awaited" : "coordinator back, nobody to await");
  if (!start.live) ++result_.restarts;
  StartCore(start);
  Trace(absl::StrCat("the coordinator is back, term ", term_));
  Apply(JobSubmitted{config_.job, start});
  if (paused_) Apply(JobPaused{config_.job.id});
}

void Simulator::Pause(bool paused) {
  paused_ = paused;  // on record
  if (paused) {
    Apply(JobPaused{config_.job.id});
  } else {
    Apply(JobResumed{config_.job.id});
  }
}

void Simulator::Carry(const Effect& effect) {
  if (const auto* send = std::get_if<Send>(&effect)) {
    invariants_.OnSend(*send);
    const auto* seal = std::get_if<Seal>(&send->message);
    if (seal != nullptr && !seal->final_buckets.empty()) ++result_.partial_seals;
    if (std::holds_alternative<Recall>(send->message)) ++result_.recalls;
    network_.ToWorker(send->to, send->message);
  } else if (const auto* expel = std::get_if<Expel>(&effect)) {
    if (expel->reason.find("quarantined") != std::string::npos) {
      ++result_.quarantines;
      const SimulatedWorker& named = *workers_.at(expel->worker);
      if (!named.flipped && !named.faulty) Violation("an honest worker is quarantined");
    }
    if (expel->reason.find("its accumulator is not its leases") != std::string::npos) {
      const SimulatedWorker& named = *workers_.at(expel->worker);
      if (!named.flipped && !named.faulty) Violation("an honest worker's manifest is refused");
    }
    Cover("worker expelled");
    network_.Refuse(expel->worker);
  } else if (std::holds_alternative<PersistAttempt>(effect)) {
    ++result_.attempts;
  } else if (const auto* commit = std::get_if<PersistCommit>(&effect)) {
    MeasureMakespan(commit->record);
  } else if (const auto* finish = std::get_if<FinishCheckpoint>(&effect)) {
    finishing_.push_back(*finish);
    At(now_ns_ + kVerifyNs, [this, term = term_] {
      if (up() && term == term_) FinishCheckpointFiles();
    });
  } else if (const auto* given_up = std::get_if<GiveUpCommunicator>(&effect)) {
    collectives_.GiveUp(given_up->communicator);
  }
}

void Simulator::MeasureMakespan(const WindowRecord& record) {
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

// ---- checkpoints ----

void Simulator::FinishCheckpointFiles() {
  const FinishCheckpoint finish = finishing_.front();
  finishing_.erase(finishing_.begin());
  CheckpointFinished finished{finish.job, finish.window, "", ""};
  const bool good = IsGood(finish);
  if (!good && config_.faults.flips <= 0) Violation("a shard is of another state than the checkpoint");
  if (!good) {
    finished.error = "a shard's digest differs";  // written from memory that had changed after its step
  } else if (Uniform() < config_.faults.failed_checkpoints / 2) {
    finished.error = "the disk is full";
  } else {
    finished.directory = StoreCheckpoint(finish);
  }
  Apply(finished);
}

bool Simulator::IsGood(const FinishCheckpoint& finish) const {
  return std::all_of(finish.files.begin(), finish.files.end(),
                     [&](const CheckpointFile& file) { return file.xxh3_128 == finish.digest; });
}

std::string Simulator::StoreCheckpoint(const FinishCheckpoint& finish) {
  if (finish.files.empty() || finish.files.size() != finish.files[0].size_bytes) {
    Violation("a checkpoint has not all of its shards");
  }
  uint64_t digest = 0;
  if (std::sscanf(finish.digest.c_str(), "%lx", &digest) != 1) Violation("a digest is not a number");
  const std::string directory = absl::StrCat("checkpoint-", finish.window.value(), "-", finish.timeline.value());
  const SimulatedState state = {finish.window.value(), digest, finish.exponents, finish.loss_scale};
  checkpoints_.push_back({directory, state, finish.steps});
  if (checkpoints_.size() > kCheckpointsKept) checkpoints_.erase(checkpoints_.begin());
  return directory;
}

const SimulatedState* Simulator::FindCheckpoint(const std::string& directory) const {
  for (const Checkpoint& checkpoint : checkpoints_) {
    if (checkpoint.directory == directory) return &checkpoint.state;
  }
  return nullptr;
}

// ---- workers ----

SimulatedWorker* Simulator::Find(Incarnation incarnation) {
  const auto found = workers_.find(incarnation);
  return found == workers_.end() || !found->second->alive ? nullptr : found->second.get();
}

void Simulator::StartWorker() { StartProcess(slots_++); }

void Simulator::StartProcess(int64_t slot) {
  if (Done()) return;
  if (!up()) {
    return At(now_ns_ + static_cast<int64_t>((0.1 + 0.2 * Uniform()) * 1e9), [this, slot] { StartProcess(slot); });
  }
  const Incarnation incarnation = core_->NextIncarnation();
  const double unit_ns = config_.unit_ns * (1 + (config_.spread - 1) * Uniform());
  auto& worker = workers_[incarnation];
  worker = std::make_unique<SimulatedWorker>(*this, incarnation, slot, unit_ns);
  worker->faulty = config_.lies > 0 && workers_.size() == 1;
  living_.insert(incarnation);
  network_.Connect(*worker);
  Heartbeat(incarnation);
  Join(*worker, /*resumed=*/false);
}

void Simulator::Join(SimulatedWorker& worker, bool resumed) {
  WorkerJoined joined;
  joined.incarnation = worker.incarnation();
  joined.name = absl::StrCat("w", worker.slot());
  joined.numeric_class = joined.fp16_numeric_class = "simulated";
  joined.resumed = resumed;
  Apply(joined);
}

void Simulator::Heartbeat(Incarnation incarnation) {
  AtWorker(now_ns_ + kHeartbeatNs, incarnation, [this, incarnation] {
    network_.FromWorker(*Find(incarnation), WorkerHeartbeat{incarnation, 1});
    Heartbeat(incarnation);
  });
}

void Simulator::End(SimulatedWorker& worker, bool told) {
  if (!worker.alive) return;
  Trace(absl::StrCat("worker ", worker.incarnation().value(), " dies"));
  Cover(told ? "worker killed" : "machine lost");
  ++result_.deaths;
  EndLife(worker, told, 0.2 + Uniform());
}

void Simulator::Hang(SimulatedWorker& worker, int64_t until_ns) {
  if (worker.frozen_until_ns == INT64_MAX) return;
  Cover("worker hangs");
  worker.frozen_until_ns = INT64_MAX;
  HeartbeatOfHung(worker.incarnation());
  At(until_ns, [this, incarnation = worker.incarnation()] {
    if (SimulatedWorker* const hung = Find(incarnation)) End(*hung, /*told=*/true);
  });
}

void Simulator::HeartbeatOfHung(Incarnation incarnation) {
  At(now_ns_ + kHeartbeatNs, [this, incarnation] {
    SimulatedWorker* const worker = Find(incarnation);
    if (worker == nullptr) return;
    network_.FromWorker(*worker, WorkerHeartbeat{incarnation, 1});
    HeartbeatOfHung(incarnation);
  });
}

void Simulator::NewLife(SimulatedWorker& worker, const std::string& why) {
  if (!worker.alive) return;
  Trace(absl::StrCat("worker ", worker.incarnation().value(), " begins anew: ", why));
  Cover(absl::StrCat("worker begins anew: ", why));
  EndLife(worker, /*told=*/true, 0.05 + 0.2 * Uniform());
}

void Simulator::EndLife(SimulatedWorker& worker, bool told, double away_s) {
  network_.WorkerDied(worker, told);
  worker.alive = false;
  living_.erase(worker.incarnation());
  collectives_.Break(worker.incarnation());
  At(now_ns_ + static_cast<int64_t>(away_s * 1e9), [this, slot = worker.slot()] { StartProcess(slot); });
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
