#include "tests/core/harness.h"

#include <algorithm>
#include <utility>

namespace accrue::core {

JobConfig SmallJob() {
  JobConfig config;
  config.id = "job";
  config.name = "small";
  config.units_per_window = 4;
  config.total_windows = 10;
  config.sequences_per_unit = 2;
  config.sequence_length = 8;
  config.min_workers = 1;
  config.max_workers = 4;
  config.schedule.kind = ScheduleKind::kConstant;
  config.schedule.total_windows = 10;
  return config;
}

CoreOptions Harness::Options() {
  CoreOptions options;
  options.term = Term(3);
  options.gather_ns = 0;
  options.copy_beside = false;  // tests of copies say so
  return options;
}

Harness::Harness(CoreOptions options) : core(options) {}

const std::vector<Effect>& Harness::Apply(const Event& event) {
  effects_ = core.Apply(event, now_ns_);
  for (size_t i = 0; i < effects_.size(); ++i) {
    Take(effects_[i]);
    const auto* send = std::get_if<Send>(&effects_[i]);
    const auto* prepare = send == nullptr ? nullptr : std::get_if<Prepare>(&send->message);
    if (prepare != nullptr && answer_prepares) {
      const CommunicatorPrepared prepared{send->to, prepare->key, prepare->communicator, ""};
      for (Effect& effect : core.Apply(prepared, now_ns_)) effects_.push_back(std::move(effect));
      continue;
    }
    const auto* plan = send == nullptr ? nullptr : std::get_if<Plan>(&send->message);
    if (plan == nullptr || plan->audit_units.empty() || !answer_audits) continue;
    UnitsReported reported{send->to, plan->key, false, {}, true};
    Share& share = shares_.at({send->to.value(), plan->key.window.value()});
    for (int64_t unit : std::exchange(share.audits, {})) {
      reported.reports.push_back(UnitOf(plan->key.window.value(), unit));
    }
    for (Effect& effect : core.Apply(reported, now_ns_)) effects_.push_back(std::move(effect));
  }
  return effects_;
}

void Harness::Wait(int64_t delta_ns) {
  constexpr int64_t kTickNs = 100'000'000;
  for (int64_t left_ns = delta_ns; left_ns > 0; left_ns -= kTickNs) {
    now_ns_ += std::min(left_ns, kTickNs);
    for (const WorkerView& worker : core.Workers()) Apply(WorkerHeartbeat{worker.incarnation, 1});
    Apply(Tick{});
  }
}

void Harness::Take(const Effect& effect) {
  if (const auto* commit = std::get_if<PersistCommit>(&effect)) commits.push_back(commit->record);
  if (const auto* evaluation = std::get_if<PersistEvaluation>(&effect)) evaluations.push_back(*evaluation);
  if (const auto* entry = std::get_if<PersistLedger>(&effect)) ledger.push_back(entry->entry);
  const auto* send = std::get_if<Send>(&effect);
  if (send == nullptr) return;
  last_[{send->to.value(), send->message.index()}] = send->message;
  if (const auto* seal = std::get_if<Seal>(&send->message); seal != nullptr && seal->checkpoint) {
    orders_[send->to.value()] = {seal->key, *seal->checkpoint};
  }
  if (const auto* now = std::get_if<CheckpointNow>(&send->message))
    orders_[send->to.value()] = {now->key, now->order};
  if (const auto* plan = std::get_if<Plan>(&send->message)) {
    Share& share = shares_[{send->to.value(), plan->key.window.value()}];
    if (plan->key.attempt != share.key.attempt || plan->key.timeline != share.key.timeline) share = Share();
    share.key = plan->key;
    for (const UnitRange& range : plan->units) {
      for (int64_t i = 0; i < range.count; ++i) share.units.push_back(range.first + i);
    }
    for (const UnitRange& range : plan->audit_units) {
      for (int64_t i = 0; i < range.count; ++i) share.audits.push_back(range.first + i);
    }
  }
  if (const auto* sync = std::get_if<StateSync>(&send->message);
      sync != nullptr && sync->source != send->to) {
    std::erase_if(shares_, [&](const auto& entry) { return entry.first.first == send->to.value(); });
  }
}

void Harness::Submit(const JobConfig& config, const StartPoint& start) { Apply(JobSubmitted{config, start}); }

Incarnation Harness::Join(const std::string& numeric_class, const std::string& bf16_numeric_class) {
  WorkerJoined joined;
  joined.incarnation = core.NextIncarnation();
  joined.name = "worker-" + std::to_string(joined.incarnation.value());
  joined.numeric_class = numeric_class;
  joined.bf16_numeric_class = bf16_numeric_class;
  joined.fp16_numeric_class = "cpu fp16";
  joined.backend = "cpu";
  Apply(joined);
  return joined.incarnation;
}

void Harness::Load(Incarnation worker, const std::string& digest) {
  JobLoaded loaded;
  loaded.from = worker;
  const auto& assign = Last<AssignJob>(worker);
  loaded.key = assign.key;
  loaded.digest = assign.start == AssignJob::Start::kFromMembers ? "" : digest;
  loaded.tensor_elements = {60, 40};
  loaded.buckets = buckets;
  Apply(loaded);
}

std::vector<Incarnation> Harness::Start(int workers) {
  std::vector<Incarnation> members;
  for (int i = 0; i < workers; ++i) members.push_back(Join());
  for (Incarnation member : members) Load(member);
  AnswerProbe(members[0]);
  return members;
}

void Harness::AnswerProbe(Incarnation worker) {
  UnitsReported probe;
  probe.from = worker;
  probe.key = Last<ProbeOrder>(worker).key;
  probe.probe = true;
  UnitReport report;
  report.max_exponents = {0, -3};
  probe.reports = {report};
  Apply(probe);
}

UnitReport Harness::UnitOf(int64_t window, int64_t unit) const {
  const auto found = special.find({window, unit});
  if (found != special.end()) return found->second;
  UnitReport report;
  report.unit = unit;
  report.loss_sum = 16.0 * static_cast<double>(unit + 1);
  report.valid_tokens = 16;
  report.max_exponents = {0, -3};
  report.bucket_checksums.assign(static_cast<size_t>(buckets), uint64_t{1} << 62);
  report.compute_ns = 1'000'000;
  return report;
}

Key Harness::KeyOf(Incarnation worker, int64_t window) const {
  return shares_.at({worker.value(), window}).key;
}

std::vector<int64_t> Harness::Held(Incarnation worker, int64_t window) const {
  const auto found = shares_.find({worker.value(), window});
  if (found == shares_.end()) return {};
  std::vector<int64_t> units = found->second.units;
  std::sort(units.begin(), units.end());
  return units;
}

void Harness::ReportUnits(Incarnation worker, int64_t window) {
  Share& share = shares_.at({worker.value(), window});
  UnitsReported reported;
  reported.from = worker;
  reported.key = share.key;
  for (; share.reported < share.units.size(); ++share.reported) {
    reported.reports.push_back(WordOf(worker, window, share.units[share.reported]));
  }
  if (!reported.reports.empty()) Apply(reported);
}

void Harness::ReportUnit(Incarnation worker, int64_t window, const UnitReport& report) {
  Share& share = shares_.at({worker.value(), window});
  const auto unit = std::find(share.units.begin() + static_cast<int64_t>(share.reported), share.units.end(), report.unit);
  std::swap(*unit, share.units.at(share.reported));
  ++share.reported;
  Apply(UnitsReported{worker, share.key, false, {report}});
}

void Harness::Return(Incarnation worker, const std::vector<UnitRange>& units) {
  const Key key = Last<Recall>(worker).key;
  Share& share = shares_.at({worker.value(), key.window.value()});
  for (const UnitRange& range : units) {
    std::erase_if(share.units, [&](int64_t unit) { return unit >= range.first && unit < range.first + range.count; });
  }
  Apply(UnitsReturned{worker, key, units});
}

UnitReport Harness::WordOf(Incarnation worker, int64_t window, int64_t unit) {
  const auto found = lies.find({worker.value(), window, unit});
  if (found == lies.end()) return UnitOf(window, unit);
  const UnitReport word = found->second.front();
  if (found->second.size() > 1) found->second.erase(found->second.begin());
  return word;
}

std::vector<int64_t> Harness::Audited(Incarnation worker, int64_t window) const {
  const auto found = shares_.find({worker.value(), window});
  if (found == shares_.end()) return {};
  std::vector<int64_t> units = found->second.audits;
  std::sort(units.begin(), units.end());
  return units;
}

void Harness::ReportAudits(Incarnation worker, int64_t window) {
  Share& share = shares_.at({worker.value(), window});
  UnitsReported reported{worker, share.key, false, {}, true};
  for (int64_t unit : std::exchange(share.audits, {})) reported.reports.push_back(WordOf(worker, window, unit));
  if (!reported.reports.empty()) Apply(reported);
}

void Harness::SendComputed(Incarnation worker, int64_t window, const std::string& hash) {
  const Share& share = shares_.at({worker.value(), window});
  WindowComputed computed;
  computed.from = worker;
  computed.key = share.key;
  computed.parameter_hash = hash;
  BucketManifest open;
  for (size_t i = 0; i < share.reported; ++i) open.units.push_back({share.units[i], 1});
  for (int64_t b = 0; b < buckets; ++b) {
    computed.buckets.push_back(b < share.final_buckets ? BucketManifest{true, {}} : open);
  }
  Apply(computed);
}

void Harness::Step(Incarnation worker, int64_t window, const std::string& digest, double norm) {
  WorkerStepped stepped;
  stepped.from = worker;
  stepped.key = Last<Seal>(worker).key;
  stepped.digest = digest;
  stepped.gradient_norm = norm;
  stepped.parameter_hash = parameter_hash;
  Apply(stepped);
}

void Harness::RunWindow(const std::vector<Incarnation>& workers, int64_t window) {
  for (Incarnation worker : workers) Compute(worker, window);
  for (Incarnation worker : workers) Step(worker, window, DigestOf(window));
}

void Harness::Fail(Incarnation worker, std::vector<Incarnation> unreachable, int64_t final_buckets) {
  ReduceFailed failed;
  failed.from = worker;
  failed.key = Last<Seal>(worker).key;
  failed.reason = "peer closed the connection";
  failed.unreachable = std::move(unreachable);
  failed.final_buckets = final_buckets;
  const auto share = shares_.find({worker.value(), failed.key.window.value()});
  if (share != shares_.end()) share->second.final_buckets = final_buckets;
  Apply(failed);
}

void Harness::Synced(Incarnation worker, const std::string& digest) {
  Apply(StateSynced{worker, Last<StateSync>(worker).key, digest});
}

void Harness::Evaluate(Incarnation worker) {
  const auto& plan = Last<Plan>(worker);
  EvaluationReported reported{worker, plan.key, {}};
  for (const UnitRange& range : plan.evaluation_units) {
    for (int64_t unit = range.first; unit < range.first + range.count; ++unit) {
      reported.reports.push_back({unit, 2.0 * static_cast<double>(unit + 1), unit + 1});
    }
  }
  Apply(reported);
}

void Harness::WriteShard(Incarnation worker, const std::string& error) {
  const auto& [key, order] = orders_.at(worker.value());
  CheckpointShardWritten written{worker, key, order.window, {}, error};
  if (error.empty()) written.files = {{"shard-" + std::to_string(order.shard), 1, "hash"}};
  Apply(written);
}

void Harness::VerifyCheckpoint(int64_t window, const std::string& error) {
  Apply(CheckpointFinished{"job", Window(window), error, "checkpoints/" + std::to_string(window)});
}

}  // namespace accrue::core
