// A window's life, in its order. runner_messages.cc has what the coordinator's messages do.
#include "worker/core/window_runner.h"

#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/exponents.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "common/status.h"
#include "worker/core/flip_bit.h"
#include "worker/core/keys.h"
#include "worker/core/resident_memory.h"
#include "worker/core/unit_ranges.h"

namespace accrue {
namespace {

// Passes gradients on and takes the time that this needs.
class TimedSink : public GradientSink {
 public:
  TimedSink(GradientSink& sink, const Clock& clock, Tracer* tracer) : sink_(sink), clock_(clock), tracer_(tracer) {}
  void Add(int tensor, const float* gradient) override {
    const int64_t begin_ns = clock_.SteadyNowNs();
    TraceSpan span(tracer_, Span::kQuantizeAndAdd, tensor, begin_ns);
    if (flip_backend_ != nullptr) [[unlikely]] {
      AddFlipped(tensor, gradient);
    } else {
      sink_.Add(tensor, gradient);
    }
    const int64_t end_ns = clock_.SteadyNowNs();
    span.End(end_ns);
    spent_ns_ += end_ns - begin_ns;
  }
  int64_t spent_ns() const { return spent_ns_; }

  // The first gradient to come gets one wrong bit (--fault flip-gradient).
  void FlipOne(const ParameterLayout& layout, Backend& backend) {
    flip_layout_ = &layout;
    flip_backend_ = &backend;
  }

 private:
  void AddFlipped(int tensor, const float* gradient) {
    std::vector<float> copy(static_cast<size_t>(flip_layout_->tensors()[tensor].elements));
    std::copy_n(gradient, copy.size(), copy.data());
    FlipBit(*std::exchange(flip_backend_, nullptr), copy.data());
    sink_.Add(tensor, copy.data());
  }

  GradientSink& sink_;
  const Clock& clock_;
  Tracer* const tracer_;
  int64_t spent_ns_ = 0;
  const ParameterLayout* flip_layout_ = nullptr;
  Backend* flip_backend_ = nullptr;
};

// The first moment of the first tensor gets one wrong bit (--fault flip-moment).
void FlipMoment(TrainingState& state) {
  for (int index = 0; index < static_cast<int>(state.arrays().size()); ++index) {
    if (state.arrays()[index].array != 'm') continue;
    std::vector<float> values(static_cast<size_t>(state.arrays()[index].elements));
    state.ReadArray(index, values.data());
    values[0] = std::bit_cast<float>(std::bit_cast<uint32_t>(values[0]) ^ (uint32_t{1} << 20));
    state.WriteArray(index, values.data());
    return;
  }
}

v1::UnitReport ReportOf(const UnitStats& stats, const UnitLoss& loss, int64_t compute_ns) {
  v1::UnitReport report;
  report.set_unit(stats.unit);
  report.set_loss_sum(loss.loss_sum);
  report.set_valid_tokens(loss.valid_tokens);
  report.set_non_finite(stats.non_finite);
  report.mutable_max_exponents()->Assign(stats.max_exponents.begin(), stats.max_exponents.end());
  report.mutable_bucket_checksums()->Assign(stats.bucket_checksums.begin(), stats.bucket_checksums.end());
  report.set_vanished_elements(stats.vanished_elements);
  report.set_compute_ns(compute_ns);
  return report;
}

// Buckets [0, final_buckets) final, the units in all others.
void AppendManifest(const Accumulator& accumulator, int buckets, v1::WindowComputed* computed) {
  const int final_buckets = accumulator.final_buckets();
  const int entries = final_buckets == 0 ? 1 : buckets;  // one stands for all when they are alike
  for (int bucket = 0; bucket < entries; ++bucket) {
    v1::BucketManifest* manifest = computed->add_buckets();
    if (bucket < final_buckets) {
      manifest->set_final(true);
    } else {
      AppendRanges(accumulator.units(), manifest->mutable_units());
    }
  }
}

absl::Status CheckLossScale(const LossScale& scale) {
  if (scale.IsPossible()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the coordinator gives loss scale 2^", scale.exponent, " after ",
                                                 scale.good_windows, " windows"));
}

std::string HexChecksum(uint64_t checksum) { return absl::StrCat(absl::Hex(checksum, absl::kZeroPad16)); }

}  // namespace

