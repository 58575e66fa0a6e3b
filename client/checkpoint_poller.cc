#include "client/checkpoint_poller.h"

#include <algorithm>

namespace accrue {
namespace {

constexpr int64_t kPollNs = 2'000'000'000;
constexpr int64_t kPatienceNs = 3'000'000'000;

// A connection that is refused is an answer: the watch itself says what that means.
bool IsAnswer(const absl::Status& status) {
  return status.code() != absl::StatusCode::kDeadlineExceeded && status.code() != absl::StatusCode::kCancelled;
}

}  // namespace

CheckpointPoller::~CheckpointPoller() {
  if (!thread_.joinable()) return;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  client_->CancelCalls();
  thread_.join();
}

void CheckpointPoller::MaybePoll(const Clock& clock, JobClient& client, const std::string& job, Presenter& presenter) {
  if (!presenter.live()) return;
  if (!thread_.joinable()) {
    client_ = &client;
    thread_ = std::thread([this, &client, job] { Run(client, job); });
  }
  const int64_t now_ns = clock.SteadyNowNs();
  absl::MutexLock lock(&mutex_);
  if (newest_.has_value()) presenter.SetLastCheckpoint(*newest_);
  newest_.reset();
  if (answered_) unanswered_since_ns_ = 0;
  answered_ = false;
  if (!asking_ && now_ns >= next_ns_) {
    asking_ = true;
    next_ns_ = now_ns + kPollNs;
    if (unanswered_since_ns_ == 0) unanswered_since_ns_ = now_ns;
  }
  const int64_t silent_ns = unanswered_since_ns_ == 0 ? 0 : now_ns - unanswered_since_ns_;
  presenter.SetSilence(silent_ns > kPatienceNs ? silent_ns / 1'000'000'000 : 0);
}

void CheckpointPoller::Run(JobClient& client, const std::string& job) {
  const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || asking_; };
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&has_work));
      if (stopping_) return;
    }
    const absl::StatusOr<v1::ListCheckpointsResponse> response = client.ListCheckpoints(job);
    absl::MutexLock lock(&mutex_);
    asking_ = false;
    answered_ = IsAnswer(response.status());
    if (!response.ok() || response->checkpoints().empty()) continue;
    const auto& checkpoints = response->checkpoints();
    newest_ = *std::max_element(checkpoints.begin(), checkpoints.end(),
                                [](const auto& a, const auto& b) { return a.window() < b.window(); });
  }
}

}  // namespace accrue
