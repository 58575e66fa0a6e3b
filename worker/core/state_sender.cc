#include "worker/core/state_sender.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/fault_points.h"
#include "common/status.h"

namespace accrue {

StateSender::StateSender(std::unique_ptr<Communicator> communicator, Job& job, int64_t idle_ms, OnBroken on_broken)
    : communicator_(std::move(communicator)),
      job_(job),
      idle_ms_(idle_ms),
      on_broken_(std::move(on_broken)),
      runs_(StateRunsOf(job.engine->layout())),
      thread_([this] { Run(); }) {}

StateSender::~StateSender() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  communicator_->Abort();
  thread_.join();
}

StepOutcome StateSender::Step(const StepInput& input, const std::function<StepOutcome()>& step) {
  absl::MutexLock lock(&mutex_);
  const StepOutcome outcome = step();
  if (!following_) return outcome;
  if (spares_.empty()) {
    behind_ = true;
    following_ = false;
    return outcome;
  }
  Followed followed;
  followed.header = HeaderOf(CopyHeader::kStep);
  followed.header.clip_coefficient = outcome.clip_coefficient;
  followed.header.learning_rate = input.learning_rate;
  followed.header.bias_correction1 = input.bias_correction1;
  followed.header.bias_correction2 = input.bias_correction2;
  followed.header.valid_tokens = input.valid_tokens;
  followed.header.digest = outcome.digest;
  followed.exponents = job_.accumulator->exponents();
  followed.next_exponents = job_.state->exponents();
  followed.sums = job_.accumulator->TakeSums(std::move(spares_.back()));
  spares_.pop_back();
  followed_.push_back(std::move(followed));
  return outcome;
}

StepOutcome StateSender::Skip(const std::function<StepOutcome()>& skip) {
  absl::MutexLock lock(&mutex_);
  const StepOutcome outcome = skip();
  if (!following_) return outcome;
  Followed followed;
  followed.header = HeaderOf(CopyHeader::kSkip);
  followed.header.digest = outcome.digest;
  followed.next_exponents = job_.state->exponents();
  followed_.push_back(std::move(followed));
  return outcome;
}

void StateSender::Hold(int64_t window) {
  absl::MutexLock lock(&mutex_);
  held_ = window;
}

void StateSender::GoOn(int64_t window) {
  absl::MutexLock lock(&mutex_);
  if (held_ && *held_ <= window) held_.reset();
}

CopyHeader StateSender::HeaderOf(CopyHeader::Kind kind) const {
  CopyHeader header;
  header.kind = kind;
  header.window = job_.state->window();
  header.steps = job_.state->steps();
  header.exponents = static_cast<int64_t>(job_.state->exponents().size());
  header.loss_scale = Pack(job_.state->loss_scale());
  return header;
}

void StateSender::Run() {
  const absl::Status status = Copy();
  bool stopped = false;
  {
    absl::MutexLock lock(&mutex_);
    following_ = false;
    stopped = stopping_;
    followed_.clear();
    spares_.clear();
  }
  if (!stopped) on_broken_(status);
}

// Until it breaks, or is stopped.
absl::Status StateSender::Copy() {
  ACCRUE_RETURN_IF_ERROR(communicator_->Meet());
  const size_t sums_bytes = static_cast<size_t>(job_.engine->layout().arena_elements()) * sizeof(int64_t);
  for (int i = 0; i < kSpareAccumulators; ++i) {
    ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<DeviceBuffer> spare, job_.backend->Allocate(sums_bytes));
    job_.backend->Zero(spare->data(), sums_bytes);  // so that its pages are there when the compute thread comes
    absl::MutexLock lock(&mutex_);
    spares_.push_back(std::move(spare));
  }
  values_.resize(static_cast<size_t>(FloatsOf({0, 0, LongestRun(runs_)}, *job_.state)));
  sums_.resize(static_cast<size_t>(LongestRun(runs_)));
  ACCRUE_RETURN_IF_ERROR(SendBegin());
  while (true) ACCRUE_RETURN_IF_ERROR(SendNext());
}