WindowRunner::WindowRunner(const RunnerContext& context, const v1::AssignJob& assignment, Job& job)
    : memory_(context.link),
      thread_safe_link_(context.link),
      context_{memory_, context.inbox, context.guard, context.collectives, context.checkpoints, context.clock,
               context.collective_deadline_ms, context.stall_watch, context.preparer, context.tracer},
      job_(job),
      assigned_(assignment.key()),
      reducer_(context.collectives, context.guard, context.collective_deadline_ms, context.preparer),
      reporter_(context_.link, context.clock) {
  if (context_.tracer == nullptr) return;
  std::vector<std::string> tensors;
  for (const TensorInfo& tensor : job_.engine->layout().tensors()) tensors.push_back(tensor.name);
  context_.tracer->BeginJob(std::move(tensors));
}

WindowRunner::~WindowRunner() {
  StopSending();
  if (context_.tracer != nullptr) context_.tracer->EndJob();
}

RunEnd WindowRunner::Run() {
  SendLoaded();
  while (true) {
    WindowShare* share = CurrentShare();
    const bool has_work = share != nullptr && share->HasWork();
    if (!has_work) reporter_.Flush();
    if (!has_work && context_.stall_watch != nullptr) context_.stall_watch->Waits();
    std::optional<InboxEvent> event = has_work ? context_.inbox.TryPop() : context_.inbox.Pop();
    if (context_.stall_watch != nullptr) context_.stall_watch->Begins("what a message asks for does not end");
    if (event) {
      if (std::optional<RunEnd> end = Handle(*event)) return *std::move(end);
    } else if (absl::Status status = Work(); !status.ok()) {
      return Fail(status);
    }
  }
}

absl::Status WindowRunner::Work() {
  WindowShare& share = *CurrentShare();
  ACCRUE_RETURN_IF_ERROR(Begin(share));
  const bool computes = !share.units.empty();
  if (!computes && share.evaluation_units.empty() && !share.computed && !share.evaluation_only) {
    return FinishComputing(share);
  }
  const int64_t begin_ns = Now();
  if (context_.stall_watch != nullptr) context_.stall_watch->BeginsUnit();
  ACCRUE_RETURN_IF_ERROR(computes                          ? ComputeUnit(share)
                         : !share.evaluation_units.empty() ? EvaluateUnit(share)
                                                           : AuditUnit(share));
  if (context_.stall_watch != nullptr) context_.stall_watch->EndsUnit(Now() - begin_ns);
  return absl::OkStatus();
}

absl::Status WindowRunner::Begin(WindowShare& share) {
  if (share.begun || share.evaluation_only) return absl::OkStatus();
  const std::vector<int>& exponents = share.exponents.empty() ? job_.state->exponents() : share.exponents;
  if (job_.accumulator->mode() == AccumulationMode::kExact &&
      exponents.size() != job_.engine->layout().tensors().size()) {
    return absl::InternalError(absl::StrCat("window ", share.key.window(), " has ", exponents.size(),
                                            " exponents for ", job_.engine->layout().tensors().size(), " tensors"));
  }
  if (context_.tracer != nullptr) context_.tracer->BeginWindow(share.key.window());
  const std::optional<LossScale>& loss_scale = share.loss_scale ? share.loss_scale : job_.state->loss_scale();
  if (loss_scale) ACCRUE_RETURN_IF_ERROR(CheckLossScale(*loss_scale));
  job_.accumulator->Reset(exponents);
  job_.accumulator->SetLossScale(loss_scale ? loss_scale->exponent : 0);
  share.begun = true;
  if (FaultFires(FaultPoint::kFlipParameter, share.key.window())) FlipBit(*job_.backend, job_.state->parameters());
  return absl::OkStatus();
}

UnitInput WindowRunner::Scaled(UnitInput input) const {
  input.loss_scale_exponent = job_.accumulator->loss_scale_exponent();
  return input;
}

