#include "client/job_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "accrue/v1/client.grpc.pb.h"

namespace accrue {
namespace {

constexpr std::chrono::seconds kDeadline(15);
// Hashing the job's shards takes as long as reading them.
constexpr std::chrono::minutes kSubmitDeadline(30);

absl::Status FromGrpc(const grpc::Status& status, const std::string& address) {
  if (status.ok()) return absl::OkStatus();
  // The codes are the same numbers.
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  if (code == absl::StatusCode::kUnavailable) {
    return absl::UnavailableError(absl::StrCat(
        "no coordinator answers at ", address,
        ": start one with accrued, or name it with --coordinator HOST:PORT (", status.error_message(), ")"));
  }
  if (code == absl::StatusCode::kNotFound && absl::StartsWith(status.error_message(), "no job ")) {
    const bool is_path = absl::StrContains(status.error_message(), "/");
    return absl::NotFoundError(absl::StrCat(status.error_message(),
                                            is_path ? ": expected its id or its name, not a folder" : "",
                                            "; accrue list shows the jobs"));
  }
  if (code == absl::StatusCode::kDeadlineExceeded) {
    return absl::DeadlineExceededError(
        absl::StrCat("the coordinator at ", address, " did not answer in time"));
  }
  if (code == absl::StatusCode::kUnimplemented) {
    return absl::UnimplementedError(absl::StrCat(
        "what answers at ", address, " is no coordinator of this version: ", status.error_message()));
  }
  return absl::Status(code, status.error_message());
}

template <typename Response>
class GrpcStream : public ResponseStream<Response> {
 public:
  explicit GrpcStream(std::string address) : address_(std::move(address)) {}
  ~GrpcStream() override {
    if (finished_) return;
    context_.TryCancel();
    Response rest;
    while (reader_->Read(&rest)) {
    }
    reader_->Finish();
  }

  grpc::ClientContext* context() { return &context_; }
  void Start(std::unique_ptr<grpc::ClientReader<Response>> reader) { reader_ = std::move(reader); }

  bool Read(Response* response) override { return reader_->Read(response); }
  absl::Status Finish() override {
    finished_ = true;
    return FromGrpc(reader_->Finish(), address_);
  }
  void Cancel() override { context_.TryCancel(); }

 private:
  const std::string address_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<Response>> reader_;
  bool finished_ = false;
};

class GrpcJobClient : public JobClient {
 public:
  explicit GrpcJobClient(const std::string& address) : address_(address) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // a proxy of the environment is not for coordinators
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    // How long a connection may take to be made: on a busy machine a coordinator may be slow to answer.
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 400);
    arguments.SetMaxReceiveMessageSize(64 << 20);
    // A coordinator that is cut off or stopped is noticed, though the connection stands.
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 5000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    channel_ = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
    stub_ = v1::JobService::NewStub(channel_);
  }

