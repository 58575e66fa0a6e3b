#include "coordinator/server/translate.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/checkpoint/manifest.h"
#include "common/file_system.h"
#include "common/status.h"

namespace accrue {
namespace {

template <typename Repeated>
auto ToVector(const Repeated& repeated) {
  return std::vector<typename Repeated::value_type>(repeated.begin(), repeated.end());
}

LossScale LossScaleFromProto(const v1::LossScale& scale) { return {scale.exponent(), scale.good_windows()}; }

v1::LossScale LossScaleToProto(const LossScale& scale) {
  v1::LossScale result;
  result.set_exponent(scale.exponent);
  result.set_good_windows(scale.good_windows);
  return result;
}

std::vector<core::UnitRange> RangesFromProto(const google::protobuf::RepeatedPtrField<v1::UnitRange>& ranges) {
  std::vector<core::UnitRange> result;
  for (const v1::UnitRange& range : ranges) result.push_back({range.first(), range.count()});
  return result;
}

void RangesToProto(const std::vector<core::UnitRange>& ranges,
                   google::protobuf::RepeatedPtrField<v1::UnitRange>& result) {
  for (const core::UnitRange& range : ranges) {
    v1::UnitRange& added = *result.Add();
    added.set_first(range.first);
    added.set_count(range.count);
  }
}

core::PhaseTimes PhasesFromProto(const v1::PhaseTimes& phases) {
  return {phases.compute_ns(), phases.accumulate_ns(), phases.wait_seal_ns(), phases.reduce_ns(),
          phases.step_ns(),    phases.data_ns(),       phases.evaluate_ns(),  phases.checkpoint_ns()};
}

v1::PhaseTimes PhasesToProto(const core::PhaseTimes& phases) {
  v1::PhaseTimes result;
  result.set_compute_ns(phases.compute_ns);
  result.set_accumulate_ns(phases.accumulate_ns);
  result.set_wait_seal_ns(phases.wait_seal_ns);
  result.set_reduce_ns(phases.reduce_ns);
  result.set_step_ns(phases.step_ns);
  result.set_data_ns(phases.data_ns);
  result.set_evaluate_ns(phases.evaluate_ns);
  result.set_checkpoint_ns(phases.checkpoint_ns);
  return result;
}

core::UnitReport ReportFromProto(const v1::UnitReport& report) {
  core::UnitReport result;
  result.unit = report.unit();
  result.loss_sum = report.loss_sum();
  result.valid_tokens = report.valid_tokens();
  result.non_finite = report.non_finite();
  result.max_exponents = ToVector(report.max_exponents());
  result.bucket_checksums = ToVector(report.bucket_checksums());
  result.vanished_elements = report.vanished_elements();
  result.compute_ns = report.compute_ns();
  return result;
}

core::WindowComputed ComputedFromProto(const v1::WindowComputed& m, Incarnation from) {
  core::WindowComputed event{from, KeyFromProto(m.key()), m.parameter_hash(), {}, m.local_gradient_norm()};
  for (const v1::BucketManifest& bucket : m.buckets()) {
    event.buckets.push_back({bucket.final(), RangesFromProto(bucket.units())});
  }
  return event;
}

core::WorkerStepped SteppedFromProto(const v1::Stepped& m, Incarnation from) {
  return {from,
          KeyFromProto(m.key()),
          m.digest(),
          m.gradient_norm(),
          m.clip_coefficient(),
          PhasesFromProto(m.phases()),
          m.memory_bytes(),
          m.parameter_hash()};
}

core::WorkerHolds HoldingFromProto(const v1::Holding& m, Incarnation from) {
  core::WorkerHolds event{from, KeyFromProto(m.key()), m.digest(), m.parameter_hash(), {}, m.final_buckets(), {}, {}};
  for (const v1::UnitReport& report : m.reports()) event.reports.push_back(ReportFromProto(report));
  for (const v1::EvaluationReport& report : m.evaluations()) {
    event.evaluations.push_back({report.unit(), report.loss_sum(), report.valid_tokens()});
  }
  if (!m.has_stepped()) return event;
  core::WorkerHolds::UncommittedStep& step = event.step.emplace();
  step.stepped = SteppedFromProto(m.stepped(), from);
  step.computed = ComputedFromProto(m.computed(), from);
  const v1::Seal& seal = m.stepped_seal();
  step.verdict = seal.verdict() == v1::VERDICT_SKIP ? core::Verdict::kSkip : core::Verdict::kReduce;
  step.valid_tokens = seal.valid_tokens();
  step.loss_sum = seal.loss_sum();
  step.vanished_elements = seal.vanished_elements();
  step.next_exponents = ToVector(seal.next_exponents());
  if (seal.has_next_loss_scale()) step.next_loss_scale = LossScaleFromProto(seal.next_loss_scale());
  return event;
}

std::vector<core::CheckpointFile> FilesFromProto(const v1::CheckpointWritten& written) {
  std::vector<core::CheckpointFile> files;
  for (const v1::CheckpointFile& file : written.files()) {
    files.push_back({file.path(), file.size_bytes(), file.xxh3_128()});
  }
  return files;
}

// One overload for each message; `where` is the oneof's field.
class ToProto {
 public:
  ToProto(const JobContext& context, v1::CoordinatorMessage& result) : context_(context), result_(result) {}