absl::Status WindowRunner::ComputeUnit(WindowShare& share) {
  const int64_t begin_ns = Now();
  const UnitName name{share.key.window(), share.units.front()};
  if (context_.tracer != nullptr) context_.tracer->EndOpen(Span::kWaitForSeal, begin_ns);
  TraceSpan unit_span(context_.tracer, Span::kUnit, name.unit, begin_ns);
  ACCRUE_RETURN_IF_ERROR(FaultStatus(FaultPoint::kWorkerUnitBegun, name.window));
  TraceSpan data_span(context_.tracer, Span::kData, -1, begin_ns);
  const UnitInput input = Scaled(job_.units->Training(name));
  const int64_t read_ns = Now();
  data_span.End(read_ns);
  TraceSpan compute_span(context_.tracer, Span::kForwardBackward, -1, read_ns);
  job_.accumulator->BeginUnit(name.unit);
  TimedSink sink(*job_.accumulator, context_.clock, context_.tracer);
  if (FaultFires(FaultPoint::kFlipGradient, name.window)) sink.FlipOne(job_.engine->layout(), *job_.backend);
  ACCRUE_ASSIGN_OR_RETURN(const UnitLoss loss, job_.engine->ComputeUnit(input, sink));
  const UnitStats& stats = job_.accumulator->FinishUnit();
  const int64_t end_ns = Now();
  compute_span.End(end_ns);
  unit_span.End(end_ns);
  LogDebug("unit added", {{"window", name.window}, {"attempt", share.key.attempt()}, {"unit", name.unit}});
  PassFaultPoint(FaultPoint::kWorkerUnitAdded, name.window);
  if (FaultFires(FaultPoint::kFlipAccumulator, name.window)) FlipBit(*job_.backend, job_.accumulator->ExactBucket(0));

  ++units_computed_;
  share.units.pop_front();
  share.valid_tokens += loss.valid_tokens;
  if (job_.accumulator->mode() == AccumulationMode::kExact) {
    share.unit_checksums.resize(stats.bucket_checksums.size());
    for (size_t bucket = job_.accumulator->final_buckets(); bucket < stats.bucket_checksums.size(); ++bucket) {
      share.unit_checksums[bucket] += stats.bucket_checksums[bucket];
    }
  }
  v1::PhaseTimes& phases = share.phases;
  phases.set_data_ns(phases.data_ns() + read_ns - begin_ns);
  phases.set_accumulate_ns(phases.accumulate_ns() + sink.spent_ns());
  phases.set_compute_ns(phases.compute_ns() + end_ns - read_ns - sink.spent_ns());
  reporter_.Add(share.key, ReportOf(stats, loss, end_ns - begin_ns));
  PassFaultPoint(FaultPoint::kWorkerUnitReported, name.window);
  return absl::OkStatus();
}

// A unit that another worker holds, computed to be compared: nothing is accumulated.
absl::Status WindowRunner::AuditUnit(WindowShare& share) {
  const int64_t begin_ns = Now();
  const UnitName name{share.key.window(), share.audit_units.front()};
  const TraceSpan span(context_.tracer, Span::kAuditUnit, name.unit, begin_ns);
  ACCRUE_RETURN_IF_ERROR(FaultStatus(FaultPoint::kWorkerAuditBegun, name.window));
  const UnitInput input = Scaled(job_.units->Training(name));
  const int64_t read_ns = Now();
  job_.accumulator->BeginAudit(name.unit);
  ACCRUE_ASSIGN_OR_RETURN(const UnitLoss loss, job_.engine->ComputeUnit(input, *job_.accumulator));
  const UnitStats& stats = job_.accumulator->FinishUnit();
  const int64_t end_ns = Now();

  PassFaultPoint(FaultPoint::kWorkerAudited, name.window);
  share.audit_units.pop_front();
  share.phases.set_data_ns(share.phases.data_ns() + read_ns - begin_ns);
  share.phases.set_compute_ns(share.phases.compute_ns() + end_ns - read_ns);
  v1::WorkerMessage message;
  v1::UnitReports& reports = *message.mutable_unit_reports();
  *reports.mutable_key() = share.key;
  reports.set_audit(true);
  *reports.add_reports() = ReportOf(stats, loss, end_ns - begin_ns);
  context_.link.Send(std::move(message));
  return absl::OkStatus();
}

