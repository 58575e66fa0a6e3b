#include "tests/integration/cluster.h"

#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/data/shard.h"
#include "common/philox.h"
#include "common/spec/job_spec.h"

namespace accrue::integration {
namespace {

constexpr int kLongestStartMs = 60'000;
constexpr int kVocabulary = 61;

// Tokens with something to learn: each mostly follows from the one before.
void WriteShard(const std::string& path, int64_t tokens, uint64_t seed) {
  std::ofstream file(path, std::ios::binary);
  file << LlmcHeader(tokens, 2);
  uint16_t token = 0;
  for (int64_t i = 0; i < tokens; ++i) {
    const uint64_t random = SplitMix64(seed * 1'000'003 + static_cast<uint64_t>(i));
    token = static_cast<uint16_t>((token * 3 + 1 + (random % 10 == 0 ? random / 16 % kVocabulary : 0)) % kVocabulary);
    file.write(reinterpret_cast<const char*>(&token), sizeof(token));
  }
}

// Waits until a file of this name is moved into the folder, or the process has ended.
void WaitForFile(int watch, const std::string& path, Process& process) {
  while (access(path.c_str(), R_OK) != 0) {
    pollfd changed{watch, POLLIN, 0};
    if (poll(&changed, 1, kLongestStartMs) != 1) {
      ADD_FAILURE() << path << " did not appear; the coordinator wrote:\n" << process.Log();
      return;
    }
    char events[4096];
    if (read(watch, events, sizeof(events)) < 0) return;
  }
}

std::chrono::system_clock::time_point LongFromNow() {
  const std::chrono::nanoseconds now(Clock::Real().WallNowUnixNs());
  return std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(now + std::chrono::minutes(2)));
}

}  // namespace

std::string BinaryDirectory() {
  const char* const moved = std::getenv("ACCRUE_BINARY_DIRECTORY");
  return moved != nullptr ? moved : ACCRUE_BINARY_DIRECTORY;
}

v1::JobSpec TinyJob(int64_t windows, int64_t min_workers, int64_t max_workers) {
  v1::JobSpec spec;
  spec.set_name("tiny");
  v1::ModelSpec& model = *spec.mutable_model();
  model.set_architecture("gpt2");
  model.set_vocabulary(kVocabulary);
  model.set_context(16);
  model.set_layers(2);
  model.set_heads(2);
  model.set_width(16);
  model.set_dropout(0.1);
  spec.mutable_batch()->set_sequences(2 * kTinyUnits);
  spec.mutable_batch()->set_micro_batch(2);
  spec.mutable_optimizer()->set_learning_rate(3e-3);
  spec.mutable_schedule()->set_name("constant");  // does not depend on how many windows there are
  spec.set_windows(windows);
  spec.mutable_workers()->set_min(min_workers);
  spec.mutable_workers()->set_max(max_workers);
  spec.set_seed(11);
  return spec;
}

Cluster::Cluster(const std::vector<std::string>& coordinator_arguments)
    : coordinator_arguments_(coordinator_arguments) {
  std::string pattern = (std::filesystem::temp_directory_path() / "accrue-cluster-XXXXXX").string();
  ACCRUE_CHECK(mkdtemp(pattern.data()) != nullptr);
  folder_ = pattern;
  train_shard_ = folder_ + "/train-0.bin";
  validation_shard_ = folder_ + "/validation-0.bin";
  WriteShard(train_shard_, 5000, 1);
  WriteShard(folder_ + "/train-1.bin", 2000, 2);
  WriteShard(validation_shard_, 1000, 3);

  StartCoordinator("127.0.0.1:0");
}

void Cluster::StartCoordinator(const std::string& listen) {
  const int watch = inotify_init1(IN_CLOEXEC);
  inotify_add_watch(watch, folder_.c_str(), IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE);
  const std::string ready = folder_ + "/ready";
  std::filesystem::remove(ready);
  std::vector<std::string> arguments = {BinaryDirectory() + "/accrued", "--listen", listen, "--http", "none",
                                        "--state", folder_ + "/state", "--ready-file", ready, "--data-root", folder_};
  arguments.insert(arguments.end(), coordinator_arguments_.begin(), coordinator_arguments_.end());
  coordinator_ = std::make_unique<Process>(arguments, folder_ + "/accrued.log");
  WaitForFile(watch, ready, *coordinator_);
  close(watch);
  std::ifstream file(ready);
  address_ = nlohmann::json::parse(file, nullptr, false).value("grpc", "");
  EXPECT_NE(address_, "") << coordinator_->Log();
  // A channel of its own each time: one that has failed waits before it connects again.
  grpc::ChannelArguments channel;
  channel.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  jobs_ = v1::JobService::NewStub(grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), channel));
}

void Cluster::StopCoordinator(int signal) {
  coordinator_->Signal(signal);
  coordinator_->Wait();
}

void Cluster::StartCoordinatorAgain() { StartCoordinator(address_); }

void Cluster::ReplaceCoordinator() {
  StopCoordinator(SIGKILL);
  StartCoordinatorAgain();
}

