#include "worker/core/preparer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "common/status.h"

namespace accrue {

void Preparer::Prepare(const v1::Prepare& order) {
  std::unique_ptr<Communicator> former;
  absl::MutexLock lock(&mutex_);
  if (stopped_) return;
  former = GiveUpLocked();
  order_ = order;
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
}

std::unique_ptr<Communicator> Preparer::Take(const std::string& name, int rank, int size) {
  absl::MutexLock lock(&mutex_);
  if (formed_ == nullptr || name_ != name || formed_->rank() != rank || formed_->size() != size)
    return nullptr;
  name_.clear();
  return std::move(formed_);
}

void Preparer::GiveUp() {
  std::unique_ptr<Communicator> former;
  absl::MutexLock lock(&mutex_);
  former = GiveUpLocked();
}

void Preparer::Stop() {
  std::unique_ptr<Communicator> former;
  std::thread thread;
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    former = GiveUpLocked();
    thread = std::move(thread_);
  }
  if (!thread.joinable()) return;
  if (abort_deadline_ != nullptr) abort_deadline_->Start("the forming of a communicator beside the work");
  thread.join();
  if (abort_deadline_ != nullptr) abort_deadline_->Stop();
}

std::unique_ptr<Communicator> Preparer::GiveUpLocked() {
  order_.reset();
  name_.clear();
  if (meeting_ != nullptr) meeting_->Abort();
  return std::move(formed_);
}

void Preparer::Run() {
  auto called = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopped_ || order_.has_value(); };
  while (true) {
    v1::Prepare order;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&called));
      if (stopped_) return;
      order = *std::exchange(order_, std::nullopt);
      name_ = order.communicator();
    }
    absl::StatusOr<std::unique_ptr<Communicator>> communicator = Form(order);
    v1::WorkerMessage message;
    v1::Prepared& prepared = *message.mutable_prepared();
    *prepared.mutable_key() = order.key();
    prepared.set_communicator(order.communicator());
    if (!communicator.ok()) prepared.set_error(std::string(communicator.status().message()));
    std::unique_ptr<Communicator> unwanted;  // is destroyed without the lock
    {
      absl::MutexLock lock(&mutex_);
      if (name_ != order.communicator()) {
        if (communicator.ok()) unwanted = *std::move(communicator);
        continue;
      }
      if (communicator.ok()) {
        formed_ = *std::move(communicator);
      } else {
        name_.clear();
      }
    }
    PassFaultPoint(FaultPoint::kWorkerPrepared, order.key().window());
    answer_(std::move(message));
  }
}

absl::StatusOr<std::unique_ptr<Communicator>> Preparer::Form(const v1::Prepare& order) {
  ACCRUE_RETURN_IF_ERROR(FaultStatus(FaultPoint::kWorkerPreparing, order.key().window()));
  const auto found = std::find(order.members().begin(), order.members().end(), order.key().incarnation());
  if (found == order.members().end()) {
    return absl::InvalidArgumentError(absl::StrCat("incarnation ", order.key().incarnation(),
                                                   " is not among the ", order.members_size(),
                                                   " members of the communicator"));
  }
  ACCRUE_ASSIGN_OR_RETURN(
      std::unique_ptr<Communicator> communicator,
      collectives_.CreateAhead(order.communicator(), static_cast<int>(found - order.members().begin()),
                               order.members_size(), deadline_ms_));
  {
    absl::MutexLock lock(&mutex_);
    if (name_ != order.communicator()) return absl::AbortedError("given up");
    meeting_ = communicator.get();
  }
  const absl::Status status = communicator->Meet();
  {
    absl::MutexLock lock(&mutex_);
    meeting_ = nullptr;
  }
  if (status.ok()) return communicator;
  LogInfo("no communicator is formed beside the work",
          {{"communicator", order.communicator()}, {"reason", status}});
  return status;
}

}  // namespace accrue
