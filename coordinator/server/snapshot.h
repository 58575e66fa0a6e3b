// What RPC handlers and the status page show: an immutable picture of jobs and workers, replaced by the event loop, and
// a way to wait for the next one.
//
// Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "accrue/v1/client.pb.h"
#include "accrue/v1/job.pb.h"

namespace accrue {

struct JobEntry {
  v1::JobStatus status;
  std::shared_ptr<const v1::ResolvedJob> resolved;
};

struct Snapshot {
  uint64_t version = 0;  // rises with every picture
  std::vector<JobEntry> jobs;  // in order of submission
  std::vector<v1::WorkerStatus> workers;
  bool shutting_down = false;

  // By id, or the newest of that name; null without one.
  const JobEntry* FindJob(absl::string_view id_or_name) const {
    for (const JobEntry& job : jobs) {
      if (job.status.job_id() == id_or_name) return &job;
    }
    for (auto job = jobs.rbegin(); job != jobs.rend(); ++job) {
      if (job->status.name() == id_or_name) return &*job;
    }
    return nullptr;
  }
};

class SnapshotBoard {
 public:
  std::shared_ptr<const Snapshot> Get() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return snapshot_;
  }

  void Publish(Snapshot snapshot) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      snapshot.version = snapshot_->version + 1;
      snapshot_ = std::make_shared<const Snapshot>(std::move(snapshot));
    }
    changed_.notify_all();
  }

  // The first picture after `version`, or the present one when none comes in time.
  std::shared_ptr<const Snapshot> WaitFor(uint64_t version, std::chrono::milliseconds patience) const {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, patience, [&] { return snapshot_->version > version; });
    return snapshot_;
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::shared_ptr<const Snapshot> snapshot_ ABSL_GUARDED_BY(mutex_) = std::make_shared<const Snapshot>();
};

}  // namespace accrue
