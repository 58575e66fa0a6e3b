// What the coordinator's messages do to a WindowRunner.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "common/status.h"
#include "worker/core/keys.h"
#include "worker/core/unit_ranges.h"
#include "worker/core/window_runner.h"

namespace accrue {
namespace {

// Plans come one window ahead.
constexpr int64_t kMostWindowsAhead = 1;
constexpr int64_t kMostUnits = int64_t{1} << 24;

template <typename Ranges>
bool RangesMakeSense(const Ranges& ranges) {
  for (const v1::UnitRange& range : ranges) {
    if (range.first() < 0 || range.count() < 1 || range.first() > kMostUnits || range.count() > kMostUnits) return false;
  }
  return true;
}

}  // namespace

std::optional<RunEnd> WindowRunner::Handle(InboxEvent& event) {
  if (auto* lost = std::get_if<LinkLost>(&event)) return OnLinkLost(*lost);
  if (auto* joined = std::get_if<Joined>(&event)) return OnJoined(*joined);
  if (auto* drain = std::get_if<DrainRequested>(&event)) return OnDrainRequested(*drain);
  if (auto* over = std::get_if<LifeOver>(&event)) {
    return RunEnd{.kind = RunEnd::Kind::kSuperseded, .reason = over->reason, .event = *over};
  }
  return HandleMessage(event);
}

std::optional<RunEnd> WindowRunner::HandleMessage(InboxEvent& event) {
  auto& message = std::get<v1::CoordinatorMessage>(event);
  absl::Status status;
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kProbe:
      status = OnProbe(message.probe());
      break;
    case v1::CoordinatorMessage::kPlan:
      OnPlan(message.plan());
      break;
    case v1::CoordinatorMessage::kSeal:
      status = OnSeal(message.seal());
      break;
    case v1::CoordinatorMessage::kReplay:
      OnReplay(message.replay());
      break;
    case v1::CoordinatorMessage::kRecall:
      OnRecall(message.recall());
      break;
    case v1::CoordinatorMessage::kCommit:
      status = OnCommit(message.commit());
      break;
    case v1::CoordinatorMessage::kAbort:
      OnAbort(message.abort());
      break;
    case v1::CoordinatorMessage::kStateSync:
      OnStateSync(message.state_sync());
      break;
    case v1::CoordinatorMessage::kCopyState:
      OnCopyState(message.copy_state());
      break;
    case v1::CoordinatorMessage::kCheckpointNow:
      OnCheckpointNow(message.checkpoint_now());
      break;
    case v1::CoordinatorMessage::kAssignJob:
      return RunEnd{.kind = RunEnd::Kind::kSuperseded, .reason = "assigned anew", .event = std::move(event)};
    case v1::CoordinatorMessage::kRelease:
      if (message.release().key().job_id() != assigned_.job_id()) {
        LogWarning("a release of another job is refused", {{"key", KeyToString(message.release().key())}});
        break;
      }
      return RunEnd{.kind = RunEnd::Kind::kReleased,
                    .reason = message.release().reason(),
                    .shut_down = message.release().shut_down()};
    case v1::CoordinatorMessage::kWelcome:
    case v1::CoordinatorMessage::kRefused:
    case v1::CoordinatorMessage::kPrepare:
    case v1::CoordinatorMessage::MESSAGE_NOT_SET:
      LogWarning("a message that makes no sense within a job is refused", {});
      break;
  }
  if (!status.ok()) return Fail(status);
  return std::nullopt;
}

// The largest gradients of unit 0, from which the first window's exponents follow.
absl::Status WindowRunner::OnProbe(const v1::Probe& probe) {
  if (Refuse("probe", probe.key())) return absl::OkStatus();
  const int64_t begin_ns = Now();
  const LossScale loss_scale = LossScaleFromProto(probe.loss_scale());
  if (!loss_scale.IsPossible()) {
    return absl::InvalidArgumentError(absl::StrCat("the probe has loss scale 2^", loss_scale.exponent));
  }
  job_.accumulator->SetLossScale(loss_scale.exponent);
  const UnitInput input = Scaled(job_.units->Training({.window = 0, .unit = 0}));
  job_.accumulator->BeginProbe();
  ACCRUE_ASSIGN_OR_RETURN(const UnitLoss loss, job_.engine->ComputeUnit(input, *job_.accumulator));
  const UnitStats& stats = job_.accumulator->FinishUnit();

  v1::WorkerMessage message;
  v1::UnitReports& reports = *message.mutable_unit_reports();
  *reports.mutable_key() = probe.key();
  reports.set_probe(true);
  v1::UnitReport& report = *reports.add_reports();
  report.set_loss_sum(loss.loss_sum);
  report.set_valid_tokens(loss.valid_tokens);
  report.set_non_finite(stats.non_finite);
  report.mutable_max_exponents()->Assign(stats.max_exponents.begin(), stats.max_exponents.end());
  report.set_compute_ns(Now() - begin_ns);
  PassFaultPoint(FaultPoint::kWorkerProbed);
  context_.link.Send(std::move(message));
  return absl::OkStatus();
}

