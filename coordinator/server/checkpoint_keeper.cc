#include "coordinator/server/checkpoint_keeper.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/checkpoint/manifest.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "common/spec/job_spec.h"
#include "common/status.h"
#include "coordinator/server/translate.h"

namespace accrue {
namespace {

CheckpointManifest ManifestOf(const CheckpointWork& work) {
  CheckpointManifest manifest;
  manifest.job_name = work.job->spec().name();
  manifest.spec_hash = SpecHash(work.job->spec());
  manifest.spec_json = CanonicalJson(work.job->spec());
  manifest.timeline = work.checkpoint.timeline.value();
  manifest.window = work.checkpoint.window.value();
  manifest.steps = work.checkpoint.steps;
  manifest.optimizer = work.job->spec().optimizer().name();
  manifest.digest = work.checkpoint.digest;
  manifest.exponents = work.checkpoint.exponents;
  manifest.loss_scale = work.checkpoint.loss_scale;
  manifest.tensors = work.tensors;
  for (const core::CheckpointFile& file : work.checkpoint.files) {
    manifest.files.push_back({file.path, file.size_bytes, file.xxh3_128});
  }
  manifest.loss_json = work.window_line;
  manifest.numeric_class = work.checkpoint.numeric_class;
  manifest.mixed = work.checkpoint.mixed;
  return manifest;
}

}  // namespace

absl::Status PruneCheckpoints(FileSystem& file_system, const std::string& root, int64_t keep) {
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<CheckpointEntry> entries, ListCheckpoints(file_system, root));
  if (entries.empty()) return absl::OkStatus();
  for (size_t i = 0; i + static_cast<size_t>(keep) < entries.size(); ++i) {
    ACCRUE_RETURN_IF_ERROR(file_system.RemoveAll(entries[i].directory));
  }
  // What a crash or a lost shard left behind. Names sort as windows do.
  const std::string newest = BaseName(entries.back().directory);
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<std::string> names, file_system.List(root));
  for (const std::string& name : names) {
    const std::string directory = JoinPath(root, name);
    const bool unfinished = !file_system.Exists(JoinPath(directory, "manifest.json"));
    if (absl::StartsWith(name, "window-") && name < newest && unfinished) {
      ACCRUE_RETURN_IF_ERROR(file_system.RemoveAll(directory));
    }
  }
  return absl::OkStatus();
}

absl::Status RemoveLeftovers(FileSystem& file_system, const std::string& directory,
                             const CheckpointManifest& manifest) {
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<std::string> names, file_system.List(directory));
  for (const std::string& name : names) {
    const bool listed = std::any_of(manifest.files.begin(), manifest.files.end(),
                                    [&](const CheckpointFileInfo& file) { return file.name == name; });
    const bool ours = absl::StartsWith(name, "state-") || name == kDamagedManifestName;
    if (listed || !ours) continue;
    ACCRUE_RETURN_IF_ERROR(file_system.RemoveAll(JoinPath(directory, name)));
  }
  return absl::OkStatus();
}

CheckpointKeeper::CheckpointKeeper(FileSystem& file_system, Journal& journal, Done done)
    : file_system_(file_system), journal_(journal), done_(std::move(done)), thread_([this] { Loop(); }) {}

CheckpointKeeper::~CheckpointKeeper() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void CheckpointKeeper::Finish(CheckpointWork work) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(std::move(work));
  }
  changed_.notify_all();
}

void CheckpointKeeper::BackUpJournal() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    backup_wanted_ = true;
  }
  changed_.notify_all();
}

void CheckpointKeeper::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || backup_wanted_ || !queue_.empty(); });
    if (!queue_.empty()) {
      const CheckpointWork work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      done_(FinishOne(work));
      lock.lock();
    } else if (std::exchange(backup_wanted_, false)) {
      lock.unlock();
      if (const absl::Status status = journal_.BackUp(); !status.ok()) {
        LogError("the journal could not be copied aside; the copy before stays", {{"error", status}});
      }
      lock.lock();
    } else {
      return;
    }
  }
}

core::CheckpointFinished CheckpointKeeper::FinishOne(const CheckpointWork& work) {
  const std::string root = CheckpointRoot(*work.job);
  const std::string directory = CheckpointDirectory(root, work.checkpoint.window.value());
  const CheckpointManifest manifest = ManifestOf(work);
  absl::Status status = VerifyFiles(file_system_, directory, manifest);
  if (status.ok()) status = FaultStatus(FaultPoint::kCoordinatorCheckpointVerified, manifest.window);
  if (status.ok()) status = WriteManifest(file_system_, directory, manifest);
  if (status.ok()) status = ReadManifest(file_system_, directory).status();
  core::CheckpointFinished finished{work.checkpoint.job, work.checkpoint.window, "", directory};
  if (!status.ok()) {
    finished.error = std::string(status.message());
    LogError("a checkpoint failed", {{"job", work.checkpoint.job}, {"window", work.checkpoint.window}, {"error", status}});
    return finished;
  }
  PassFaultPoint(FaultPoint::kCoordinatorManifestWritten, manifest.window);
  LogInfo("checkpoint verified", {{"job", work.checkpoint.job}, {"window", work.checkpoint.window},
                                  {"directory", directory}});
  const absl::Status cleaned = RemoveLeftovers(file_system_, directory, manifest);
  if (!cleaned.ok()) LogWarning("shards of a former checkpoint could not be deleted", {{"job", work.checkpoint.job}, {"error", cleaned}});
  const absl::Status pruned = PruneCheckpoints(file_system_, root, work.job->spec().checkpoint().keep());
  if (!pruned.ok()) LogWarning("old checkpoints could not be deleted", {{"job", work.checkpoint.job}, {"error", pruned}});
  return finished;
}

}  // namespace accrue