absl::Status StateSender::SendBegin() {
  CopyHeader header;
  std::vector<int> exponents;
  {
    absl::MutexLock lock(&mutex_);
    header = HeaderOf(CopyHeader::kBegin);
    exponents = job_.state->exponents();
    following_ = true;
  }
  header.runs = static_cast<int64_t>(runs_.size());
  for (const StateRun& run : runs_) header.floats += FloatsOf(run, *job_.state);
  ACCRUE_RETURN_IF_ERROR(Send(&header, sizeof(header)));
  return SendExponents(exponents);
}

// A window that ended goes first: so a run that is read is of the window that the receiver was told last.
absl::Status StateSender::SendNext() {
  Followed followed;
  CopyHeader header;
  size_t size_bytes = 0;
  {
    absl::MutexLock lock(&mutex_);
    auto has_something = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return !held_ && (!followed_.empty() || next_run_ < runs_.size());
    };
    auto has_work = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || behind_ || has_something(); };
    mutex_.AwaitWithTimeout(absl::Condition(&has_work), absl::Milliseconds(idle_ms_));
    if (stopping_) return absl::CancelledError("the copy has ended");
    if (behind_) {
      return absl::ResourceExhaustedError(absl::StrCat("the sums of ", kSpareAccumulators, " windows wait to be sent after ",
                                                       next_run_, " of ", runs_.size(),
                                                       " runs of the state: windows end faster than that"));
    }
    if (has_something() && !followed_.empty()) {
      followed = std::move(followed_.front());
      followed_.pop_front();
    } else if (has_something()) {
      job_.state->ReadRun(runs_[next_run_], values_.data());
      size_bytes = static_cast<size_t>(FloatsOf(runs_[next_run_], *job_.state)) * sizeof(float);
      header = HeaderOf(CopyHeader::kRun);
    }
  }
  if (followed.header.kind != CopyHeader::kNothing) return SendFollowed(followed);
  ACCRUE_RETURN_IF_ERROR(Send(&header, sizeof(header)));
  if (header.kind == CopyHeader::kNothing) return absl::OkStatus();
  ACCRUE_RETURN_IF_ERROR(Send(values_.data(), size_bytes));
  ++next_run_;
  return FaultStatus(FaultPoint::kWorkerCopyRunSent, header.window);
}

absl::Status StateSender::SendFollowed(Followed& followed) {
  ACCRUE_RETURN_IF_ERROR(Send(&followed.header, sizeof(followed.header)));
  ACCRUE_RETURN_IF_ERROR(SendExponents(followed.next_exponents));
  if (followed.sums == nullptr) return absl::OkStatus();
  ACCRUE_RETURN_IF_ERROR(SendExponents(followed.exponents));
  for (size_t i = 0; i < next_run_; ++i) {
    const StateRun& run = runs_[i];
    const int64_t place = job_.engine->layout().tensors()[run.tensor].arena_offset + run.first;
    const size_t size_bytes = static_cast<size_t>(run.elements) * sizeof(int64_t);
    job_.backend->CopyToHost(sums_.data(), followed.sums->as<int64_t>() + place, size_bytes);
    ACCRUE_RETURN_IF_ERROR(Send(sums_.data(), size_bytes));
  }
  ACCRUE_RETURN_IF_ERROR(FaultStatus(FaultPoint::kWorkerCopyStepSent, followed.header.window));
  absl::MutexLock lock(&mutex_);
  spares_.push_back(std::move(followed.sums));
  return absl::OkStatus();
}

absl::Status StateSender::SendExponents(std::vector<int>& exponents) {
  return exponents.empty() ? absl::OkStatus() : Send(exponents.data(), exponents.size() * sizeof(int));
}

}  // namespace accrue
