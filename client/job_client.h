// The coordinator's JobService as plain calls, so that gRPC is compiled in one place.
//
// Thread-safe; a stream is read by one thread, and Cancel may come from another. Every call has a deadline.
// Codes are those of proto/accrue/v1/client.proto; a coordinator that does not answer is UNAVAILABLE with
// what to do about it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "accrue/v1/client.pb.h"

namespace accrue {

// Whether the same call may succeed later: the coordinator is away, shutting down, or busy.
bool MayPass(const absl::Status& status);

// A stream of responses from the coordinator.
template <typename Response>
class ResponseStream {
 public:
  virtual ~ResponseStream() = default;
  // False at the stream's end.
  virtual bool Read(Response* response) = 0;
  // Why it ended. Once, after Read returned false.
  virtual absl::Status Finish() = 0;
  // Makes Read return soon.
  virtual void Cancel() = 0;
};

class JobClient {
 public:
  // Does not connect yet: the first call does. `address` is HOST:PORT.
  static std::unique_ptr<JobClient> Create(const std::string& address);
  virtual ~JobClient() = default;
  // Waits until there is a connection, at most so long. A connection is made only while somebody waits for it or for
  // a call's answer; a call fails at once after one that could not be made.
  virtual void AwaitConnection(int64_t timeout_ms) {}

  virtual absl::StatusOr<v1::SubmitResponse> Submit(const v1::SubmitRequest& request) = 0;
  virtual absl::StatusOr<v1::ListResponse> List() = 0;
  virtual absl::StatusOr<v1::DescribeResponse> Describe(const std::string& job) = 0;
  virtual absl::StatusOr<v1::JobStatus> Cancel(const std::string& job, const std::string& reason,
                                               bool checkpoint) = 0;
  virtual absl::StatusOr<v1::JobStatus> Pause(const std::string& job) = 0;
  virtual absl::StatusOr<v1::JobStatus> Resume(const std::string& job) = 0;
  virtual absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(const std::string& job) = 0;
  virtual absl::StatusOr<v1::ListWorkersResponse> ListWorkers() = 0;
  virtual absl::StatusOr<v1::GetVersionResponse> GetVersion() = 0;
  virtual absl::StatusOr<v1::WorkerStatus> DrainWorker(const v1::DrainWorkerRequest& request) = 0;
  // Calls that are on the way, streams apart, end soon with CANCELLED.
  virtual void CancelCalls() = 0;
  // only_past: ends after what is committed so far.
  virtual std::unique_ptr<ResponseStream<v1::WatchResponse>> Watch(const std::string& job, int64_t first_window,
                                                                   bool only_past) = 0;
  virtual std::unique_ptr<ResponseStream<v1::EventsResponse>> Events(const std::string& job,
                                                                     int64_t first_sequence, bool follow) = 0;
};

}  // namespace accrue