void WindowRunner::OnPlan(const v1::Plan& plan) {
  if (Refuse("plan", plan.key())) return;
  const int64_t window = plan.key().window();
  if (window > job_.state->window() + kMostWindowsAhead || !RangesMakeSense(plan.units()) ||
      !RangesMakeSense(plan.evaluation_units()) || !RangesMakeSense(plan.audit_units())) {
    LogWarning("a plan too far ahead, or of impossible units, is refused", {{"key", KeyToString(plan.key())}});
    return;
  }
  auto [found, is_new] = shares_.try_emplace(window);
  WindowShare& share = found->second;
  if (!is_new && plan.key().attempt() > share.key.attempt()) {
    if (window == job_.state->window()) reporter_.Discard();
    share.StartOver(plan.key());
  } else if (!is_new && plan.key().attempt() < share.key.attempt()) {
    LogInfo("a plan of a void attempt is refused", {{"key", KeyToString(plan.key())}});
    return;
  }
  share.Take(plan);
  ExpectUnits();
  if (plan.units_size() > 0) PassFaultPoint(FaultPoint::kWorkerPlanTaken, window);
}

void WindowRunner::OnReplay(const v1::Replay& replay) {
  if (Refuse("replay", replay.key())) return;
  LogInfo("window is computed again", {{"window", replay.key().window()}, {"reason", replay.reason()}});
  const auto found = shares_.find(replay.key().window());
  if (found == shares_.end() || replay.key().attempt() <= found->second.key.attempt()) return;
  reporter_.Discard();
  held_seal_.reset();
  found->second.StartOver(replay.key());
  PassFaultPoint(FaultPoint::kWorkerReplayTaken, replay.key().window());
}

// Always answered, also for a window that is not here any more: whoever asks counts on an answer.
void WindowRunner::OnRecall(const v1::Recall& recall) {
  PassFaultPoint(FaultPoint::kWorkerRecallTaken, recall.key().window());
  v1::WorkerMessage message;
  v1::Returned& returned = *message.mutable_returned();
  *returned.mutable_key() = recall.key();
  const auto found = shares_.find(recall.key().window());
  if (CheckCurrent(OwnKey(), recall.key()).ok() && found != shares_.end() &&
      found->second.key.attempt() == recall.key().attempt()) {
    AppendRanges(found->second.GiveBack(recall.units()), returned.mutable_units());
    ExpectUnits();
  }
  context_.link.Send(std::move(message));
  PassFaultPoint(FaultPoint::kWorkerReturnedSent, recall.key().window());
}

absl::Status WindowRunner::OnSeal(const v1::Seal& seal) {
  if (Refuse("seal", seal.key())) return absl::OkStatus();
  memory_.TakeSeal(seal);
  const WindowShare* share = CurrentShare();
  if (seal.key().window() != job_.state->window() || share == nullptr || share->is_void ||
      share->key.attempt() != seal.key().attempt() || !share->computed) {
    SendReduceFailed(seal.key(),
                     absl::FailedPreconditionError("this worker's units of that attempt are not all in its accumulator"),
                     seal.members());
    return absl::OkStatus();
  }
  if (awaits_commit_) {
    held_seal_ = seal;
    return absl::OkStatus();
  }
  return ActOnSeal(seal);
}

absl::Status WindowRunner::OnCommit(const v1::Commit& commit) {
  if (!awaits_commit_ || commit.key().window() + 1 != job_.state->window() ||
      commit.key().timeline() != assigned_.timeline()) {
    LogInfo("a commit of another window is refused", {{"key", KeyToString(commit.key())}});
    return absl::OkStatus();
  }
  if (commit.digest() != stepped_digest_) {
    return absl::DataLossError(absl::StrCat("window ", commit.key().window(), " committed with digest ",
                                            commit.digest(), "; here it is ", stepped_digest_,
                                            ": this worker's computation cannot be trusted"));
  }
  awaits_commit_ = false;
  if (context_.tracer != nullptr) context_.tracer->Committed(commit.key().window());
  PassFaultPoint(FaultPoint::kWorkerCommitTaken, commit.key().window());
  if (!held_seal_) return absl::OkStatus();
  const v1::Seal seal = *std::exchange(held_seal_, std::nullopt);
  return OnSeal(seal);  // a Plan may have come since
}

// The guard has stopped what was on the way, and its failure was answered; a seal that still waits is answered here.
void WindowRunner::OnAbort(const v1::Abort& abort) {
  PassFaultPoint(FaultPoint::kWorkerAbortTaken, abort.key().window());
  if (!held_seal_ || held_seal_->key().window() != abort.key().window() ||
      held_seal_->key().attempt() != abort.key().attempt() || held_seal_->key().epoch() > abort.key().epoch()) {
    return;
  }
  const v1::Seal seal = *std::exchange(held_seal_, std::nullopt);
  SendReduceFailed(seal.key(), absl::AbortedError(abort.reason()), seal.members());
}

