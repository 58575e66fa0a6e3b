// An accrued in this process on ephemeral ports, a client, and a small data set.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "accrue/v1/client.grpc.pb.h"
#include "coordinator/server/server.h"
#include "tests/server/fake_worker.h"

namespace accrue {

class ServerTestBase : public testing::Test {
 protected:
  ServerTestBase();
  ~ServerTestBase() override;

  // Fails the test when the server cannot start.
  void StartServer();
  void StopServer();
  virtual ServerOptions Options() const;

  std::unique_ptr<FakeWorker> Worker(const std::string& name = "fake", const FakeWorkerLife& resume = {}) const;

  // Four windows of four units of two sequences, one to two workers, a checkpoint every two windows.
  v1::JobSpec Spec() const;
  v1::SubmitRequest Request() const;  // with that spec, into folder_/out
  grpc::Status Submit(const v1::SubmitRequest& request, v1::SubmitResponse* response = nullptr) const;
  v1::JobStatus Status(const std::string& job) const;

  // Everything that Watch sends until it ends, or until `enough` says so.
  struct Watched {
    std::vector<v1::WindowRecord> windows;
    std::vector<v1::JobStatus> statuses;
    std::vector<v1::EvaluationResult> evaluations;
    grpc::Status end;
    std::vector<int64_t> WindowNumbers() const;
  };
  Watched Watch(const std::string& job, int64_t first_window = 0,
                const std::function<bool(const Watched&)>& enough = nullptr) const;

  // Writes an llm.c shard of ascending tokens.
  void WriteShard(const std::string& path, int64_t tokens) const;
  std::string ReadOutput(const std::string& name) const;  // of folder_/out; empty when it is not there
  std::vector<std::string> Lines(const std::string& name) const;

  std::string folder_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::JobService::Stub> client_;
};

}  // namespace accrue
