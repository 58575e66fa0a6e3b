#include "worker/core/state_receiver.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fault_points.h"
#include "common/status.h"

namespace accrue {

StateReceiver::StateReceiver(std::unique_ptr<Communicator> communicator, CollectiveGuard& guard,
                             const v1::CopyState& order, Job& job, BeforeWait before_wait, OnLevel on_level)
    : communicator_(std::move(communicator)),
      guard_(guard),
      order_(order),
      job_(job),
      before_wait_(std::move(before_wait)),
      on_level_(std::move(on_level)),
      runs_(StateRunsOf(job.engine->layout())) {}

absl::Status StateReceiver::Receive() {
  ACCRUE_RETURN_IF_ERROR(Guarded([this] { return communicator_->Meet(); }));
  values_.resize(static_cast<size_t>(FloatsOf({0, 0, LongestRun(runs_)}, *job_.state)));
  host_sums_.resize(static_cast<size_t>(LongestRun(runs_)));
  ACCRUE_ASSIGN_OR_RETURN(sums_, job_.backend->Allocate(host_sums_.size() * sizeof(int64_t)));
  ACCRUE_RETURN_IF_ERROR(TakeBegin());
  while (true) ACCRUE_RETURN_IF_ERROR(TakeNext());
}

absl::Status StateReceiver::TakeBegin() {
  CopyHeader header;
  ACCRUE_RETURN_IF_ERROR(Take(&header, sizeof(header)));
  int64_t floats = 0;
  for (const StateRun& run : runs_) floats += FloatsOf(run, *job_.state);
  if (header.kind != CopyHeader::kBegin || header.format != CopyHeader::kFormat ||
      header.runs != static_cast<int64_t>(runs_.size()) || header.floats != floats) {
    return absl::InvalidArgumentError(absl::StrCat("the source's state, of format ", header.format, ", has ", header.runs,
                                                   " runs of ", header.floats, " values; here, of format ",
                                                   CopyHeader::kFormat, ", are ", runs_.size(), " of ", floats));
  }
  return TakeProgress(header);
}

absl::Status StateReceiver::TakeNext() {
  CopyHeader header;
  ACCRUE_RETURN_IF_ERROR(Take(&header, sizeof(header)));
  switch (header.kind) {
    case CopyHeader::kNothing:
      return absl::OkStatus();
    case CopyHeader::kRun:
      ACCRUE_RETURN_IF_ERROR(CheckWindow(header, window_));
      return TakeRun();
    case CopyHeader::kStep:
    case CopyHeader::kSkip:
      ACCRUE_RETURN_IF_ERROR(CheckWindow(header, window_ + 1));
      level_ = false;
      ACCRUE_RETURN_IF_ERROR(TakeProgress(header));
      if (header.kind == CopyHeader::kStep) ACCRUE_RETURN_IF_ERROR(TakeStep(header));
      return whole() ? Level(&header.digest) : absl::OkStatus();
    default:
      return absl::InvalidArgumentError(absl::StrCat("the source sent something of kind ", header.kind));
  }
}

absl::Status StateReceiver::CheckWindow(const CopyHeader& header, int64_t expected) const {
  if (header.window == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the source sent something of the state after ", header.window,
                                                 " windows; what is held here is after ", window_, ", expected ",
                                                 expected));
}

absl::Status StateReceiver::TakeRun() {
  if (whole()) return absl::InvalidArgumentError(absl::StrCat("the source sent more than ", runs_.size(), " runs"));
  const StateRun& run = runs_[received_];
  ACCRUE_RETURN_IF_ERROR(Take(values_.data(), static_cast<size_t>(FloatsOf(run, *job_.state)) * sizeof(float)));
  job_.state->WriteRun(run, values_.data());
  ++received_;
  ACCRUE_RETURN_IF_ERROR(FaultStatus(FaultPoint::kWorkerCopyRunReceived, window_));
  return whole() ? Level(nullptr) : absl::OkStatus();  // the coordinator knows the digest
}

absl::Status StateReceiver::TakeStep(const CopyHeader& header) {
  const int64_t tensors = static_cast<int64_t>(job_.engine->layout().tensors().size());
  std::vector<int> exponents;
  ACCRUE_RETURN_IF_ERROR(TakeExponents(tensors, exponents));
  const StepInput input{.learning_rate = header.learning_rate,
                        .bias_correction1 = header.bias_correction1,
                        .bias_correction2 = header.bias_correction2,
                        .valid_tokens = header.valid_tokens,
                        .next_exponents = {},
                        .next_loss_scale = {}};
  for (size_t i = 0; i < received_; ++i) {
    const StateRun& run = runs_[i];
    const size_t size_bytes = static_cast<size_t>(run.elements) * sizeof(int64_t);
    ACCRUE_RETURN_IF_ERROR(Take(host_sums_.data(), size_bytes));
    job_.backend->CopyToDevice(sums_->data(), host_sums_.data(), size_bytes);
    job_.state->StepRun(run, sums_->as<int64_t>(), exponents[run.tensor], header.clip_coefficient, input);
  }
  return FaultStatus(FaultPoint::kWorkerCopyStepped, header.window);
}

absl::Status StateReceiver::TakeProgress(const CopyHeader& header) {
  const auto tensors = static_cast<int64_t>(job_.engine->layout().tensors().size());
  if (header.exponents != 0 && header.exponents != tensors) {
    return absl::InvalidArgumentError(
        absl::StrCat("the source has ", header.exponents, " exponents; here are ", tensors, " tensors"));
  }
  window_ = header.window;
  steps_ = header.steps;
  loss_scale_ = Unpack(header.loss_scale);
  return TakeExponents(header.exponents, exponents_);
}

absl::Status StateReceiver::Level(const Hash128* expected) {
  job_.state->SetProgress(window_, steps_, exponents_);
  job_.state->SetLossScale(loss_scale_);
  const Hash128 digest = job_.state->Digest();
  if (expected != nullptr && digest != *expected) {
    return absl::DataLossError(absl::StrCat("after window ", window_ - 1, " the copied state has digest ", digest.Hex(),
                                            "; the source's has ", expected->Hex()));
  }
  job_.engine->ParametersChanged();
  level_ = true;
  PassFaultPoint(FaultPoint::kWorkerCopied, window_);
  on_level_(window_, digest.Hex());
  return absl::OkStatus();
}

absl::Status StateReceiver::Guarded(const std::function<absl::Status()>& operation) {
  ACCRUE_RETURN_IF_ERROR(before_wait_());
  ACCRUE_RETURN_IF_ERROR(
      guard_.Enter(CollectiveGuard::Kind::kStateCopy, order_.key(), order_.communicator(), *communicator_));
  const absl::Status status = operation();
  guard_.Leave();
  return status;
}

absl::Status StateReceiver::Take(void* data, size_t size_bytes) {
  return Guarded([&] { return communicator_->Broadcast(data, size_bytes, 0); });
}

absl::Status StateReceiver::TakeExponents(int64_t count, std::vector<int>& exponents) {
  exponents.resize(static_cast<size_t>(count));
  return count == 0 ? absl::OkStatus() : Take(exponents.data(), exponents.size() * sizeof(int));
}

}  // namespace accrue
