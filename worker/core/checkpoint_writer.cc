#include "worker/core/checkpoint_writer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fault_points.h"
#include "common/log.h"

namespace accrue {

CheckpointWriter::CheckpointWriter(FileSystem& file_system, CoordinatorLink& link)
    : file_system_(file_system), link_(link), thread_([this] { Run(); }) {}

CheckpointWriter::~CheckpointWriter() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void CheckpointWriter::Write(const v1::Key& key, const v1::CheckpointOrder& order, const TrainingState& state) {
  {
    absl::MutexLock lock(&mutex_);
    if (waiting_.size() >= kMostWaiting) {
      v1::WorkerMessage message;
      v1::CheckpointWritten& written = *message.mutable_checkpoint_written();
      *written.mutable_key() = key;
      written.set_checkpoint_window(state.window());
      written.set_error("the shards ordered before are still being written: checkpoints come faster than the disk takes them");
      link_.Send(std::move(message));
      return;
    }
  }
  Task task{key, order.directory(), state.window(), TakeSnapshot(state, order.shard(), order.shards())};
  absl::MutexLock lock(&mutex_);
  waiting_.push_back(std::move(task));
}

void CheckpointWriter::Run() {
  while (true) {
    Task task;
    {
      absl::MutexLock lock(&mutex_);
      auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || !waiting_.empty(); };
      mutex_.Await(absl::Condition(&has_work));
      if (waiting_.empty()) return;
      task = std::move(waiting_.front());
      waiting_.pop_front();
    }
    WriteNow(task);
  }
}

void CheckpointWriter::WriteNow(const Task& task) {
  v1::WorkerMessage message;
  v1::CheckpointWritten& written = *message.mutable_checkpoint_written();
  *written.mutable_key() = task.key;
  written.set_checkpoint_window(task.window);
  const absl::Status fault = FaultStatus(FaultPoint::kWorkerShardBegun, task.window);
  absl::StatusOr<CheckpointFileInfo> info = fault.ok() ? WriteSnapshot(file_system_, task.directory, task.snapshot)
                                                       : absl::StatusOr<CheckpointFileInfo>(fault);
  PassFaultPoint(FaultPoint::kWorkerShardWritten, task.window);
  if (info.ok()) {
    v1::CheckpointFile& file = *written.add_files();
    file.set_path(info->name);
    file.set_size_bytes(info->size_bytes);
    file.set_xxh3_128(info->xxh3_128);
    LogInfo("checkpoint shard written", {{"window", task.window}, {"directory", task.directory}, {"file", info->name}});
  } else {
    written.set_error(std::string(info.status().message()));
    LogError("checkpoint shard failed", {{"window", task.window}, {"directory", task.directory}, {"error", info.status()}});
  }
  link_.Send(std::move(message));
}

}  // namespace accrue
