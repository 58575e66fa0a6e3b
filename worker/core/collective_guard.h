// Lets the thread that receives messages stop the collective operation that the compute thread is in.
//
// Thread-safe. The compute thread brackets each use of a communicator, its meeting too, with Enter and Leave; between
// them the guard may call its Abort. An abort that arrives before its operation begins is remembered, so the operation
// never begins. From an Abort to the Leave that follows, the AbortDeadline counts.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "accrue/v1/worker.pb.h"
#include "worker/collective/collective.h"
#include "worker/core/abort_deadline.h"

namespace accrue {

class CollectiveGuard {
 public:
  enum class Kind { kReduce, kStateSync, kStateCopy };

  // deadline must outlive the guard; null: an abort that hangs is waited for.
  explicit CollectiveGuard(AbortDeadline* deadline = nullptr) : deadline_(deadline) {}

  // ---- of the receiving thread ----
  // Looks at every message on its way to the inbox: Abort stops the reduce that it names, and a state sync of its epoch
  // or an older one; a StateSync the one before it; a CopyState the copy before it, or, as an end, that copy; Release or a
  // further AssignJob everything of the job before.
  void Observe(const v1::CoordinatorMessage& message);
  // From now on, every operation is stopped: the incarnation is over. (A link that is lost stops nothing: the members go
  // on with each other.)
  void StopAll(const std::string& reason);
  // Another coordinator has come. The messages that were observed and that the compute thread has not seen will never
  // reach it, and it knows of no copy: one that is received is stopped.
  void ForgetUnseen();

  // ---- of the compute thread ----
  // What follows belongs to the next AssignJob.
  void BeginJob();
  // ABORTED if the operation of this key and communicator's name is called off already. Else the communicator is
  // aborted when that happens, until Leave.
  absl::Status Enter(Kind kind, const v1::Key& key, const std::string& name, Communicator& communicator);
  void Leave();
  // From now on `watcher` is called with the window of every Commit, by the receiving thread, however long the compute
  // thread is at a unit. Null: nobody is. When this returns, the former watcher is called no more.
  void WatchCommits(std::function<void(int64_t window)> watcher);
  // Between operations: runs `ending`, which ends something that runs on another thread, while the AbortDeadline counts.
  void Finish(const std::string& what, const std::function<void()>& ending);

  // ---- of any thread ----
  // Whether the coordinator has ended this copy, which is received or sent here.
  bool CopyHasEnded(const std::string& name) const;

 private:
  struct Operation {
    Kind kind = Kind::kReduce;
    v1::Key key;
    std::string name;
    Communicator* communicator = nullptr;
  };

  // Empty: goes on. Else why not.
  std::string WhyOff(const Operation& operation) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StopIfOff() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  AbortDeadline* const deadline_;
  mutable absl::Mutex mutex_;
  std::optional<Operation> active_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::Abort> abort_ ABSL_GUARDED_BY(mutex_);  // the newest
  std::function<void(int64_t)> commit_watcher_ ABSL_GUARDED_BY(mutex_);
  std::string newest_sync_ ABSL_GUARDED_BY(mutex_);         // its communicator's name
  std::string newest_copy_ ABSL_GUARDED_BY(mutex_);         // received here; empty: it has ended
  std::string ended_copy_ ABSL_GUARDED_BY(mutex_);          // the last, received or sent
  std::string stopped_ ABSL_GUARDED_BY(mutex_);             // why all is stopped; empty: it is not
  // Assignments are counted, since the receiving thread is ahead of the compute thread.
  int64_t assigned_ ABSL_GUARDED_BY(mutex_) = 0;  // seen by the receiving thread
  int64_t released_ ABSL_GUARDED_BY(mutex_) = 0;  // of these, up to which a Release has ended them
  int64_t current_ ABSL_GUARDED_BY(mutex_) = 0;   // which the compute thread is at
};

}  // namespace accrue
