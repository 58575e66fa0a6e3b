#include "client/follower.h"

#include <algorithm>
#include <utility>

#include "client/format.h"

namespace accrue {
namespace {

constexpr size_t kMaxQueued = 4096;
constexpr int64_t kFirstPauseMs = 100, kLongestPauseMs = 400;

}  // namespace

Follower::Follower(JobClient& client, std::string job, int64_t first_window)
    : client_(client), job_(std::move(job)), next_window_(first_window), thread_([this] { Run(); }) {}

Follower::~Follower() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    if (stream_ != nullptr) stream_->Cancel();
  }
  thread_.join();
}

bool Follower::Next(FollowEvent& event, int64_t timeout_ms) {
  absl::MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !queue_.empty(); };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&ready), absl::Milliseconds(timeout_ms))) return false;
  event = std::move(queue_.front());
  queue_.pop_front();
  return true;
}

void Follower::Push(FollowEvent event) {
  absl::MutexLock lock(&mutex_);
  const auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || queue_.size() < kMaxQueued;
  };
  mutex_.Await(absl::Condition(&room));
  queue_.push_back(std::move(event));
}

bool Follower::Pause(int64_t duration_ms) {
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::Milliseconds(duration_ms));
  return !stopping_;
}

void Follower::Run() {
  int64_t pause_ms = kFirstPauseMs;
  while (true) {
    const int64_t before = next_window_;
    const absl::Status status = ReadOneStream();
    if (ended_) return Push({FollowEvent::Kind::kEnded, {}, absl::OkStatus(), next_window_});
    // A coordinator that was never there is the caller's to know; one that went away is waited for.
    if (!connected_ || !MayPass(status)) return Push({FollowEvent::Kind::kEnded, {}, status, next_window_});
    if (!lost_) Push({FollowEvent::Kind::kLost, {}, status, next_window_});
    lost_ = true;
    if (next_window_ > before) pause_ms = kFirstPauseMs;
    if (!Pause(pause_ms)) return;
    pause_ms = std::min(2 * pause_ms, kLongestPauseMs);
    client_.AwaitConnection(kLongestPauseMs);
  }
}

absl::Status Follower::ReadOneStream() {
  ResponseStream<v1::WatchResponse>* stream = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return absl::CancelledError();
    stream_ = client_.Watch(job_, next_window_, /*only_past=*/false);
    stream = stream_.get();
  }
  v1::WatchResponse update;
  while (stream->Read(&update)) {
    if (lost_) Push({FollowEvent::Kind::kBack, {}, absl::OkStatus(), next_window_});
    connected_ = true;
    lost_ = false;
    if (update.has_window()) {
      if (update.window().window() < next_window_) continue;  // told before
      next_window_ = update.window().window() + 1;
    }
    if (update.has_status()) {
      ended_ = HasEnded(update.status().state());
      job_ = update.status().job_id();
    }
    Push({FollowEvent::Kind::kUpdate, std::move(update), absl::OkStatus(), next_window_});
    update.Clear();
  }
  const absl::Status status = stream->Finish();
  absl::MutexLock lock(&mutex_);
  stream_.reset();
  if (!status.ok()) {
    ended_ = false;  // what was still to come is lost
    return status;
  }
  return absl::UnavailableError("the coordinator ended the stream");
}

}  // namespace accrue
