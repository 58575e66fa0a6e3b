// A worker's connection with its coordinator over all of its streams: opens one, says Hello, gives signs of life, and
// opens another when it is lost, so that what a worker holds outlives its coordinator.
//
// An incarnation goes on from stream to stream while the worker holds a job and the coordinator resumes it
// (Welcome.resumed); else a new one begins. What comes goes to the inbox; Joined, LinkLost and LifeOver stand there where
// they happened. docs/recovery.md, "The coordinator dies".
//
// Invariants:
//  1. There is one stream at a time. The one before is over, and nothing more comes of it, before the next is opened;
//     what it had left in the inbox is gone when the next one is up.
//  2. What is sent reaches the coordinator's term and the incarnation that its key names, or nobody.
//
// Thread-safe. The link factory, inbox and clock must outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "accrue/v1/worker.pb.h"
#include "common/clock.h"
#include "worker/core/abort_deadline.h"
#include "worker/core/collective_guard.h"
#include "worker/core/inbox.h"
#include "worker/core/link.h"
#include "worker/core/preparer.h"

namespace accrue {

struct SessionOptions {
  v1::Hello hello;  // incarnation 0
  int64_t welcome_timeout_ms = 10'000;
  int64_t first_pause_ms = 100;  // before a stream is opened again; doubles up to the longest
  int64_t longest_pause_ms = 500;
  // How long what a worker holds is kept for a coordinator that is away. Then it is given up.
  int64_t keep_ms = 3'600'000;
};

class Session : public CoordinatorLink, private LinkReceiver {
 public:
  // abort_deadline is for the guards of all incarnations; preparer gets every Prepare. Both must outlive it
  // too, and may be null.
  Session(const SessionOptions& options, LinkFactory& links, Inbox& inbox, const Clock& clock,
          AbortDeadline* abort_deadline = nullptr, Preparer* preparer = nullptr);
  ~Session() override;  // as Close

  // Once.
  void Start();

  // Dropped while there is no coordinator that has taken the worker up, and when the key names another term or
  // incarnation than are up.
  void Send(v1::WorkerMessage message) override;
  // Sends what is queued and ends the stream, in a bounded time; no other is opened.
  void Close() override;

  // Whether there is something to keep when a stream is lost.
  void HoldJob(bool holds);
  // Ends the stream and the incarnation; a new one begins.
  void Rejoin(const std::string& reason);

 private:
  enum class State {
    kDown,      // no stream
    kGreeting,  // Hello is sent
    kUp,        // Welcome has come
  };

  // ---- of the session's thread ----
  void Run();
  void LiveThroughStream();  // opens one and returns when it is over
  bool PauseUnlessStopped(int64_t pause_ms);

  // ---- LinkReceiver ----
  void OnMessage(v1::CoordinatorMessage message) override;
  void OnLost(const absl::Status& status) override;

  void OnAnswer(const v1::CoordinatorMessage& answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnWelcome(const v1::Welcome& welcome) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndLife(const std::string& reason, bool for_good) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndStream(const std::string& reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool StreamIsOver() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || over_.has_value(); }

  const SessionOptions options_;
  LinkFactory& links_;
  Inbox& inbox_;
  const Clock& clock_;
  AbortDeadline* const abort_deadline_;
  Preparer* const preparer_;

  absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kDown;
  std::unique_ptr<CoordinatorLink> link_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::string> over_ ABSL_GUARDED_BY(mutex_);  // why the stream is over
  int64_t term_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t incarnation_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: none
  int64_t heartbeat_interval_ms_ ABSL_GUARDED_BY(mutex_) = 0;
  bool holds_job_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t down_since_ns_ ABSL_GUARDED_BY(mutex_) = 0;  // when the last stream that was up was lost
  bool refused_for_good_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = true;  // the thread uses nothing any more; or was never started
  std::shared_ptr<CollectiveGuard> guard_ ABSL_GUARDED_BY(mutex_);  // of the incarnation; null before the first
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace accrue