absl::Status WindowRunner::EvaluateUnit(WindowShare& share) {
  reporter_.Flush();
  const int64_t begin_ns = Now();
  const int64_t unit = share.evaluation_units.front();
  TraceSpan span(context_.tracer, Span::kEvaluateUnit, unit, begin_ns);
  if (job_.validation == nullptr) return absl::InternalError("evaluation units for a job without held-out data");
  ACCRUE_ASSIGN_OR_RETURN(const UnitLoss loss, job_.engine->EvaluateUnit(job_.units->Evaluation(unit)));
  PassFaultPoint(FaultPoint::kWorkerEvaluated, share.key.window());
  share.evaluation_units.pop_front();
  const int64_t end_ns = Now();
  span.End(end_ns);
  share.phases.set_evaluate_ns(share.phases.evaluate_ns() + end_ns - begin_ns);

  v1::WorkerMessage message;
  *message.mutable_evaluation_reports()->mutable_key() = share.key;
  v1::EvaluationReport& report = *message.mutable_evaluation_reports()->add_reports();
  report.set_unit(unit);
  report.set_loss_sum(loss.loss_sum);
  report.set_valid_tokens(loss.valid_tokens);
  context_.link.Send(std::move(message));
  return absl::OkStatus();
}

// The window's units are in the accumulator: says so, with what proves it.
absl::Status WindowRunner::FinishComputing(WindowShare& share) {
  reporter_.Flush();
  const int64_t begin_ns = Now();
  if (context_.tracer != nullptr) context_.tracer->EndOpen(Span::kWaitForSeal, begin_ns);
  TraceSpan span(context_.tracer, Span::kManifest, -1, begin_ns);
  if (job_.accumulator->mode() == AccumulationMode::kExact) ACCRUE_RETURN_IF_ERROR(CheckOpenBuckets(share));
  // Sums over all members are not this worker's: with them, the norm stays that of before.
  if (job_.accumulator->final_buckets() == 0) share.local_norm = job_.accumulator->Norm(share.valid_tokens);
  v1::WorkerMessage message;
  v1::WindowComputed& computed = *message.mutable_window_computed();
  *computed.mutable_key() = share.key;
  TraceSpan hash_span(context_.tracer, Span::kParameterHash);
  computed.set_parameter_hash(job_.state->ParameterHash(job_.engine->ComputeCopy()).Hex());
  if (context_.tracer != nullptr) hash_span.End(Now());
  AppendManifest(*job_.accumulator, static_cast<int>(job_.engine->layout().buckets().size()), &computed);
  computed.set_local_gradient_norm(share.local_norm);
  PassFaultPoint(FaultPoint::kWorkerComputed, share.key.window());
  context_.link.Send(std::move(message));
  PassFaultPoint(FaultPoint::kWorkerComputedSent, share.key.window());
  share.computed = true;
  share.computed_at_ns = Now();
  span.End(share.computed_at_ns);
  if (context_.tracer != nullptr) context_.tracer->Begin(Span::kWaitForSeal, -1, share.computed_at_ns);
  share.phases.set_accumulate_ns(share.phases.accumulate_ns() + share.computed_at_ns - begin_ns);
  return absl::OkStatus();
}

// That the open buckets hold what was added to them.
absl::Status WindowRunner::CheckOpenBuckets(WindowShare& share) {
  const int buckets = static_cast<int>(job_.engine->layout().buckets().size());
  share.unit_checksums.resize(buckets);
  share.bucket_checksums.resize(buckets);
  for (int bucket = job_.accumulator->final_buckets(); bucket < buckets; ++bucket) {
    share.bucket_checksums[bucket] = job_.accumulator->BucketChecksum(bucket);
    if (share.bucket_checksums[bucket] == share.unit_checksums[bucket]) continue;
    return absl::DataLossError(absl::StrCat(
        "bucket ", bucket, " of window ", share.key.window(), " has checksum ",
        HexChecksum(share.bucket_checksums[bucket]), "; the units that were added to it have ",
        HexChecksum(share.unit_checksums[bucket]), ": this worker's memory cannot be trusted"));
  }
  return absl::OkStatus();
}