  void operator()(const core::AssignJob& m) {
    v1::AssignJob& out = *result_.mutable_assign_job();
    *out.mutable_key() = KeyToProto(m.key);
    if (context_.job != nullptr) *out.mutable_job() = *context_.job;
    switch (m.start) {
      case core::AssignJob::Start::kFromScratch:
        out.set_from_scratch(true);
        break;
      case core::AssignJob::Start::kFromCheckpoint:
        out.set_checkpoint_directory(m.checkpoint_directory);
        break;
      case core::AssignJob::Start::kFromMembers:
        out.set_from_members(true);
        break;
    }
  }

  void operator()(const core::ProbeOrder& m) {
    *result_.mutable_probe()->mutable_key() = KeyToProto(m.key);
    if (m.loss_scale) *result_.mutable_probe()->mutable_loss_scale() = LossScaleToProto(*m.loss_scale);
  }

  void operator()(const core::Plan& m) {
    v1::Plan& out = *result_.mutable_plan();
    *out.mutable_key() = KeyToProto(m.key);
    RangesToProto(m.units, *out.mutable_units());
    out.mutable_scalars()->set_learning_rate_bits(m.scalars.learning_rate_bits);
    out.mutable_scalars()->set_bias_correction1_bits(m.scalars.bias_correction1_bits);
    out.mutable_scalars()->set_bias_correction2_bits(m.scalars.bias_correction2_bits);
    out.mutable_exponents()->Add(m.exponents.begin(), m.exponents.end());
    RangesToProto(m.evaluation_units, *out.mutable_evaluation_units());
    out.set_evaluation_only(m.evaluation_only);
    RangesToProto(m.audit_units, *out.mutable_audit_units());
    if (m.loss_scale) *out.mutable_loss_scale() = LossScaleToProto(*m.loss_scale);
    if (context_.sequences_of == nullptr) return;
    for (v1::SequenceRange& range : context_.sequences_of(m.key.window, m.units)) {
      *out.add_sequences() = std::move(range);
    }
  }

  void operator()(const core::Recall& m) {
    *result_.mutable_recall()->mutable_key() = KeyToProto(m.key);
    result_.mutable_recall()->set_units(m.units);
  }

  void operator()(const core::Prepare& m) {
    v1::Prepare& out = *result_.mutable_prepare();
    *out.mutable_key() = KeyToProto(m.key);
    out.set_communicator(m.communicator);
    for (Incarnation member : m.members) out.add_members(member.value());
  }

