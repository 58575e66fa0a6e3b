#include "tests/server/server_test_util.h"

#include <grpcpp/grpcpp.h>
#include <stdlib.h>

#include <chrono>

#include "absl/strings/str_split.h"
#include "common/data/shard.h"
#include "common/file_system.h"

namespace accrue {

// A test that would wait forever fails instead.
constexpr std::chrono::seconds kPatience(30);

ServerTestBase::ServerTestBase() {
  std::string pattern = JoinPath(testing::TempDir(), "accrue_server_XXXXXX");
  EXPECT_NE(mkdtemp(pattern.data()), nullptr);
  folder_ = pattern;
  EXPECT_TRUE(FileSystem::Real().CreateDirectories(folder_ + "/data").ok());
  WriteShard(folder_ + "/data/train-0.bin", 1000);
  WriteShard(folder_ + "/data/validation-0.bin", 200);
}

ServerTestBase::~ServerTestBase() {
  StopServer();
  FileSystem::Real().RemoveAll(folder_).IgnoreError();
}

ServerOptions ServerTestBase::Options() const {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.http = "127.0.0.1:0";
  options.state_directory = folder_ + "/state";
  options.data_roots = {folder_ + "/data"};
  options.worker_timeout_seconds = 60;  // fakes send no heartbeats
  return options;
}

void ServerTestBase::StartServer() {
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(Options());
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  client_ = v1::JobService::NewStub(
      grpc::CreateChannel(server_->grpc_address(), grpc::InsecureChannelCredentials()));
}

void ServerTestBase::StopServer() {
  client_.reset();
  server_.reset();
}

std::unique_ptr<FakeWorker> ServerTestBase::Worker(const std::string& name, const FakeWorkerLife& resume) const {
  FakeWorkerOptions options;
  options.address = server_->grpc_address();
  options.name = name;
  options.resume = resume;
  return std::make_unique<FakeWorker>(std::move(options));
}

v1::JobSpec ServerTestBase::Spec() const {
  v1::JobSpec spec;
  spec.set_name("headers");
  v1::ModelSpec& model = *spec.mutable_model();
  model.set_architecture("gpt2");
  model.set_vocabulary(1024);
  model.set_context(16);
  model.set_layers(1);
  model.set_heads(1);
  model.set_width(8);
  spec.mutable_data()->add_train("train-*.bin");
  spec.mutable_batch()->set_sequences(8);
  spec.mutable_batch()->set_micro_batch(2);
  spec.mutable_batch()->set_sequence_length(16);
  spec.set_windows(4);
  spec.mutable_checkpoint()->set_every_windows(2);
  spec.mutable_workers()->set_min(1);
  spec.mutable_workers()->set_max(1);
  return spec;
}

v1::SubmitRequest ServerTestBase::Request() const {
  v1::SubmitRequest request;
  *request.mutable_spec() = Spec();
  request.set_output_directory(folder_ + "/out");
  return request;
}

grpc::Status ServerTestBase::Submit(const v1::SubmitRequest& request, v1::SubmitResponse* response) const {
  v1::SubmitResponse unused;
  grpc::ClientContext context;
  return client_->Submit(&context, request, response == nullptr ? &unused : response);
}

v1::JobStatus ServerTestBase::Status(const std::string& job) const {
  grpc::ClientContext context;
  v1::DescribeRequest request;
  request.set_job(job);
  v1::DescribeResponse response;
  const grpc::Status status = client_->Describe(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.status();
}

std::vector<int64_t> ServerTestBase::Watched::WindowNumbers() const {
  std::vector<int64_t> numbers;
  for (const v1::WindowRecord& window : windows) numbers.push_back(window.window());
  return numbers;
}

ServerTestBase::Watched ServerTestBase::Watch(const std::string& job, int64_t first_window,
                                              const std::function<bool(const Watched&)>& enough) const {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::time_point(
      std::chrono::nanoseconds(Clock::Real().WallNowUnixNs()) + kPatience));
  v1::WatchRequest request;
  request.set_job(job);
  request.set_first_window(first_window);
  const auto reader = client_->Watch(&context, request);
  Watched watched;
  v1::WatchResponse response;
  while (reader->Read(&response)) {
    if (response.has_window()) watched.windows.push_back(response.window());
    if (response.has_status()) watched.statuses.push_back(response.status());
    if (response.has_evaluation()) watched.evaluations.push_back(response.evaluation());
    if (enough != nullptr && enough(watched)) context.TryCancel();
  }
  watched.end = reader->Finish();
  return watched;
}

void ServerTestBase::WriteShard(const std::string& path, int64_t tokens) const {
  std::string contents = LlmcHeader(tokens, 2);
  for (int64_t token = 0; token < tokens; ++token) {
    const int64_t id = token % 1000;
    contents += static_cast<char>(id & 0xff);
    contents += static_cast<char>(id >> 8);
  }
  EXPECT_TRUE(FileSystem::Real().WriteAtomically(path, contents).ok());
}

std::string ServerTestBase::ReadOutput(const std::string& name) const {
  return FileSystem::Real().ReadAll(folder_ + "/out/" + name, 1 << 24).value_or("");
}

std::vector<std::string> ServerTestBase::Lines(const std::string& name) const {
  return absl::StrSplit(ReadOutput(name), '\n', absl::SkipEmpty());
}

}  // namespace accrue
