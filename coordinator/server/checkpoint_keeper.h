// What takes long and must not hold up the event loop: finishing checkpoints, and copying the journal aside. One thread,
// one thing at a time, in order.
//
// Thread-safe. Its destructor finishes what is queued.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <condition_variable>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "accrue/v1/job.pb.h"
#include "common/file_system.h"
#include "common/checkpoint/manifest.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/events.h"
#include "coordinator/journal/journal.h"

namespace accrue {

struct CheckpointWork {
  core::FinishCheckpoint checkpoint;
  std::shared_ptr<const v1::ResolvedJob> job;
  std::vector<std::string> tensors;  // the layout's names, in order
  std::string window_line;           // the window's record, for people; a JSON object, or empty
};

class CheckpointKeeper {
 public:
  using Done = std::function<void(core::CheckpointFinished)>;

  // Does not own what it is given. `done` is called on the keeper's thread.
  CheckpointKeeper(FileSystem& file_system, Journal& journal, Done done);
  ~CheckpointKeeper();

  // Writes the manifest, verifies every file, then deletes what is beyond checkpoint.keep; answers through `done`.
  void Finish(CheckpointWork work);
  // Copies the journal aside once; requests that wait are one.
  void BackUpJournal();

 private:
  void Loop();
  core::CheckpointFinished FinishOne(const CheckpointWork& work);

  FileSystem& file_system_;
  Journal& journal_;
  const Done done_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<CheckpointWork> queue_ ABSL_GUARDED_BY(mutex_);
  bool backup_wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// Deletes checkpoints under `root` beyond the newest `keep`, and unfinished ones older than the newest. Exposed for
// tests.
absl::Status PruneCheckpoints(FileSystem& file_system, const std::string& root, int64_t keep);

// Deletes what a former checkpoint of the same window left in its folder: shards that the manifest does not name, as
// another number of workers wrote them, and a manifest that was set aside. Exposed for tests.
absl::Status RemoveLeftovers(FileSystem& file_system, const std::string& directory,
                             const CheckpointManifest& manifest);

}  // namespace accrue
