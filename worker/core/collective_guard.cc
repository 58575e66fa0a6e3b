#include "worker/core/collective_guard.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "worker/core/keys.h"

namespace accrue {

void CollectiveGuard::Observe(const v1::CoordinatorMessage& message) {
  absl::MutexLock lock(&mutex_);
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kAbort:
      abort_ = message.abort();
      break;
    case v1::CoordinatorMessage::kStateSync:
      newest_sync_ = message.state_sync().communicator();
      break;
    case v1::CoordinatorMessage::kCopyState:
      if (message.copy_state().end()) ended_copy_ = message.copy_state().communicator();
      // What this worker sends has a thread of its own.
      if (message.copy_state().receiver() != message.copy_state().key().incarnation()) return;
      newest_copy_ = message.copy_state().end() ? "" : message.copy_state().communicator();
      break;
    case v1::CoordinatorMessage::kCommit:
      if (commit_watcher_) commit_watcher_(message.commit().key().window());
      return;
    case v1::CoordinatorMessage::kRelease:
      released_ = assigned_;
      break;
    case v1::CoordinatorMessage::kAssignJob:
      ++assigned_;
      break;
    default:
      return;
  }
  StopIfOff();
}

void CollectiveGuard::StopAll(const std::string& reason) {
  absl::MutexLock lock(&mutex_);
  stopped_ = reason;
  StopIfOff();
}

// An abort stays: what comes from now on is of newer epochs.
void CollectiveGuard::ForgetUnseen() {
  absl::MutexLock lock(&mutex_);
  assigned_ = current_;
  released_ = std::min(released_, current_ - 1);
  newest_copy_.clear();
  StopIfOff();
}

void CollectiveGuard::BeginJob() {
  absl::MutexLock lock(&mutex_);
  ++current_;
  assigned_ = std::max(assigned_, current_);  // the assignment may have been forgotten just before
}

absl::Status CollectiveGuard::Enter(Kind kind, const v1::Key& key, const std::string& name,
                                    Communicator& communicator) {
  absl::MutexLock lock(&mutex_);
  ACCRUE_CHECK(!active_);
  Operation operation{kind, key, name, &communicator};
  if (std::string reason = WhyOff(operation); !reason.empty()) return absl::AbortedError(reason);
  active_ = std::move(operation);
  return absl::OkStatus();
}

void CollectiveGuard::Leave() {
  absl::MutexLock lock(&mutex_);
  active_.reset();
  if (deadline_ != nullptr) deadline_->Stop();
}

void CollectiveGuard::WatchCommits(std::function<void(int64_t window)> watcher) {
  absl::MutexLock lock(&mutex_);
  commit_watcher_ = std::move(watcher);
}

void CollectiveGuard::Finish(const std::string& what, const std::function<void()>& ending) {
  if (deadline_ != nullptr) deadline_->Start(what);
  ending();
  if (deadline_ != nullptr) deadline_->Stop();
}

bool CollectiveGuard::CopyHasEnded(const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  return ended_copy_ == name;
}

std::string CollectiveGuard::WhyOff(const Operation& operation) const {
  if (!stopped_.empty()) return stopped_;
  if (released_ >= current_ || assigned_ > current_) return "the worker is released from the job";
  if (operation.kind == Kind::kStateSync && newest_sync_ != operation.name) {
    return absl::StrCat("state sync \"", operation.name, "\" is replaced by \"", newest_sync_, "\"");
  }
  if (operation.kind == Kind::kStateCopy) {
    return newest_copy_ == operation.name ? "" : absl::StrCat("the copy \"", operation.name, "\" has ended");
  }
  if (abort_ && abort_->key().job_id() == operation.key.job_id() &&
      abort_->key().timeline() == operation.key.timeline() && abort_->key().epoch() >= operation.key.epoch()) {
    // An attempt is sealed once more after a failed reduce, but in a newer epoch.
    const bool is_it = operation.kind == Kind::kStateSync || (abort_->key().window() == operation.key.window() &&
                                                              abort_->key().attempt() == operation.key.attempt());
    if (is_it) return absl::StrCat("aborted: ", abort_->reason());
  }
  return "";
}

void CollectiveGuard::StopIfOff() {
  if (!active_) return;
  const std::string reason = WhyOff(*active_);
  if (reason.empty()) return;
  if (deadline_ != nullptr) {
    deadline_->Start(absl::StrCat(active_->kind == Kind::kReduce      ? "the reduce of "
                                  : active_->kind == Kind::kStateSync ? "the state sync of "
                                                                      : "the state copy of ",
                                  KeyToString(active_->key), " in communicator \"", active_->name, "\" (", reason,
                                  ")"));
  }
  active_->communicator->Abort();
}

}  // namespace accrue
