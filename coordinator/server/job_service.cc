// JobService: what people and tools call.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "accrue/v1/client.grpc.pb.h"
#include "common/checkpoint/manifest.h"
#include "common/status.h"
#include "common/version.h"
#include "coordinator/server/grpc_status.h"
#include "coordinator/server/services.h"
#include "coordinator/server/translate.h"

namespace accrue {
namespace {

constexpr int kMaxStreams = 256;
constexpr int64_t kBatch = 256;  // records read from the journal at a time
// How often a follower without news looks whether its client is still there.
constexpr std::chrono::milliseconds kPatience(200);

bool IsOver(const v1::JobStatus& status) {
  return status.state() == v1::JOB_STATE_SUCCEEDED || status.state() == v1::JOB_STATE_FAILED ||
         status.state() == v1::JOB_STATE_CANCELLED;
}

absl::Status Unknown(const std::string& job) { return absl::NotFoundError(absl::StrCat("no job \"", job, "\"")); }

// Counts streams that hold a thread each.
class StreamSlot {
 public:
  explicit StreamSlot(std::atomic<int>& streams) : streams_(streams), taken_(++streams <= kMaxStreams) {}
  ~StreamSlot() { --streams_; }
  bool taken() const { return taken_; }
  static absl::Status Refusal() {
    return absl::ResourceExhaustedError(absl::StrCat("more than ", kMaxStreams, " streams are open"));
  }

 private:
  std::atomic<int>& streams_;
  const bool taken_;
};

// One Watch: what was sent so far, and the sending of what is new.
class WatchCursor {
 public:
  WatchCursor(Journal& journal, grpc::ServerWriter<v1::WatchResponse>& writer, int64_t first_window)
      : journal_(journal), writer_(writer), next_window_(first_window), next_evaluation_(first_window) {}

  // False: the client is gone.
  absl::StatusOr<bool> Send(const v1::JobStatus& status) {
    // The first message says where the job stands; the last one how it ended, after all of its windows.
    if (sent_status_ == 0 && !SendStatus(status)) return false;
    ACCRUE_ASSIGN_OR_RETURN(const bool there, SendRecords(status.job_id()));
    if (!there) return false;
    const bool changed = status.state() != state_ || status.reason() != reason_ ||
                         status.irreproducible_reason() != irreproducible_reason_;
    if ((changed || IsOver(status)) && !SendStatus(status)) return false;
    return true;
  }

  int64_t next_window() const { return next_window_; }

 private:
  bool SendStatus(const v1::JobStatus& status) {
    v1::WatchResponse response;
    *response.mutable_status() = status;
    ++sent_status_;
    state_ = status.state();
    reason_ = status.reason();
    irreproducible_reason_ = status.irreproducible_reason();
    return writer_.Write(response);
  }

  absl::StatusOr<bool> SendRecords(const JobId& job) {
    while (true) {
      ACCRUE_ASSIGN_OR_RETURN(const std::vector<CommitRecord> commits,
                              journal_.Commits(job, Window(next_window_), kBatch));
      for (const CommitRecord& commit : commits) {
        v1::WatchResponse response;
        *response.mutable_window() = WindowToProto(commit);
        next_window_ = commit.window.window.value() + 1;
        if (!writer_.Write(response)) return false;
      }
      if (commits.size() < static_cast<size_t>(kBatch)) break;
    }
    ACCRUE_ASSIGN_OR_RETURN(const std::vector<EvaluationRecord> evaluations,
                            journal_.Evaluations(job, Window(next_evaluation_)));
    for (const EvaluationRecord& evaluation : evaluations) {
      v1::WatchResponse response;
      response.mutable_evaluation()->set_window(evaluation.window.value());
      response.mutable_evaluation()->set_loss(evaluation.loss);
      response.mutable_evaluation()->set_tokens(evaluation.tokens);
      next_evaluation_ = evaluation.window.value() + 1;
      if (!writer_.Write(response)) return false;
    }
    return true;
  }

  Journal& journal_;
  grpc::ServerWriter<v1::WatchResponse>& writer_;
  int64_t next_window_;
  int64_t next_evaluation_;
  int sent_status_ = 0;
  v1::JobState state_ = v1::JOB_STATE_UNSPECIFIED;
  std::string reason_, irreproducible_reason_;
};

class JobServiceImpl : public v1::JobService::Service {
 public:
  JobServiceImpl(Coordinator& coordinator, Journal& journal, FileSystem& file_system,
                 std::vector<std::string> data_roots)
      : coordinator_(coordinator), journal_(journal), file_system_(file_system), data_roots_(std::move(data_roots)) {}

