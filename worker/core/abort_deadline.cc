#include "worker/core/abort_deadline.h"

#include <utility>

namespace accrue {

AbortDeadlineTimer::AbortDeadlineTimer(absl::Duration deadline, std::function<void(const std::string& what)> end)
    : deadline_(deadline), end_(std::move(end)), thread_([this] { Run(); }) {}

AbortDeadlineTimer::~AbortDeadlineTimer() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  thread_.join();
}

void AbortDeadlineTimer::Start(const std::string& what) {
  absl::MutexLock lock(&mutex_);
  if (counted_) return;
  counted_ = what;
  ++count_;
}

void AbortDeadlineTimer::Stop() {
  absl::MutexLock lock(&mutex_);
  counted_.reset();
}

void AbortDeadlineTimer::Run() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return ending_ || counted_.has_value(); };
    mutex_.Await(absl::Condition(&has_work));
    if (ending_) return;
    const int64_t count = count_;
    auto is_over = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return ending_ || !counted_ || count_ != count; };
    if (mutex_.AwaitWithTimeout(absl::Condition(&is_over), deadline_)) continue;
    const std::string what = *std::exchange(counted_, std::nullopt);
    mutex_.Unlock();
    end_(what);
    mutex_.Lock();
  }
}

}  // namespace accrue
