// Follows a job to its end: a thread that reads Watch and, when the connection breaks, asks again from the
// window after the last one seen, for as long as it takes. A follow never ends in silence.
//
// Thread-safe for one consumer. The client must outlive it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "accrue/v1/client.pb.h"
#include "client/job_client.h"

namespace accrue {

struct FollowEvent {
  enum class Kind {
    kUpdate,
    kLost,   // the connection broke; it is tried again
    kBack,   // and works again
    kEnded,  // status OK: the job has ended; else why following it is impossible
  };
  Kind kind = Kind::kUpdate;
  v1::WatchResponse update;
  absl::Status status;
  int64_t next_window = 0;  // of kLost and kBack: where it goes on
};

class Follower {
 public:
  Follower(JobClient& client, std::string job, int64_t first_window);
  ~Follower();
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;

  // False when nothing came within the time. After kEnded nothing more comes.
  bool Next(FollowEvent& event, int64_t timeout_ms);

 private:
  void Run();
  // One stream, from next_window_. Returns its end; sets ended_ once the job's end was seen.
  absl::Status ReadOneStream();
  void Push(FollowEvent event);
  // False when the follower is being destroyed.
  bool Pause(int64_t duration_ms);

  JobClient& client_;
  // Of the thread.
  std::string job_;  // an id, once it is known: a newer job may take the name meanwhile
  int64_t next_window_;
  bool ended_ = false, connected_ = false, lost_ = false;

  absl::Mutex mutex_;
  std::deque<FollowEvent> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<ResponseStream<v1::WatchResponse>> stream_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace accrue