// That the final buckets, which others may be given, are still what they were when they were proved.
absl::Status WindowRunner::CheckFinalBuckets(const WindowShare& share) {
  if (job_.accumulator->mode() != AccumulationMode::kExact) return absl::OkStatus();
  for (int bucket = 0; bucket < job_.accumulator->final_buckets(); ++bucket) {
    const uint64_t found = job_.accumulator->BucketChecksum(bucket);
    if (found == share.bucket_checksums[bucket]) continue;
    return absl::DataLossError(absl::StrCat("bucket ", bucket, " of window ", share.key.window(),
                                            ", which is final, has checksum ", HexChecksum(found), "; it had ",
                                            HexChecksum(share.bucket_checksums[bucket]),
                                            ": this worker's memory cannot be trusted"));
  }
  return absl::OkStatus();
}

absl::Status WindowRunner::ActOnSeal(const v1::Seal& seal) {
  WindowShare& share = *CurrentShare();
  PassFaultPoint(FaultPoint::kWorkerSealTaken, seal.key().window());
  while (!share.evaluation_units.empty()) ACCRUE_RETURN_IF_ERROR(EvaluateUnit(share));
  const int64_t sealed_ns = Now();
  if (context_.tracer != nullptr) context_.tracer->EndOpen(Span::kWaitForSeal, sealed_ns);
  share.phases.set_wait_seal_ns(sealed_ns - share.computed_at_ns);
  if (seal.verdict() == v1::VERDICT_REDUCE) ACCRUE_RETURN_IF_ERROR(CheckFinalBuckets(share));
  if (sender_ != nullptr) sender_->Hold(seal.key().window());  // until the commit
  StepOutcome outcome;
  if (absl::Status status = ReduceAndStep(seal, share, &outcome); !status.ok()) {
    if (sender_ != nullptr) sender_->GoOn(seal.key().window());
    SendReduceFailed(seal.key(), status, seal.members());
    return absl::OkStatus();  // the coordinator decides what follows; the attempt goes on
  }
  PassFaultPoint(FaultPoint::kWorkerStepped, seal.key().window());
  job_.engine->ParametersChanged();
  awaits_commit_ = true;
  stepped_digest_ = outcome.digest.Hex();

  v1::WorkerMessage message;
  v1::Stepped& stepped = *message.mutable_stepped();
  *stepped.mutable_key() = seal.key();
  stepped.set_digest(stepped_digest_);
  stepped.set_gradient_norm(outcome.gradient_norm);
  stepped.set_clip_coefficient(outcome.clip_coefficient);
  share.phases.set_checkpoint_ns(std::exchange(checkpoint_ns_, 0));
  *stepped.mutable_phases() = share.phases;
  stepped.set_memory_bytes(ResidentMemoryBytes());
  {
    const TraceSpan span(context_.tracer, Span::kParameterHash);
    stepped.set_parameter_hash(ParameterHash());
  }
  context_.link.Send(std::move(message));
  PassFaultPoint(FaultPoint::kWorkerSteppedSent, seal.key().window());
  const v1::PhaseTimes& phases = share.phases;
  LogDebug("window stepped", {{"window", seal.key().window()}, {"digest", stepped_digest_},
                              {"compute_ns", phases.compute_ns()}, {"accumulate_ns", phases.accumulate_ns()},
                              {"data_ns", phases.data_ns()}, {"wait_seal_ns", phases.wait_seal_ns()},
                              {"reduce_ns", phases.reduce_ns()}, {"step_ns", phases.step_ns()},
                              {"evaluate_ns", phases.evaluate_ns()}, {"checkpoint_ns", phases.checkpoint_ns()}});

  shares_.erase(shares_.begin(), shares_.lower_bound(job_.state->window()));
  ExpectUnits();
  if (seal.has_checkpoint()) {
    const int64_t begin_ns = Now();
    TraceSpan span(context_.tracer, Span::kSnapshot, -1, begin_ns);
    context_.checkpoints.Write(seal.key(), seal.checkpoint(), *job_.state);
    const int64_t end_ns = Now();
    span.End(end_ns);
    checkpoint_ns_ = end_ns - begin_ns;
  }
  if (context_.tracer != nullptr) context_.tracer->EndWindow();
  return absl::OkStatus();
}