  void operator()(const core::Seal& m) {
    v1::Seal& out = *result_.mutable_seal();
    *out.mutable_key() = KeyToProto(m.key);
    out.set_verdict(m.verdict == core::Verdict::kReduce ? v1::VERDICT_REDUCE : v1::VERDICT_SKIP);
    for (Incarnation member : m.members) out.add_members(member.value());
    out.set_communicator(m.communicator);
    out.set_valid_tokens(m.valid_tokens);
    out.mutable_bucket_checksums()->Add(m.bucket_checksums.begin(), m.bucket_checksums.end());
    out.mutable_next_exponents()->Add(m.next_exponents.begin(), m.next_exponents.end());
    if (m.checkpoint.has_value()) *out.mutable_checkpoint() = OrderToProto(*m.checkpoint);
    out.set_reason(m.reason);
    out.mutable_final_buckets()->Add(m.final_buckets.begin(), m.final_buckets.end());
    out.set_loss_sum(m.loss_sum);
    out.set_vanished_elements(m.vanished_elements);
    if (m.next_loss_scale) *out.mutable_next_loss_scale() = LossScaleToProto(*m.next_loss_scale);
  }

  void operator()(const core::Replay& m) {
    *result_.mutable_replay()->mutable_key() = KeyToProto(m.key);
    result_.mutable_replay()->set_reason(m.reason);
  }
  void operator()(const core::Commit& m) {
    *result_.mutable_commit()->mutable_key() = KeyToProto(m.key);
    result_.mutable_commit()->set_digest(m.digest);
  }
  void operator()(const core::Abort& m) {
    *result_.mutable_abort()->mutable_key() = KeyToProto(m.key);
    result_.mutable_abort()->set_reason(m.reason);
  }
  void operator()(const core::StateSync& m) {
    v1::StateSync& out = *result_.mutable_state_sync();
    *out.mutable_key() = KeyToProto(m.key);
    for (Incarnation member : m.members) out.add_members(member.value());
    out.set_communicator(m.communicator);
    out.set_source(m.source.value());
  }
  void operator()(const core::CopyState& m) {
    v1::CopyState& out = *result_.mutable_copy_state();
    *out.mutable_key() = KeyToProto(m.key);
    out.set_communicator(m.communicator);
    out.set_source(m.source.value());
    out.set_receiver(m.receiver.value());
    out.set_end(m.end);
    out.set_reason(m.reason);
  }
  void operator()(const core::CheckpointNow& m) {
    *result_.mutable_checkpoint_now()->mutable_key() = KeyToProto(m.key);
    *result_.mutable_checkpoint_now()->mutable_checkpoint() = OrderToProto(m.order);
  }
  void operator()(const core::Release& m) {
    *result_.mutable_release()->mutable_key() = KeyToProto(m.key);
    result_.mutable_release()->set_reason(m.reason);
  }

 private:
  v1::CheckpointOrder OrderToProto(const core::CheckpointOrder& order) const {
    v1::CheckpointOrder result;
    const std::string root = context_.job == nullptr ? "" : CheckpointRoot(*context_.job);
    result.set_directory(CheckpointDirectory(root, order.window.value()));
    result.set_shard(order.shard);
    result.set_shards(order.shards);
    return result;
  }

