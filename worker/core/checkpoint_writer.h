// Writes a worker's checkpoint shards behind the training, on a thread of its own, and reports each.
//
// Write is called by the compute thread; the reports go out on the writer's. The link must outlive the writer, whose
// destructor finishes what was begun.
#pragma once

#include <deque>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "accrue/v1/worker.pb.h"
#include "common/file_system.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/core/checkpoint_sink.h"
#include "worker/core/link.h"

namespace accrue {

class CheckpointWriter : public CheckpointSink {
 public:
  CheckpointWriter(FileSystem& file_system, CoordinatorLink& link);
  ~CheckpointWriter() override;

  // While one shard waits and another is being written, a further one is refused with an error report: memory is
  // bounded.
  void Write(const v1::Key& key, const v1::CheckpointOrder& order, const TrainingState& state) override;

 private:
  struct Task {
    v1::Key key;
    std::string directory;
    int64_t window = 0;
    CheckpointSnapshot snapshot;
  };
  static constexpr size_t kMostWaiting = 1;

  void Run();
  void WriteNow(const Task& task);

  FileSystem& file_system_;
  CoordinatorLink& link_;
  absl::Mutex mutex_;
  std::deque<Task> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace accrue