  grpc::Status Submit(grpc::ServerContext*, const v1::SubmitRequest* request, v1::SubmitResponse* response) override {
    return ToGrpc(SubmitJob(*request, *response));
  }

  grpc::Status List(grpc::ServerContext*, const v1::ListRequest*, v1::ListResponse* response) override {
    const auto snapshot = coordinator_.board().Get();
    for (const JobEntry& job : snapshot->jobs) *response->add_jobs() = job.status;
    return grpc::Status::OK;
  }

  grpc::Status Describe(grpc::ServerContext*, const v1::DescribeRequest* request,
                        v1::DescribeResponse* response) override {
    const auto snapshot = coordinator_.board().Get();
    const JobEntry* const job = snapshot->FindJob(request->job());
    if (job == nullptr) return ToGrpc(Unknown(request->job()));
    *response->mutable_status() = job->status;
    *response->mutable_job() = *job->resolved;
    for (const v1::WorkerStatus& worker : snapshot->workers) {
      if (worker.job_id() == job->status.job_id()) *response->add_workers() = worker;
    }
    return grpc::Status::OK;
  }

  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    return ToGrpc(WatchJob(*context, *request, *writer));
  }

  grpc::Status Cancel(grpc::ServerContext*, const v1::CancelRequest* request, v1::CancelResponse* response) override {
    return Answer(coordinator_.Cancel(request->job(), request->reason(), request->checkpoint()),
                  *response->mutable_status());
  }
  grpc::Status Pause(grpc::ServerContext*, const v1::PauseRequest* request, v1::PauseResponse* response) override {
    return Answer(coordinator_.Pause(request->job()), *response->mutable_status());
  }
  grpc::Status Resume(grpc::ServerContext*, const v1::ResumeRequest* request, v1::ResumeResponse* response) override {
    return Answer(coordinator_.Resume(request->job()), *response->mutable_status());
  }

  grpc::Status Events(grpc::ServerContext* context, const v1::EventsRequest* request,
                      grpc::ServerWriter<v1::EventsResponse>* writer) override {
    return ToGrpc(FollowLedger(*context, *request, *writer));
  }

  grpc::Status ListCheckpoints(grpc::ServerContext*, const v1::ListCheckpointsRequest* request,
                               v1::ListCheckpointsResponse* response) override {
    return ToGrpc(FindCheckpoints(request->job(), *response));
  }

  grpc::Status ListWorkers(grpc::ServerContext*, const v1::ListWorkersRequest*,
                           v1::ListWorkersResponse* response) override {
    const auto snapshot = coordinator_.board().Get();
    for (const v1::WorkerStatus& worker : snapshot->workers) *response->add_workers() = worker;
    return grpc::Status::OK;
  }

  grpc::Status DrainWorker(grpc::ServerContext*, const v1::DrainWorkerRequest* request,
                           v1::DrainWorkerResponse* response) override {
    const auto result = coordinator_.DrainWorker(request->worker(), request->at_once(), request->reason());
    if (result.ok()) *response->mutable_worker() = *result;
    return ToGrpc(result.status());
  }

  grpc::Status GetVersion(grpc::ServerContext*, const v1::GetVersionRequest*,
                          v1::GetVersionResponse* response) override {
    response->set_version(kVersion);
    response->set_term(coordinator_.term().value());
    return grpc::Status::OK;
  }

 private:
  static grpc::Status Answer(const absl::StatusOr<v1::JobStatus>& result, v1::JobStatus& out) {
    if (result.ok()) out = *result;
    return ToGrpc(result.status());
  }

  absl::Status SubmitJob(const v1::SubmitRequest& request, v1::SubmitResponse& response) {
    ACCRUE_ASSIGN_OR_RETURN(ResolvedSubmission submission,
                            ResolveSubmission(file_system_, journal_, data_roots_, request));
    FolderRequest folder;
    folder.fresh = request.fresh();
    if (request.has_resume_from()) folder.resume_from = request.resume_from();
    ACCRUE_ASSIGN_OR_RETURN(response, coordinator_.Submit(std::move(submission), folder));
    return absl::OkStatus();
  }

  // The job's id, so that a newer job of the same name does not take over a stream.
  absl::StatusOr<JobId> IdOf(const std::string& job) const {
    const auto snapshot = coordinator_.board().Get();
    const JobEntry* const entry = snapshot->FindJob(job);
    if (entry == nullptr) return Unknown(job);
    return JobId(entry->status.job_id());
  }