void WindowRunner::OnStateSync(const v1::StateSync& sync) {
  if (Refuse("state sync", sync.key())) return;
  reporter_.Flush();
  const bool receives = sync.source() != sync.key().incarnation();
  if (receives) {
    StopSending();
    shares_.clear();
    held_seal_.reset();
    awaits_commit_ = false;
    job_.holds_state = false;
    memory_.Forget();
  }
  absl::Status status = FaultStatus(FaultPoint::kWorkerSyncBegun, sync.key().window());
  if (status.ok()) status = reducer_.SyncState(sync, job_);
  if (!status.ok()) {
    SendReduceFailed(sync.key(), status, sync.members());
    return;
  }
  job_.holds_state = true;
  PassFaultPoint(FaultPoint::kWorkerSynced, sync.key().window());
  v1::WorkerMessage message;
  *message.mutable_state_synced()->mutable_key() = sync.key();
  message.mutable_state_synced()->set_digest(job_.state->Digest().Hex());
  context_.link.Send(std::move(message));
}

void WindowRunner::OnCheckpointNow(const v1::CheckpointNow& order) {
  if (Refuse("checkpoint order", order.key())) return;
  context_.checkpoints.Write(order.key(), order.checkpoint(), *job_.state);
}

bool WindowRunner::Refuse(const char* what, const v1::Key& key) {
  const absl::Status status = CheckCurrent(OwnKey(), key);
  if (status.ok()) return false;
  LogWarning("a message is refused", {{"message", what}, {"reason", status}});
  return true;
}

v1::Key WindowRunner::OwnKey() const {
  v1::Key key = assigned_;
  key.set_window(job_.state->window());
  return key;
}

void WindowRunner::SendLoaded() {
  v1::WorkerMessage message;
  v1::JobLoaded& loaded = *message.mutable_job_loaded();
  *loaded.mutable_key() = OwnKey();
  if (job_.holds_state) {
    loaded.set_digest(job_.state->Digest().Hex());
    loaded.set_parameter_hash(ParameterHash());
  }
  for (const TensorInfo& tensor : job_.engine->layout().tensors()) {
    loaded.add_tensors(tensor.name);
    loaded.add_tensor_elements(tensor.elements);
  }
  loaded.set_buckets(static_cast<int64_t>(job_.engine->layout().buckets().size()));
  const std::vector<int>& exponents = job_.state->exponents();
  loaded.mutable_exponents()->Assign(exponents.begin(), exponents.end());
  context_.link.Send(std::move(message));
}

void WindowRunner::SendReduceFailed(const v1::Key& key, const absl::Status& status,
                                    const google::protobuf::RepeatedField<int64_t>& members) {
  LogWarning("a collective operation failed", {{"key", KeyToString(key)}, {"reason", status}});
  v1::WorkerMessage message;
  v1::ReduceFailed& failed = *message.mutable_reduce_failed();
  *failed.mutable_key() = key;
  failed.set_reason(std::string(status.message()));
  for (int rank : UnreachableRanks(status)) {
    if (rank < members.size()) failed.add_unreachable_incarnations(members[rank]);
  }
  failed.set_final_buckets(FinalBuckets(key));
  context_.link.Send(std::move(message));
  PassFaultPoint(FaultPoint::kWorkerReduceFailedSent, key.window());
}

int64_t WindowRunner::FinalBuckets(const v1::Key& key) {
  const WindowShare* share = CurrentShare();
  const bool is_here = share != nullptr && share->begun && share->key.window() == key.window() &&
                       share->key.attempt() == key.attempt();
  return is_here ? job_.accumulator->final_buckets() : 0;
}

std::string WindowRunner::ParameterHash() { return job_.state->HeldParameterHash(job_.engine->ComputeCopy()).Hex(); }

RunEnd WindowRunner::Fail(const absl::Status& status) {
  context_.link.Send(JobFailedMessage(OwnKey(), status));
  return {.kind = RunEnd::Kind::kFailed,
          .reason = std::string(status.message()),
          .rejoin = absl::IsDataLoss(status)};
}

v1::WorkerMessage JobFailedMessage(const v1::Key& key, const absl::Status& status) {
  LogError("the job cannot go on here", {{"job", key.job_id()}, {"reason", status}});
  v1::WorkerMessage message;
  v1::JobFailed& failed = *message.mutable_job_failed();
  *failed.mutable_key() = key;
  failed.set_status(absl::StatusCodeToString(status.code()));
  failed.set_reason(std::string(status.message()));
  failed.set_fatal_for_job(absl::IsInvalidArgument(status));
  return message;
}

}  // namespace accrue