absl::Status WindowRunner::ReduceAndStep(const v1::Seal& seal, WindowShare& share, StepOutcome* outcome) {
  const std::vector<int> next_exponents(seal.next_exponents().begin(), seal.next_exponents().end());
  const bool exact = job_.accumulator->mode() == AccumulationMode::kExact;
  if (next_exponents.size() != (exact ? job_.engine->layout().tensors().size() : 0)) {
    return absl::InvalidArgumentError(absl::StrCat("the seal has ", next_exponents.size(), " exponents"));
  }
  std::optional<LossScale> next_loss_scale;
  if (seal.has_next_loss_scale()) {
    next_loss_scale = LossScaleFromProto(seal.next_loss_scale());
    ACCRUE_RETURN_IF_ERROR(CheckLossScale(*next_loss_scale));
  }
  if (seal.verdict() == v1::VERDICT_SKIP) {
    const int64_t begin_ns = Now();
    TraceSpan span(context_.tracer, Span::kStep, -1, begin_ns);
    const auto skip = [&] {
      if (exact) job_.state->SetExponents(next_exponents);
      job_.state->SetLossScale(next_loss_scale);
      return job_.state->Skip();
    };
    *outcome = sender_ == nullptr ? skip() : sender_->Skip(skip);
    const int64_t end_ns = Now();
    span.End(end_ns);
    share.phases.set_step_ns(end_ns - begin_ns);
    return absl::OkStatus();
  }
  if (seal.verdict() != v1::VERDICT_REDUCE || seal.valid_tokens() < 1) {
    return absl::InvalidArgumentError(absl::StrCat("the seal has verdict ", seal.verdict(), " and ",
                                                   seal.valid_tokens(), " valid tokens"));
  }
  const int64_t begin_ns = Now();
  TraceSpan reduce_span(context_.tracer, Span::kReduce, -1, begin_ns);
  ACCRUE_RETURN_IF_ERROR(reducer_.Reduce(seal, share.bucket_checksums, job_));
  const int64_t reduced_ns = Now();
  reduce_span.End(reduced_ns);
  TraceSpan step_span(context_.tracer, Span::kStep, -1, reduced_ns);
  PassFaultPoint(FaultPoint::kWorkerReduced, seal.key().window());
  if (FaultFires(FaultPoint::kFlipMoment, seal.key().window())) FlipMoment(*job_.state);
  const StepInput input{.learning_rate = std::bit_cast<float>(share.scalars.learning_rate_bits()),
                        .bias_correction1 = std::bit_cast<float>(share.scalars.bias_correction1_bits()),
                        .bias_correction2 = std::bit_cast<float>(share.scalars.bias_correction2_bits()),
                        .valid_tokens = seal.valid_tokens(),
                        .next_exponents = next_exponents,
                        .next_loss_scale = next_loss_scale};
  const auto step = [&] { return job_.state->Step(*job_.accumulator, input); };
  *outcome = sender_ == nullptr ? step() : sender_->Step(input, step);
  share.phases.set_reduce_ns(reduced_ns - begin_ns);
  const int64_t stepped_ns = Now();
  step_span.End(stepped_ns);
  share.phases.set_step_ns(stepped_ns - reduced_ns);
  return absl::OkStatus();
}

WindowShare* WindowRunner::CurrentShare() {
  const auto found = shares_.find(job_.state->window());
  return found == shares_.end() ? nullptr : &found->second;
}

void WindowRunner::ExpectUnits() {
  std::vector<UnitName> names;
  for (const auto& [window, share] : shares_) {
    for (int64_t unit : share.units) names.push_back({window, unit});
    for (int64_t unit : share.audit_units) names.push_back({window, unit});
  }
  job_.units->Expect(names);
}

}  // namespace accrue
