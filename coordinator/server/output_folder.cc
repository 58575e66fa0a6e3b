#include "coordinator/server/output_folder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/checkpoint/manifest.h"
#include "common/spec/job_spec.h"
#include "common/status.h"
#include "coordinator/server/submission.h"
#include "coordinator/server/translate.h"

namespace accrue {
namespace {

constexpr size_t kJobFileLimitBytes = size_t{256} << 20;
constexpr size_t kMostDifferences = 20;

std::string JobFile(const v1::ResolvedJob& job) { return JoinPath(job.output_directory(), "job.json"); }

// What the weights do not depend on may differ: the fleet, how it is watched, and what its workers keep in
// memory are not part of the job.
v1::JobSpec WithoutFleet(v1::JobSpec spec) {
  spec.clear_workers();
  spec.clear_audit();
  spec.clear_recompute();
  return spec;
}

void ComparePins(const std::string& name, const google::protobuf::RepeatedPtrField<v1::ShardPin>& from,
                 const google::protobuf::RepeatedPtrField<v1::ShardPin>& to, std::vector<std::string>& differences) {
  if (from.size() != to.size()) {
    differences.push_back(absl::StrCat(name, ": ", from.size(), " shards -> ", to.size(), " shards"));
    return;
  }
  for (int i = 0; i < from.size(); ++i) {
    if (from[i].xxh3_128() != to[i].xxh3_128()) {
      differences.push_back(absl::StrCat(name, "[", i, "]: ", from[i].path(), " with XXH3-128 ", from[i].xxh3_128(),
                                         " -> ", to[i].path(), " with ", to[i].xxh3_128()));
    } else if (from[i].mask_xxh3_128() != to[i].mask_xxh3_128()) {
      differences.push_back(absl::StrCat(name, "[", i, "]: the mask of ", to[i].path(), " has changed"));
    }
  }
}

std::vector<std::string> Differences(const v1::ResolvedJob& from, const v1::ResolvedJob& to) {
  std::vector<std::string> differences = SpecDifferences(WithoutFleet(from.spec()), WithoutFleet(to.spec()));
  ComparePins("data.train", from.train(), to.train(), differences);
  ComparePins("data.validation", from.validation(), to.validation(), differences);
  if (differences.size() > kMostDifferences) {
    const size_t more = differences.size() - kMostDifferences;
    differences.resize(kMostDifferences);
    differences.push_back(absl::StrCat("and ", more, " more"));
  }
  return differences;
}

absl::Status Discard(FileSystem& file_system, const std::string& directory) {
  for (const char* name : {"checkpoints", "windows.jsonl", "evaluations.jsonl", "job.json"}) {
    ACCRUE_RETURN_IF_ERROR(file_system.RemoveAll(JoinPath(directory, name)));
  }
  return absl::OkStatus();
}

// OK when the folder is free or holds this job.
absl::Status CheckOwner(FileSystem& file_system, const v1::ResolvedJob& job) {
  const std::string path = JobFile(job), &directory = job.output_directory();
  if (!file_system.Exists(path)) {
    for (const char* name : {"checkpoints", "windows.jsonl"}) {
      if (!file_system.Exists(JoinPath(directory, name))) continue;
      return absl::FailedPreconditionError(absl::StrCat(directory, " holds ", name, " but no job.json that tells whose "
                                                        "it is; use another folder, or discard it with --fresh"));
    }
    return absl::OkStatus();
  }
  ACCRUE_ASSIGN_OR_RETURN(const std::string text, file_system.ReadAll(path, kJobFileLimitBytes));
  const absl::StatusOr<v1::ResolvedJob> holder = ResolvedJobFromJson(text);
  if (!holder.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": ", holder.status().message(),
                                                      "; use another folder, or discard this one with --fresh"));
  }
  const std::vector<std::string> differences = Differences(*holder, job);
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(directory, " holds another job. The differences, from there to here:\n  ",
                                                    absl::StrJoin(differences, "\n  "),
                                                    "\nUse another folder, or discard this one with --fresh"));
}

absl::Status CheckSameName(FileSystem& file_system, const v1::ResolvedJob& job) {
  const absl::StatusOr<std::string> text = file_system.ReadAll(JobFile(job), kJobFileLimitBytes);
  if (!text.ok()) return absl::OkStatus();
  const absl::StatusOr<v1::ResolvedJob> holder = ResolvedJobFromJson(*text);
  if (!holder.ok() || holder->spec().name() == job.spec().name()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(job.output_directory(), " holds the job \"", holder->spec().name(),
                                                    "\", not \"", job.spec().name(),
                                                    "\": --fresh only discards the same job's; use another folder"));
}

