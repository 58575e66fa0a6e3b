// Asks the coordinator for a job's newest checkpoint every two seconds, for the live view. The questions are asked on a
// thread of their own, so that the view goes on while nobody answers, and says for how long nobody has.
//
// MaybePoll belongs to one thread. The client must outlive the poller, whose destructor cancels the client's calls.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "accrue/v1/client.pb.h"
#include "client/job_client.h"
#include "client/presenter.h"
#include "common/clock.h"

namespace accrue {

class CheckpointPoller {
 public:
  CheckpointPoller() = default;
  ~CheckpointPoller();
  CheckpointPoller(const CheckpointPoller&) = delete;
  CheckpointPoller& operator=(const CheckpointPoller&) = delete;

  // Never blocks. Shows what has been answered, and asks again when it is time. Only for a live view.
  void MaybePoll(const Clock& clock, JobClient& client, const std::string& job, Presenter& presenter);

 private:
  void Run(JobClient& client, const std::string& job);

  // Of MaybePoll's thread.
  int64_t next_ns_ = 0;
  int64_t unanswered_since_ns_ = 0;  // 0: nothing is

  JobClient* client_ = nullptr;
  absl::Mutex mutex_;
  bool asking_ ABSL_GUARDED_BY(mutex_) = false;
  bool answered_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<v1::CheckpointInfo> newest_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace accrue