Cluster::~Cluster() {
  if (testing::Test::HasFailure()) {
    ADD_FAILURE() << "accrued wrote:\n" << coordinator_->Log();
    for (size_t i = 0; i < workers_.size(); ++i) {
      ADD_FAILURE() << "worker " << i << " wrote:\n" << workers_[i]->Log();
    }
  }
  workers_.clear();
  coordinator_.reset();
  std::filesystem::remove_all(folder_);
}

Process& Cluster::AddWorker(int threads, const std::vector<std::string>& more_arguments) {
  const std::string name = absl::StrCat("worker-", workers_.size());
  std::vector<std::string> arguments = {BinaryDirectory() + "/accrue-worker", "--coordinator", address_, "--name",
                                        name, "--threads", absl::StrCat(threads)};
  arguments.insert(arguments.end(), more_arguments.begin(), more_arguments.end());
  workers_.push_back(std::make_unique<Process>(arguments, absl::StrCat(folder_, "/", name, ".log")));
  return *workers_.back();
}

std::string Cluster::Submit(v1::JobSpec spec, int64_t until) {
  spec.mutable_data()->add_train(folder_ + "/train-*.bin");
  spec.mutable_data()->add_validation(validation_shard_);
  v1::SubmitRequest request;
  *request.mutable_spec() = std::move(spec);
  request.set_output_directory(output());
  if (until > 0) request.set_until(until);
  v1::SubmitResponse response;
  grpc::ClientContext context;
  context.set_deadline(LongFromNow());
  const grpc::Status status = jobs_->Submit(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.job_id();
}

v1::JobStatus Cluster::Watch(const std::string& job, const std::function<bool(const v1::WindowRecord&)>& on_window) {
  grpc::ClientContext context;
  context.set_deadline(LongFromNow());
  v1::WatchRequest request;
  request.set_job(job);
  auto stream = jobs_->Watch(&context, request);
  v1::JobStatus last;
  v1::WatchResponse response;
  while (stream->Read(&response)) {
    if (response.has_status()) last = response.status();
    if (response.has_window() && on_window && !on_window(response.window())) {
      context.TryCancel();
      stream->Finish();
      return last;
    }
  }
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  return last;
}

void Cluster::Run(const v1::JobSpec& spec, int64_t until) {
  const v1::JobStatus status = Watch(Submit(spec, until));
  EXPECT_EQ(status.state(), v1::JOB_STATE_SUCCEEDED) << status.DebugString();
}

void Cluster::Cancel(const std::string& job) {
  grpc::ClientContext context;
  context.set_deadline(LongFromNow());
  v1::CancelRequest request;
  request.set_job(job);
  request.set_reason("enough");
  v1::CancelResponse response;
  const grpc::Status status = jobs_->Cancel(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

v1::JobStatus Cluster::Describe(const std::string& job) {
  grpc::ClientContext context;
  context.set_deadline(LongFromNow());
  v1::DescribeRequest request;
  request.set_job(job);
  v1::DescribeResponse response;
  const grpc::Status status = jobs_->Describe(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.status();
}

std::string Cluster::Ledger(const std::string& job) {
  grpc::ClientContext context;
  context.set_deadline(LongFromNow());
  v1::EventsRequest request;
  request.set_job(job);
  auto stream = jobs_->Events(&context, request);
  std::string reasons;
  v1::EventsResponse response;
  while (stream->Read(&response)) absl::StrAppend(&reasons, response.entry().kind(), ": ", response.entry().reason(), "\n");
  EXPECT_TRUE(stream->Finish().ok());
  return reasons;
}

void Cluster::WaitForLedger(const std::string& job, const std::string& text) {
  grpc::ClientContext context;
  context.set_deadline(LongFromNow());
  v1::EventsRequest request;
  request.set_job(job);
  request.set_follow(true);
  auto stream = jobs_->Events(&context, request);
  v1::EventsResponse response;
  bool found = false;
  while (!found && stream->Read(&response)) found = absl::StrContains(response.entry().reason(), text);
  EXPECT_TRUE(found) << "the ledger never said: " << text;
  context.TryCancel();
  stream->Finish();
}

std::vector<WindowLine> Cluster::Windows() const {
  std::vector<WindowLine> lines;
  std::ifstream file(output() + "/windows.jsonl");
  for (std::string text; std::getline(file, text);) {
    const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
    if (json.is_discarded()) {
      ADD_FAILURE() << "not a JSON object: " << text;
      continue;
    }
    WindowLine line{json.value("window", int64_t{-1}), json.value("loss", 0.0), json.value("digest", ""),
                    json.value("tokens", int64_t{0})};
    for (const nlohmann::json& worker : json.value("workers", nlohmann::json::array())) {
      line.units.push_back(worker.value("units", int64_t{0}));
    }
    line.timeline = json.value("timeline", int64_t{-1});
    line.skipped = json.value("skipped", false);
    line.loss_scale = json.value("loss_scale", int64_t{0});
    EXPECT_EQ(line.window, static_cast<int64_t>(lines.size())) << "windows.jsonl is out of order";
    lines.push_back(line);
  }
  return lines;
}

std::vector<std::string> Cluster::Digests() const {
  std::vector<std::string> digests;
  for (const WindowLine& line : Windows()) digests.push_back(line.digest);
  return digests;
}

}  // namespace accrue::integration