  absl::Status WatchJob(grpc::ServerContext& context, const v1::WatchRequest& request,
                        grpc::ServerWriter<v1::WatchResponse>& writer) {
    const StreamSlot slot(streams_);
    if (!slot.taken()) return StreamSlot::Refusal();
    ACCRUE_ASSIGN_OR_RETURN(const JobId id, IdOf(request.job()));
    WatchCursor cursor(journal_, writer, request.first_window());
    auto snapshot = coordinator_.board().Get();
    while (!context.IsCancelled()) {
      // What the journal holds is never older than the picture before it.
      const JobEntry* const job = snapshot->FindJob(id);
      if (job == nullptr) return Unknown(id);
      ACCRUE_ASSIGN_OR_RETURN(const bool there, cursor.Send(job->status));
      if (!there) break;
      if (request.only_past() || IsOver(job->status)) return absl::OkStatus();
      if (snapshot->shutting_down) {
        return absl::UnavailableError(absl::StrCat("the coordinator is shutting down; watch again from window ",
                                                   cursor.next_window()));
      }
      snapshot = coordinator_.board().WaitFor(snapshot->version, kPatience);
    }
    return absl::CancelledError("the client is gone");
  }

  absl::Status FollowLedger(grpc::ServerContext& context, const v1::EventsRequest& request,
                            grpc::ServerWriter<v1::EventsResponse>& writer) {
    const StreamSlot slot(streams_);
    if (!slot.taken()) return StreamSlot::Refusal();
    ACCRUE_ASSIGN_OR_RETURN(const JobId id, IdOf(request.job()));
    int64_t next = request.first_sequence();
    auto snapshot = coordinator_.board().Get();
    while (!context.IsCancelled()) {
      const JobEntry* const job = snapshot->FindJob(id);
      if (job == nullptr) return Unknown(id);
      while (true) {
        ACCRUE_ASSIGN_OR_RETURN(const std::vector<LedgerRecord> records, journal_.Ledger(id, next, kBatch));
        for (const LedgerRecord& record : records) {
          v1::EventsResponse response;
          *response.mutable_entry() = LedgerToProto(record);
          next = record.sequence + 1;
          if (!writer.Write(response)) return absl::CancelledError("the client is gone");
        }
        if (records.size() < static_cast<size_t>(kBatch)) break;
      }
      if (!request.follow() || IsOver(job->status)) return absl::OkStatus();
      if (snapshot->shutting_down) {
        return absl::UnavailableError(absl::StrCat("the coordinator is shutting down; follow again from sequence ", next));
      }
      snapshot = coordinator_.board().WaitFor(snapshot->version, kPatience);
    }
    return absl::CancelledError("the client is gone");
  }

  absl::Status FindCheckpoints(const std::string& name, v1::ListCheckpointsResponse& response) {
    const auto snapshot = coordinator_.board().Get();
    const JobEntry* const job = snapshot->FindJob(name);
    if (job == nullptr) return Unknown(name);
    ACCRUE_ASSIGN_OR_RETURN(const std::vector<CheckpointRecord> records, journal_.Checkpoints(job->status.job_id()));
    std::map<int64_t, int64_t> written_at;
    for (const CheckpointRecord& record : records) written_at[record.window.value()] = record.written_unix_ns;
    const std::string root = CheckpointRoot(*job->resolved);
    if (!file_system_.IsDirectory(root)) return absl::OkStatus();
    ACCRUE_ASSIGN_OR_RETURN(const std::vector<CheckpointEntry> entries, accrue::ListCheckpoints(file_system_, root));
    for (const CheckpointEntry& entry : entries) {
      v1::CheckpointInfo& info = *response.add_checkpoints();
      info.set_window(entry.window);
      info.set_directory(entry.directory);
      const absl::StatusOr<CheckpointManifest> manifest = ReadManifest(file_system_, entry.directory);
      if (!manifest.ok()) continue;  // listed as not verified
      info.set_digest(manifest->digest);
      uint64_t size_bytes = 0;
      for (const CheckpointFileInfo& file : manifest->files) size_bytes += file.size_bytes;
      info.set_size_bytes(size_bytes);
      const auto written = written_at.find(entry.window);
      info.set_written_unix_ns(written == written_at.end() ? 0 : written->second);
      info.set_verified(true);  // a manifest is only written once all files are verified
    }
    return absl::OkStatus();
  }

  Coordinator& coordinator_;
  Journal& journal_;
  FileSystem& file_system_;
  const std::vector<std::string> data_roots_;
  std::atomic<int> streams_{0};
};

}  // namespace

std::unique_ptr<grpc::Service> MakeJobService(Coordinator& coordinator, Journal& journal, FileSystem& file_system,
                                              std::vector<std::string> data_roots) {
  return std::make_unique<JobServiceImpl>(coordinator, journal, file_system, std::move(data_roots));
}

}  // namespace accrue