  const JobContext& context_;
  v1::CoordinatorMessage& result_;
};

}  // namespace

core::Key KeyFromProto(const v1::Key& key) {
  return {Term(key.term()),           key.job_id(),           Timeline(key.timeline()), Epoch(key.epoch()),
          Incarnation(key.incarnation()), Window(key.window()), Attempt(key.attempt())};
}

v1::Key KeyToProto(const core::Key& key) {
  v1::Key result;
  result.set_term(key.term.value());
  result.set_job_id(key.job);
  result.set_timeline(key.timeline.value());
  result.set_epoch(key.epoch.value());
  result.set_incarnation(key.incarnation.value());
  result.set_window(key.window.value());
  result.set_attempt(key.attempt.value());
  return result;
}

core::WorkerJoined JoinFromProto(const v1::Hello& hello, Incarnation incarnation) {
  core::WorkerJoined joined;
  joined.incarnation = incarnation;
  joined.name = hello.name();
  joined.numeric_class = hello.numeric_class();
  joined.bf16_numeric_class = hello.bf16_numeric_class();
  joined.fp16_numeric_class = hello.fp16_numeric_class();
  joined.tf32_numeric_class = hello.tf32_numeric_class();
  joined.backend = hello.backend();
  joined.device = hello.device();
  joined.host = hello.host();
  joined.process_id = hello.process_id();
  joined.threads = hello.threads();
  joined.resumed = hello.incarnation() != 0;
  return joined;
}

absl::StatusOr<core::Event> EventFromProto(const v1::WorkerMessage& message, Incarnation from) {
  using M = v1::WorkerMessage;
  switch (message.message_case()) {
    case M::kHeartbeat:
      return core::WorkerHeartbeat{from, message.heartbeat().memory_bytes()};
    case M::kJobLoaded: {
      const v1::JobLoaded& m = message.job_loaded();
      if (m.tensors_size() != m.tensor_elements_size()) {
        return absl::InvalidArgumentError(absl::StrCat("JobLoaded: expected as many tensor_elements as tensors, found ",
                                                       m.tensor_elements_size(), " and ", m.tensors_size()));
      }
      return core::JobLoaded{from,          KeyFromProto(m.key()),   m.digest(), ToVector(m.tensor_elements()),
                             m.buckets(), ToVector(m.exponents()), m.parameter_hash(),     ToVector(m.tensors())};
    }
    case M::kUnitReports: {
      core::UnitsReported event{from, KeyFromProto(message.unit_reports().key()), message.unit_reports().probe(), {},
                                message.unit_reports().audit()};
      for (const v1::UnitReport& report : message.unit_reports().reports()) {
        event.reports.push_back(ReportFromProto(report));
      }
      return event;
    }
    case M::kWindowComputed:
      return ComputedFromProto(message.window_computed(), from);
    case M::kStepped:
      return SteppedFromProto(message.stepped(), from);
    case M::kReduceFailed: {
      const v1::ReduceFailed& m = message.reduce_failed();
      core::ReduceFailed event{from, KeyFromProto(m.key()), m.reason(), {}, m.final_buckets()};
      for (int64_t peer : m.unreachable_incarnations()) event.unreachable.push_back(Incarnation(peer));
      return event;
    }
    case M::kEvaluationReports: {
      core::EvaluationReported event{from, KeyFromProto(message.evaluation_reports().key()), {}};
      for (const v1::EvaluationReport& report : message.evaluation_reports().reports()) {
        event.reports.push_back({report.unit(), report.loss_sum(), report.valid_tokens()});
      }
      return event;
    }
    case M::kCheckpointWritten: {
      const v1::CheckpointWritten& m = message.checkpoint_written();
      return core::CheckpointShardWritten{from, KeyFromProto(m.key()), Window(m.checkpoint_window()),
                                          FilesFromProto(m), m.error()};
    }
    case M::kStateSynced:
      return core::StateSynced{from, KeyFromProto(message.state_synced().key()), message.state_synced().digest()};
    case M::kStateCopied: {
      const v1::StateCopied& m = message.state_copied();
      return core::StateCopied{from, KeyFromProto(m.key()), m.communicator(), m.digest(), m.error()};
    }
    case M::kHolding:
      return HoldingFromProto(message.holding(), from);
    case M::kReturned:
      return core::UnitsReturned{from, KeyFromProto(message.returned().key()),
                                 RangesFromProto(message.returned().units())};
    case M::kPrepared:
      return core::CommunicatorPrepared{from, KeyFromProto(message.prepared().key()), message.prepared().communicator(),
                                        message.prepared().error()};
    case M::kLeaving:
      return core::WorkerLeaving{from, message.leaving().reason(), message.leaving().at_once()};
    case M::kJobFailed: {
      const v1::JobFailed& m = message.job_failed();
      return core::WorkerFailedJob{from, KeyFromProto(m.key()), m.status(), m.reason(), m.fatal_for_job()};
    }
    case M::kHello:
      return absl::InvalidArgumentError("a second Hello on one stream");
    case M::MESSAGE_NOT_SET:
      return absl::InvalidArgumentError("a message of a kind that this version does not know");
  }
  return absl::InvalidArgumentError("a message of a kind that this version does not know");
}

v1::CoordinatorMessage MessageToProto(const core::WorkerMessage& message, const JobContext& context) {
  v1::CoordinatorMessage result;
  std::visit(ToProto(context, result), message);
  return result;
}

const core::Key& KeyOf(const core::WorkerMessage& message) {
  return std::visit([](const auto& m) -> const core::Key& { return m.key; }, message);
}

std::string CheckpointRoot(const v1::ResolvedJob& job) { return JoinPath(job.output_directory(), "checkpoints"); }

v1::JobState JobStateToProto(core::JobState state) {
  switch (state) {
    case core::JobState::kWaiting:
      return v1::JOB_STATE_WAITING;
    case core::JobState::kStarting:
      return v1::JOB_STATE_STARTING;
    case core::JobState::kRunning:
      return v1::JOB_STATE_RUNNING;
    case core::JobState::kPaused:
      return v1::JOB_STATE_PAUSED;
    case core::JobState::kFinishing:
      return v1::JOB_STATE_FINISHING;
    case core::JobState::kSucceeded:
      return v1::JOB_STATE_SUCCEEDED;
    case core::JobState::kFailed:
      return v1::JOB_STATE_FAILED;
    case core::JobState::kCancelled:
      return v1::JOB_STATE_CANCELLED;
  }
  return v1::JOB_STATE_UNSPECIFIED;
}

bool IsTerminal(core::JobState state) {
  return state == core::JobState::kSucceeded || state == core::JobState::kFailed ||
         state == core::JobState::kCancelled;
}

v1::WindowRecord WindowToProto(const CommitRecord& commit) {
  const core::WindowRecord& w = commit.window;
  v1::WindowRecord result;
  result.set_window(w.window.value());
  result.set_loss(w.loss);
  result.set_gradient_norm(w.gradient_norm);
  result.set_learning_rate(w.learning_rate);
  result.set_tokens(w.tokens);
  result.set_digest(w.digest);
  result.set_skipped(w.skipped);
  result.set_attempt(w.attempt.value());
  result.set_sequences(w.sequences);
  result.set_clip_coefficient(w.clip_coefficient);
  result.set_vanished_fraction(w.vanished_fraction);
  if (w.loss_scale) result.set_loss_scale(w.loss_scale->Value());
  for (const core::WorkerWindow& worker : w.workers) {
    v1::WorkerWindow& added = *result.add_workers();
    added.set_incarnation(worker.incarnation.value());
    added.set_name(worker.name);
    added.set_units(worker.units);
    added.set_gradient_norm(worker.gradient_norm);
    *added.mutable_phases() = PhasesToProto(worker.phases);
    added.set_memory_bytes(worker.memory_bytes);
  }
  result.set_committed_unix_ns(commit.committed_unix_ns);
  result.set_timeline(w.timeline.value());
  result.set_epoch(w.epoch.value());
  const double seconds = static_cast<double>(w.duration_ns) * 1e-9;
  result.set_window_seconds(seconds);
  if (seconds > 0) result.set_tokens_per_second(static_cast<double>(w.tokens) / seconds);
  if (commit.validation_loss.has_value()) result.set_validation_loss(*commit.validation_loss);
  return result;
}

v1::LedgerEntry LedgerToProto(const LedgerRecord& record) {
  v1::LedgerEntry result;
  result.set_sequence(record.sequence);
  result.set_unix_ns(record.unix_ns);
  result.set_kind(record.entry.kind);
  result.set_timeline(record.entry.timeline.value());
  result.set_epoch(record.entry.epoch.value());
  result.set_window(record.entry.window.value());
  result.set_attempt(record.entry.attempt.value());
  result.set_incarnation(record.entry.incarnation.value());
  result.set_reason(record.entry.reason);
  result.set_detail(record.entry.detail);
  return result;
}

const char* JobStateName(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_WAITING:
      return "waiting";
    case v1::JOB_STATE_STARTING:
      return "starting";
    case v1::JOB_STATE_RUNNING:
      return "running";
    case v1::JOB_STATE_PAUSED:
      return "paused";
    case v1::JOB_STATE_FINISHING:
      return "finishing";
    case v1::JOB_STATE_SUCCEEDED:
      return "succeeded";
    case v1::JOB_STATE_FAILED:
      return "failed";
    case v1::JOB_STATE_CANCELLED:
      return "cancelled";
    default:
      return "unknown";
  }
}

}  // namespace accrue