  void AwaitConnection(int64_t timeout_ms) override {
    const gpr_timespec span = gpr_time_from_millis(timeout_ms, GPR_TIMESPAN);
    channel_->WaitForConnected(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), span));
  }

  absl::StatusOr<v1::SubmitResponse> Submit(const v1::SubmitRequest& request) override {
    return Call<v1::SubmitResponse>(&v1::JobService::Stub::Submit, request, kSubmitDeadline);
  }
  absl::StatusOr<v1::ListResponse> List() override {
    return Call<v1::ListResponse>(&v1::JobService::Stub::List, v1::ListRequest());
  }
  absl::StatusOr<v1::DescribeResponse> Describe(const std::string& job) override {
    return Call<v1::DescribeResponse>(&v1::JobService::Stub::Describe, Named<v1::DescribeRequest>(job));
  }
  absl::StatusOr<v1::JobStatus> Cancel(const std::string& job, const std::string& reason,
                                       bool checkpoint) override {
    auto request = Named<v1::CancelRequest>(job);
    request.set_reason(reason);
    request.set_checkpoint(checkpoint);
    return StatusOf(Call<v1::CancelResponse>(&v1::JobService::Stub::Cancel, request));
  }
  absl::StatusOr<v1::JobStatus> Pause(const std::string& job) override {
    return StatusOf(Call<v1::PauseResponse>(&v1::JobService::Stub::Pause, Named<v1::PauseRequest>(job)));
  }
  absl::StatusOr<v1::JobStatus> Resume(const std::string& job) override {
    return StatusOf(Call<v1::ResumeResponse>(&v1::JobService::Stub::Resume, Named<v1::ResumeRequest>(job)));
  }
  absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(const std::string& job) override {
    return Call<v1::ListCheckpointsResponse>(&v1::JobService::Stub::ListCheckpoints,
                                             Named<v1::ListCheckpointsRequest>(job));
  }
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers() override {
    return Call<v1::ListWorkersResponse>(&v1::JobService::Stub::ListWorkers, v1::ListWorkersRequest());
  }
  absl::StatusOr<v1::GetVersionResponse> GetVersion() override {
    return Call<v1::GetVersionResponse>(&v1::JobService::Stub::GetVersion, v1::GetVersionRequest());
  }
  absl::StatusOr<v1::WorkerStatus> DrainWorker(const v1::DrainWorkerRequest& request) override {
    absl::StatusOr<v1::DrainWorkerResponse> response =
        Call<v1::DrainWorkerResponse>(&v1::JobService::Stub::DrainWorker, request);
    if (!response.ok()) return response.status();
    return std::move(*response->mutable_worker());
  }
  void CancelCalls() override {
    absl::MutexLock lock(&mutex_);
    for (grpc::ClientContext* const call : calls_) call->TryCancel();
  }
  std::unique_ptr<ResponseStream<v1::WatchResponse>> Watch(const std::string& job, int64_t first_window,
                                                           bool only_past) override {
    auto request = Named<v1::WatchRequest>(job);
    request.set_first_window(first_window);
    request.set_only_past(only_past);
    auto stream = std::make_unique<GrpcStream<v1::WatchResponse>>(address_);
    stream->Start(stub_->Watch(stream->context(), request));
    return stream;
  }
  std::unique_ptr<ResponseStream<v1::EventsResponse>> Events(const std::string& job, int64_t first_sequence,
                                                             bool follow) override {
    auto request = Named<v1::EventsRequest>(job);
    request.set_first_sequence(first_sequence);
    request.set_follow(follow);
    auto stream = std::make_unique<GrpcStream<v1::EventsResponse>>(address_);
    stream->Start(stub_->Events(stream->context(), request));
    return stream;
  }

 private:
  template <typename Request>
  static Request Named(const std::string& job) {
    Request request;
    request.set_job(job);
    return request;
  }

  template <typename Response>
  static absl::StatusOr<v1::JobStatus> StatusOf(absl::StatusOr<Response> response) {
    if (!response.ok()) return response.status();
    return std::move(*response->mutable_status());
  }

  template <typename Response, typename Request>
  absl::StatusOr<Response> Call(grpc::Status (v1::JobService::Stub::*method)(grpc::ClientContext*,
                                                                             const Request&, Response*),
                                const Request& request, std::chrono::nanoseconds deadline = kDeadline) {
    grpc::ClientContext context;
    const gpr_timespec span = gpr_time_from_nanos(deadline.count(), GPR_TIMESPAN);
    context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), span));
    {
      absl::MutexLock lock(&mutex_);
      calls_.insert(&context);
    }
    Response response;
    absl::Status status = FromGrpc((stub_.get()->*method)(&context, request, &response), address_);
    {
      absl::MutexLock lock(&mutex_);
      calls_.erase(&context);
    }
    if (!status.ok()) return status;
    return response;
  }

  const std::string address_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::JobService::Stub> stub_;
  absl::Mutex mutex_;
  std::set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

bool MayPass(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return false;
    default:
      return true;
  }
}

std::unique_ptr<JobClient> JobClient::Create(const std::string& address) {
  return std::make_unique<GrpcJobClient>(address);
}

}  // namespace accrue