absl::StatusOr<core::StartPoint> ReadCheckpoint(FileSystem& file_system, const CheckpointEntry& entry) {
  ACCRUE_ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(file_system, entry.directory));
  ACCRUE_RETURN_IF_ERROR(VerifyFiles(file_system, entry.directory, manifest));
  core::StartPoint start;
  start.checkpoint_directory = entry.directory;
  start.window = Window(manifest.window);
  start.steps = manifest.steps;
  start.digest = manifest.digest;
  start.exponents = manifest.exponents;
  start.loss_scale = manifest.loss_scale;
  start.computed_in = manifest.numeric_class;
  start.mixed = manifest.mixed;
  start.timeline = Timeline(manifest.timeline).Next();
  return start;
}

// Without its manifest a folder is no checkpoint; the files stay until a newer checkpoint is verified.
absl::Status SetAside(FileSystem& file_system, const CheckpointEntry& entry) {
  return file_system.Rename(JoinPath(entry.directory, kManifestName), JoinPath(entry.directory, kDamagedManifestName));
}

}  // namespace

absl::StatusOr<FolderStart> FindStart(FileSystem& file_system, const v1::ResolvedJob& job,
                                      std::optional<int64_t> resume_from) {
  FolderStart found;
  const std::string root = CheckpointRoot(job);
  std::vector<CheckpointEntry> entries;
  if (file_system.IsDirectory(root)) {
    ACCRUE_ASSIGN_OR_RETURN(entries, ListCheckpoints(file_system, root));
  }
  if (resume_from.has_value()) {
    const auto chosen = std::find_if(entries.begin(), entries.end(),
                                     [&](const CheckpointEntry& entry) { return entry.window == *resume_from; });
    if (chosen == entries.end()) {
      const std::string there = absl::StrJoin(entries, ", ", [](std::string* out, const CheckpointEntry& entry) {
        absl::StrAppend(out, entry.window);
      });
      return absl::NotFoundError(absl::StrCat(root, " has no checkpoint at window ", *resume_from, "; it has ",
                                              there.empty() ? "none" : there));
    }
    ACCRUE_ASSIGN_OR_RETURN(found.start, ReadCheckpoint(file_system, *chosen));
    // A rewind: what came after is computed again, so that its checkpoints must not be taken for the newest.
    for (auto later = std::next(chosen); later != entries.end(); ++later) {
      found.warnings.push_back(absl::StrCat("the checkpoint at window ", later->window, " is removed: the job goes back to ",
                                            *resume_from));
      ACCRUE_RETURN_IF_ERROR(file_system.RemoveAll(later->directory));
    }
    return found;
  }
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    absl::StatusOr<core::StartPoint> start = ReadCheckpoint(file_system, *entry);
    if (start.ok()) {
      found.start = *std::move(start);
      return found;
    }
    found.warnings.push_back(absl::StrCat("the checkpoint at window ", entry->window,
                                          " cannot be used and is set aside: ", start.status().message()));
    ACCRUE_RETURN_IF_ERROR(SetAside(file_system, *entry));
  }
  if (!entries.empty()) found.warnings.push_back("no checkpoint is left: the job starts from its beginning");
  return found;
}

absl::StatusOr<FolderStart> PrepareFolder(FileSystem& file_system, const v1::ResolvedJob& job,
                                          const FolderRequest& request) {
  if (request.fresh && request.resume_from.has_value()) {
    return absl::InvalidArgumentError("fresh and resume_from exclude each other");
  }
  if (request.fresh) {
    ACCRUE_RETURN_IF_ERROR(CheckSameName(file_system, job));
    ACCRUE_RETURN_IF_ERROR(Discard(file_system, job.output_directory()));
  } else {
    ACCRUE_RETURN_IF_ERROR(CheckOwner(file_system, job));
  }
  ACCRUE_RETURN_IF_ERROR(file_system.CreateDirectories(CheckpointRoot(job)));
  ACCRUE_ASSIGN_OR_RETURN(FolderStart found, FindStart(file_system, job, request.resume_from));
  ACCRUE_RETURN_IF_ERROR(file_system.WriteAtomically(JobFile(job), ResolvedJobToJson(job)));
  return found;
}

}  // namespace accrue
