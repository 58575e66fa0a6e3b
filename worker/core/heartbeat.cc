#include "worker/core/heartbeat.h"

#include <utility>

#include "worker/core/resident_memory.h"

namespace accrue {

Heartbeat::Heartbeat(CoordinatorLink& link, int64_t interval_ms)
    : link_(link), interval_ms_(interval_ms), thread_([this] { Run(); }) {}

Heartbeat::~Heartbeat() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void Heartbeat::Run() {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::Milliseconds(interval_ms_))) {
    v1::WorkerMessage message;
    message.mutable_heartbeat()->set_memory_bytes(ResidentMemoryBytes());
    link_.Send(std::move(message));
  }
}

}  // namespace accrue
