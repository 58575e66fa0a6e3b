#include "common/watchdog.h"

#include <algorithm>
#include <utility>

namespace accrue {
namespace {

constexpr int kLooks = 5;  // within a limit
constexpr absl::Duration kLongestLook = absl::Seconds(1);

}  // namespace

Watchdog::Watchdog(End end) : end_(std::move(end)), thread_([this] { Run(); }) {}

Watchdog::~Watchdog() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  thread_.join();
}

void Watchdog::Expect(absl::Duration limit, absl::string_view what) {
  absl::MutexLock lock(&mutex_);
  expecting_ = true;
  limit_ = limit;
  what_.assign(what.data(), what.size());
  ++heard_;
}

void Watchdog::Rest() {
  absl::MutexLock lock(&mutex_);
  expecting_ = false;
  ++heard_;
}

void Watchdog::Run() {
  absl::MutexLock lock(&mutex_);
  int64_t heard = -1;
  absl::Duration silent;
  auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return ending_ || expecting_; };
  while (true) {
    mutex_.Await(absl::Condition(&has_work));
    if (heard_ != heard) {
      heard = heard_;
      silent = absl::ZeroDuration();
    }
    const absl::Duration look = std::min(limit_ / kLooks, kLongestLook);
    if (mutex_.AwaitWithTimeout(absl::Condition(&ending_), look)) return;
    if (!expecting_ || heard_ != heard) continue;
    silent += look;
    if (silent < limit_) continue;
    const std::string what = what_;
    expecting_ = false;
    mutex_.Unlock();
    end_(what);
    mutex_.Lock();
  }
}

}  // namespace accrue
