// A coordinator's JobService that a test scripts: jobs by name, what Watch streams, when it breaks off.
//
// Thread-safe once the server runs; set the fields before.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "accrue/v1/client.grpc.pb.h"

namespace accrue {

inline v1::JobStatus MakeStatus(v1::JobState state, int64_t window, const std::string& reason = "") {
  v1::JobStatus status;
  status.set_job_id("headers-1");
  status.set_name("headers");
  status.set_state(state);
  status.set_reason(reason);
  status.set_window(window);
  status.set_total_windows(4);
  status.set_reproducible(true);
  if (window > 0) {
    status.set_loss(3.25);
    status.set_digest("0123456789abcdef0123456789abcdef");
  }
  return status;
}

inline v1::WindowRecord MakeRecord(int64_t window, double loss) {
  v1::WindowRecord record;
  record.set_window(window);
  record.set_loss(loss);
  record.set_gradient_norm(0.5);
  record.set_learning_rate(1e-3);
  record.set_tokens(1000);
  record.set_sequences(64);
  record.set_tokens_per_second(12345);
  record.set_window_seconds(2);
  record.set_committed_unix_ns(1'700'000'000'000'000'000 + window * 2'000'000'000);
  return record;
}

class FakeJobService : public v1::JobService::Service {
 public:
  // What each Watch call streams, in turn; the last one again and again. After it the stream ends with the
  // status.
  struct Script {
    std::vector<v1::WatchResponse> updates;
    grpc::Status end = grpc::Status::OK;
    std::function<void()> then = nullptr;  // called after the updates
    bool until_cancelled = false;          // then streams the cancelled state once Cancel was called
  };
  std::vector<Script> watches;
  v1::JobStatus status = MakeStatus(v1::JOB_STATE_RUNNING, 2);
  grpc::Status submit_error;
  std::vector<v1::LedgerEntry> events;
  // What each Events call does, in turn; the last one again and again. Without scripts: all, and then OK.
  struct EventScript {
    size_t entries = 0;  // at most so many, from the one that was asked for
    grpc::Status end = grpc::Status::OK;
    std::function<void()> then = nullptr;  // called after the entries
  };
  std::vector<EventScript> event_scripts;
  bool repeat_events = false;  // from the first one, whatever was asked for
  double relative_unit_time = 1;
  v1::JobState state_after_cancel = v1::JOB_STATE_CANCELLED;
  std::function<void()> during_submit;
  std::function<bool()> before_workers;  // no worker is listed until it is true

  static v1::WatchResponse Update(const v1::JobStatus& status) {
    v1::WatchResponse update;
    *update.mutable_status() = status;
    return update;
  }
  static v1::WatchResponse Update(const v1::WindowRecord& record) {
    v1::WatchResponse update;
    *update.mutable_window() = record;
    return update;
  }

  // Starts to listen; the address is for --coordinator.
  std::string Start(const std::string& listen = "127.0.0.1:0") {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    return absl::StrCat("127.0.0.1:", port);
  }

  v1::SubmitRequest submitted() {
    absl::MutexLock lock(&mutex_);
    return submitted_;
  }
  v1::CancelRequest cancelled() {
    absl::MutexLock lock(&mutex_);
    return cancelled_;
  }
  std::vector<int64_t> watched_from() {
    absl::MutexLock lock(&mutex_);
    return watched_from_;
  }
  std::vector<std::string> watched_jobs() {
    absl::MutexLock lock(&mutex_);
    return watched_jobs_;
  }
  // Of the last Watch.
  bool watched_only_past() {
    absl::MutexLock lock(&mutex_);
    return watched_only_past_;
  }
  v1::DrainWorkerRequest drained() {
    absl::MutexLock lock(&mutex_);
    return drained_;
  }
  std::vector<v1::EventsRequest> event_calls() {
    absl::MutexLock lock(&mutex_);
    return event_calls_;
  }
  void SetStatus(const v1::JobStatus& now) {
    absl::MutexLock lock(&mutex_);
    status = now;
  }

 private:
  grpc::Status Known(const std::string& job) const {
    if (job == "headers" || job == "headers-1") return grpc::Status::OK;
    return grpc::Status(grpc::StatusCode::NOT_FOUND,
                        absl::StrCat("no job \"", job, "\""));
  }

  grpc::Status Submit(grpc::ServerContext*, const v1::SubmitRequest* request,
                      v1::SubmitResponse* response) override {
    if (during_submit) during_submit();
    absl::MutexLock lock(&mutex_);
    submitted_ = *request;
    response->set_job_id("headers-1");
    return submit_error;
  }
  grpc::Status List(grpc::ServerContext*, const v1::ListRequest*, v1::ListResponse* response) override {
    *response->add_jobs() = status;
    return grpc::Status::OK;
  }
  grpc::Status Describe(grpc::ServerContext*, const v1::DescribeRequest* request,
                        v1::DescribeResponse* response) override {
    absl::MutexLock lock(&mutex_);
    *response->mutable_status() = status;
    response->mutable_job()->set_job_id(status.job_id());
    response->mutable_job()->mutable_spec()->set_name("headers");
    return Known(request->job());
  }
  grpc::Status Cancel(grpc::ServerContext*, const v1::CancelRequest* request,
                      v1::CancelResponse* response) override {
    absl::MutexLock lock(&mutex_);
    cancelled_ = *request;
    *response->mutable_status() = MakeStatus(state_after_cancel, 2, request->reason());
    return Known(request->job());
  }
  grpc::Status Pause(grpc::ServerContext*, const v1::PauseRequest* request,
                     v1::PauseResponse* response) override {
    *response->mutable_status() = MakeStatus(v1::JOB_STATE_PAUSED, 2);
    return Known(request->job());
  }
  grpc::Status ListCheckpoints(grpc::ServerContext*, const v1::ListCheckpointsRequest* request,
                               v1::ListCheckpointsResponse* response) override {
    v1::CheckpointInfo& checkpoint = *response->add_checkpoints();
    checkpoint.set_window(2);
    checkpoint.set_directory("/out/checkpoints/window-00000002");
    checkpoint.set_digest("0123456789abcdef0123456789abcdef");
    checkpoint.set_size_bytes(3 << 20);
    checkpoint.set_verified(true);
    return Known(request->job());
  }
  grpc::Status ListWorkers(grpc::ServerContext*, const v1::ListWorkersRequest*,
                           v1::ListWorkersResponse* response) override {
    if (before_workers && !before_workers()) return grpc::Status::OK;
    v1::WorkerStatus& worker = *response->add_workers();
    worker.set_incarnation(7);
    worker.set_name("host:42");
    worker.set_state("computing");
    worker.set_job_id("headers-1");
    worker.set_device("cpu");
    worker.set_threads(2);
    worker.set_unit_seconds(0.0315);
    worker.set_relative_unit_time(relative_unit_time);
    return grpc::Status::OK;
  }
  grpc::Status DrainWorker(grpc::ServerContext*, const v1::DrainWorkerRequest* request,
                           v1::DrainWorkerResponse* response) override {
    absl::MutexLock lock(&mutex_);
    drained_ = *request;
    if (request->worker() != "host:42" && request->worker() != "7") {
      return grpc::Status(grpc::StatusCode::NOT_FOUND, absl::StrCat("no worker \"", request->worker(), "\""));
    }
    response->mutable_worker()->set_name("host:42");
    response->mutable_worker()->set_incarnation(7);
    response->mutable_worker()->set_job_id("headers-1");
    return grpc::Status::OK;
  }
  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    if (const grpc::Status known = Known(request->job()); !known.ok()) return known;
    Script script;
    {
      absl::MutexLock lock(&mutex_);
      script = watches.at(std::min(watched_from_.size(), watches.size() - 1));
      watched_from_.push_back(request->first_window());
      watched_jobs_.push_back(request->job());
      watched_only_past_ = request->only_past();
    }
    for (const v1::WatchResponse& update : script.updates) {
      if (update.has_window() && update.window().window() < request->first_window()) continue;
      writer->Write(update);
    }
    if (script.then) script.then();
    while (script.until_cancelled) {
      if (context->IsCancelled()) return grpc::Status::CANCELLED;
      absl::MutexLock lock(&mutex_);
      const auto cancelled = [this]()
                                 ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !cancelled_.job().empty(); };
      if (!mutex_.AwaitWithTimeout(absl::Condition(&cancelled), absl::Milliseconds(20))) continue;
      writer->Write(Update(MakeStatus(v1::JOB_STATE_CANCELLED, 1, cancelled_.reason())));
      break;
    }
    return script.end;
  }
  grpc::Status Events(grpc::ServerContext*, const v1::EventsRequest* request,
                      grpc::ServerWriter<v1::EventsResponse>* writer) override {
    if (const grpc::Status known = Known(request->job()); !known.ok()) return known;
    EventScript script{.entries = events.size()};
    {
      absl::MutexLock lock(&mutex_);
      if (!event_scripts.empty()) script = event_scripts[std::min(event_calls_.size(), event_scripts.size() - 1)];
      event_calls_.push_back(*request);
    }
    size_t written = 0;
    for (const v1::LedgerEntry& entry : events) {
      if (entry.sequence() < request->first_sequence() && !repeat_events) continue;
      if (written++ == script.entries) break;
      v1::EventsResponse response;
      *response.mutable_entry() = entry;
      writer->Write(response);
    }
    if (script.then) script.then();
    return script.end;
  }

  absl::Mutex mutex_;
  v1::SubmitRequest submitted_ ABSL_GUARDED_BY(mutex_);
  v1::CancelRequest cancelled_ ABSL_GUARDED_BY(mutex_);
  std::vector<int64_t> watched_from_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> watched_jobs_ ABSL_GUARDED_BY(mutex_);
  bool watched_only_past_ ABSL_GUARDED_BY(mutex_) = false;
  v1::DrainWorkerRequest drained_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::EventsRequest> event_calls_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace accrue
