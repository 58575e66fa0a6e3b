// Whole jobs through gRPC, the real core, the journal and the output folder, with workers that invent their numbers.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_split.h"
#include "common/checkpoint/manifest.h"
#include "common/file_system.h"
#include "coordinator/server/address.h"
#include "tests/server/server_test_util.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class TrainingTest : public ServerTestBase {
 protected:
  // Submits, trains with one worker until the job is over.
  Watched Train(const v1::SubmitRequest& request) {
    v1::SubmitResponse response;
    const grpc::Status submitted = Submit(request, &response);
    EXPECT_TRUE(submitted.ok()) << submitted.error_message();
    const auto worker = Worker();
    Watched watched = Watch(response.job_id());
    EXPECT_TRUE(watched.end.ok()) << watched.end.error_message();
    EXPECT_THAT(watched.statuses, Not(IsEmpty()));
    return watched;
  }

  void ExpectWholeLog(int64_t windows) const {
    const std::vector<std::string> lines = Lines("windows.jsonl");
    ASSERT_THAT(lines, SizeIs(windows));
    for (int64_t window = 0; window < windows; ++window) {
      const auto line = nlohmann::json::parse(lines[static_cast<size_t>(window)]);
      EXPECT_EQ(line["window"], window);
      EXPECT_EQ(line["digest"], FakeWorker::DigestAfter(window + 1));
    }
  }

  std::vector<v1::CheckpointInfo> Checkpoints(const std::string& job) const {
    grpc::ClientContext context;
    v1::ListCheckpointsRequest request;
    request.set_job(job);
    v1::ListCheckpointsResponse response;
    EXPECT_TRUE(client_->ListCheckpoints(&context, request, &response).ok());
    return {response.checkpoints().begin(), response.checkpoints().end()};
  }

  std::string HttpGet(const std::string& path) const {
    const auto address = ParseLoopbackAddress(server_->http_address());
    httplib::Client client(address->host, address->port);
    const auto answer = client.Get(path.c_str());
    return answer ? answer->body : "";
  }
};

TEST_F(TrainingTest, Train_OneWorker_CommitsEveryWindowOnceAndInOrder) {
  StartServer();
  const Watched watched = Train(Request());
  EXPECT_THAT(watched.WindowNumbers(), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(watched.statuses.front().window(), 0);
  const v1::JobStatus& last = watched.statuses.back();
  EXPECT_EQ(last.state(), v1::JOB_STATE_SUCCEEDED) << last.reason();
  EXPECT_EQ(last.window(), 4);
  EXPECT_EQ(last.digest(), FakeWorker::DigestAfter(4));
  EXPECT_GT(last.tokens_per_second(), 0);
  EXPECT_EQ(last.parameters(), 10);
  EXPECT_TRUE(last.reproducible());

  ExpectWholeLog(4);
  const std::vector<std::string> lines = Lines("windows.jsonl");
  for (size_t window = 0; window < lines.size(); ++window) {
    const auto line = nlohmann::json::parse(lines[window]);
    const v1::WindowRecord& record = watched.windows[window];
    EXPECT_EQ(line["loss"].get<double>(), record.loss());
    EXPECT_EQ(line["gradient_norm"].get<double>(), record.gradient_norm());
    EXPECT_EQ(line["learning_rate"].get<double>(), record.learning_rate());
    EXPECT_EQ(line["tokens"], 8 * 16);
    // The mean over units of what the worker reports, by hand.
    const double loss = FakeWorker::UnitLoss(static_cast<int64_t>(window), 0) + 0.1 * (0 + 1 + 2 + 3) / 4;
    EXPECT_NEAR(record.loss(), loss, 1e-12);
  }
}

TEST_F(TrainingTest, Train_TwoWorkers_ShareEveryWindow) {
  StartServer();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_workers()->set_min(2);
  request.mutable_spec()->mutable_workers()->set_max(2);
  v1::SubmitResponse response;
  ASSERT_TRUE(Submit(request, &response).ok());
  const auto first = Worker("first"), second = Worker("second");
  const Watched watched = Watch(response.job_id());
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED) << watched.statuses.back().reason();
  ASSERT_THAT(watched.windows, SizeIs(4));
  for (const v1::WindowRecord& window : watched.windows) {
    ASSERT_THAT(window.workers(), SizeIs(2));
    EXPECT_EQ(window.workers(0).units() + window.workers(1).units(), 4);
  }
  ExpectWholeLog(4);
}

TEST_F(TrainingTest, Train_PlansNameTheSequencesOfTheirUnits) {
  StartServer();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_data()->set_order("sequential");
  ASSERT_TRUE(Submit(request).ok());
  const auto worker = Worker();
  EXPECT_EQ(Watch("headers").statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  int plans = 0;
  for (const v1::CoordinatorMessage& message : worker->Messages()) {
    if (!message.has_plan() || message.plan().units_size() != 1) continue;
    const v1::Plan& plan = message.plan();
    ASSERT_EQ(plan.units(0).count(), 4);
    ASSERT_EQ(plan.sequences_size(), 8);
    for (int i = 0; i < 8; ++i) {
      EXPECT_EQ(plan.sequences(i).first_token(), (plan.key().window() * 8 + i) * 16);
      EXPECT_EQ(plan.sequences(i).count(), 17);
    }
    ++plans;
  }
  EXPECT_EQ(plans, 4);
}

TEST_F(TrainingTest, Train_Checkpoints_AreVerifiedKeptAndListed) {
  StartServer();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_windows(8);
  request.mutable_spec()->mutable_checkpoint()->set_keep(2);
  Train(request);
  const std::vector<v1::CheckpointInfo> checkpoints = Checkpoints("headers");
  ASSERT_THAT(checkpoints, SizeIs(2));
  EXPECT_EQ(checkpoints[1].window(), 8);
  EXPECT_EQ(checkpoints[1].digest(), FakeWorker::DigestAfter(8));
  EXPECT_TRUE(checkpoints[1].verified());
  EXPECT_GT(checkpoints[1].written_unix_ns(), 0);
  const auto manifest = ReadManifest(FileSystem::Real(), checkpoints[1].directory());
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->window, 8);
  EXPECT_EQ(manifest->steps, 8);
  EXPECT_THAT(manifest->tensors, ElementsAre("weight"));
  EXPECT_THAT(manifest->exponents, SizeIs(1));
}

TEST_F(TrainingTest, Train_Evaluations_AreReportedAndLogged) {
  StartServer();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_data()->add_validation("validation-0.bin");
  request.mutable_spec()->mutable_evaluation()->set_every_windows(2);
  request.mutable_spec()->mutable_evaluation()->set_sequences(8);
  const Watched watched = Train(request);
  ASSERT_THAT(watched.evaluations, SizeIs(2));
  EXPECT_EQ(watched.evaluations[0].window(), 2);
  EXPECT_EQ(watched.evaluations[1].window(), 4);
  EXPECT_EQ(watched.evaluations[0].loss(), 2.0);
  EXPECT_EQ(watched.evaluations[0].tokens(), 8 * 16);
  EXPECT_EQ(watched.statuses.back().validation_loss(), 2.0);
  ASSERT_THAT(Lines("evaluations.jsonl"), SizeIs(2));
  EXPECT_EQ(nlohmann::json::parse(Lines("evaluations.jsonl")[1])["window"], 4);
}

TEST_F(TrainingTest, Watch_FromAWindow_SendsTheRest) {
  StartServer();
  Train(Request());
  EXPECT_THAT(Watch("headers", 2).WindowNumbers(), ElementsAre(2, 3));
  EXPECT_THAT(Watch("headers", 9).WindowNumbers(), IsEmpty());
  EXPECT_EQ(Watch("headers", 9).statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(TrainingTest, Watch_CutAndResumed_MissesNothing) {
  StartServer();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_windows(40);
  ASSERT_TRUE(Submit(request).ok());
  const auto worker = Worker();
  const Watched first = Watch("headers", 0, [](const Watched& watched) { return watched.windows.size() == 3; });
  EXPECT_EQ(first.end.error_code(), grpc::StatusCode::CANCELLED);
  std::vector<int64_t> numbers = first.WindowNumbers();
  const std::vector<int64_t> rest = Watch("headers", numbers.back() + 1).WindowNumbers();
  numbers.insert(numbers.end(), rest.begin(), rest.end());
  ASSERT_THAT(numbers, SizeIs(40));
  for (int64_t window = 0; window < 40; ++window) EXPECT_EQ(numbers[static_cast<size_t>(window)], window);
}

TEST_F(TrainingTest, Watch_CoordinatorShutsDown_SaysFromWhereToGoOn) {
  StartServer();
  ASSERT_TRUE(Submit(Request()).ok());  // no worker: it waits
  const Watched watched = Watch("headers", 0, [this](const Watched& so_far) {
    if (!so_far.statuses.empty()) server_.reset();
    return false;
  });
  EXPECT_EQ(watched.end.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(watched.end.error_message(), HasSubstr("watch again from window 0"));
}

TEST_F(TrainingTest, Events_TellTheWholeStoryWithReasons) {
  StartServer();
  Train(Request());
  grpc::ClientContext context;
  v1::EventsRequest request;
  request.set_job("headers");
  request.set_follow(true);
  const auto reader = client_->Events(&context, request);
  std::vector<std::string> kinds;
  v1::EventsResponse response;
  int64_t sequence = 0;
  while (reader->Read(&response)) {
    EXPECT_EQ(response.entry().sequence(), ++sequence);
    kinds.push_back(response.entry().kind());
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(kinds.front(), "submitted");
  for (const char* kind : {"epoch", "commit", "checkpoint", "state"}) EXPECT_THAT(kinds, testing::Contains(kind));
}

TEST_F(TrainingTest, Submit_SameJobAgain_IsDoneAtOnce) {
  StartServer();
  Train(Request());
  v1::SubmitResponse response;
  ASSERT_TRUE(Submit(Request(), &response).ok());
  EXPECT_EQ(response.first_window(), 4);
  const Watched watched = Watch(response.job_id());
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(watched.statuses.back().digest(), FakeWorker::DigestAfter(4));
  EXPECT_NEAR(watched.statuses.back().loss(), FakeWorker::UnitLoss(3, 0) + 0.15, 1e-12);
  ExpectWholeLog(4);
}

TEST_F(TrainingTest, Submit_UntilThenOn_ContinuesTheSameLog) {
  StartServer();
  v1::SubmitRequest request = Request();
  request.set_until(3);
  EXPECT_EQ(Train(request).statuses.back().window(), 3);
  ExpectWholeLog(3);
  request.clear_until();
  const Watched rest = Train(request);
  EXPECT_THAT(rest.WindowNumbers(), ElementsAre(3));
  EXPECT_EQ(rest.statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  ExpectWholeLog(4);
}

TEST_F(TrainingTest, Submit_ResumeFrom_RewindsTheLog) {
  StartServer();
  Train(Request());
  v1::SubmitRequest request = Request();
  request.set_resume_from(2);
  const Watched again = Train(request);
  EXPECT_THAT(again.WindowNumbers(), ElementsAre(2, 3));
  EXPECT_GT(again.windows.front().timeline(), 0);
  ExpectWholeLog(4);
}

TEST_F(TrainingTest, Submit_Fresh_StartsOver) {
  StartServer();
  Train(Request());
  v1::SubmitRequest request = Request();
  request.set_fresh(true);
  EXPECT_THAT(Train(request).WindowNumbers(), ElementsAre(0, 1, 2, 3));
  ExpectWholeLog(4);
}

TEST_F(TrainingTest, Submit_AnotherSpecInTheFolder_IsRefused) {
  StartServer();
  Train(Request());
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_seed(99);
  const grpc::Status status = Submit(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("seed: 0 -> 99"));
}

TEST_F(TrainingTest, Cancel_WithACheckpoint_LeavesOneToResumeFrom) {
  StartServer();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_windows(100000);
  request.mutable_spec()->mutable_checkpoint()->set_every_windows(0);
  ASSERT_TRUE(Submit(request).ok());
  auto worker = Worker();
  Watch("headers", 0, [](const Watched& watched) { return watched.windows.size() >= 2; });
  grpc::ClientContext context;
  v1::CancelRequest cancel;
  cancel.set_job("headers");
  cancel.set_reason("enough");
  cancel.set_checkpoint(true);
  v1::CancelResponse response;
  ASSERT_TRUE(client_->Cancel(&context, cancel, &response).ok());
  const Watched end = Watch("headers");
  EXPECT_EQ(end.statuses.back().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_THAT(end.statuses.back().reason(), HasSubstr("enough"));
  ASSERT_THAT(Checkpoints("headers"), SizeIs(1));
  EXPECT_EQ(Checkpoints("headers")[0].window(), end.statuses.back().window());
  // Once over, it cannot be cancelled again.
  grpc::ClientContext again;
  EXPECT_EQ(client_->Cancel(&again, cancel, &response).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(TrainingTest, Pause_ThenResume_LosesNothing) {
  StartServer();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_windows(60);
  ASSERT_TRUE(Submit(request).ok());
  grpc::ClientContext pausing, resuming;
  v1::PauseRequest pause;
  pause.set_job("headers");
  v1::PauseResponse paused;
  const auto worker = Worker();
  ASSERT_TRUE(client_->Pause(&pausing, pause, &paused).ok());
  const Watched until_paused = Watch("headers", 0, [](const Watched& watched) {
    return watched.statuses.back().state() == v1::JOB_STATE_PAUSED;
  });
  EXPECT_EQ(until_paused.statuses.back().state(), v1::JOB_STATE_PAUSED);
  v1::ResumeRequest resume;
  resume.set_job("headers");
  v1::ResumeResponse resumed;
  ASSERT_TRUE(client_->Resume(&resuming, resume, &resumed).ok());
  EXPECT_EQ(Watch("headers").statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  ExpectWholeLog(60);
}

TEST_F(TrainingTest, Http_ShowsTheJob) {
  StartServer();
  Train(Request());
  EXPECT_EQ(HttpGet("/healthz"), "ok\n");
  EXPECT_EQ(HttpGet("/readyz"), "ready\n");
  EXPECT_THAT(HttpGet("/metrics"), HasSubstr("accrue_windows_committed_total{accrue_job=\"headers-1\"} 4"));
  EXPECT_THAT(HttpGet("/metrics"), HasSubstr("accrue_checkpoint_window{accrue_job=\"headers-1\"} 4"));
  const std::string page = HttpGet("/");
  EXPECT_THAT(page, HasSubstr("<b>headers-1</b>"));
  EXPECT_THAT(page, HasSubstr("4 of 4 windows"));
  EXPECT_THAT(page, HasSubstr("<polyline"));
}

class SmallJournalTest : public TrainingTest {
 protected:
  ServerOptions Options() const override {
    ServerOptions options = TrainingTest::Options();
    options.journal_max_page_count = 60;
    return options;
  }
};

TEST_F(SmallJournalTest, FullDisk_TheJobFailsWithThatReasonAndTheRecordIsWhole) {
  StartServer();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_windows(100000);
  request.mutable_spec()->mutable_checkpoint()->set_every_windows(0);
  ASSERT_TRUE(Submit(request).ok());
  const auto worker = Worker();
  const Watched watched = Watch("headers");
  ASSERT_THAT(watched.statuses, Not(IsEmpty()));
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(watched.statuses.back().reason(), HasSubstr("full"));
  EXPECT_THAT(watched.windows, Not(IsEmpty()));
  ExpectWholeLog(static_cast<int64_t>(watched.windows.size()));
  EXPECT_TRUE(worker->WaitFor(v1::CoordinatorMessage::kRelease));
}

// The real file system, until the disk is full for one file.
class FillingFileSystem : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override {
    auto file = real_.OpenForAppend(path);
    if (!file.ok() || BaseName(path) != "windows.jsonl") return file;
    return std::unique_ptr<WritableFile>(std::make_unique<FillingFile>(*std::move(file)));
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override { return real_.Create(path); }
  absl::StatusOr<std::unique_ptr<MappedFile>> Map(const std::string& path) override { return real_.Map(path); }
  absl::StatusOr<std::string> ReadAll(const std::string& path, size_t limit_bytes) override {
    return real_.ReadAll(path, limit_bytes);
  }
  absl::StatusOr<uint64_t> SizeBytes(const std::string& path) override { return real_.SizeBytes(path); }
  bool Exists(const std::string& path) override { return real_.Exists(path); }
  bool IsDirectory(const std::string& path) override { return real_.IsDirectory(path); }
  bool IsSymbolicLink(const std::string& path) override { return real_.IsSymbolicLink(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override { return real_.List(directory); }
  absl::Status CreateDirectories(const std::string& path) override { return real_.CreateDirectories(path); }
  absl::Status Rename(const std::string& from, const std::string& to) override { return real_.Rename(from, to); }
  absl::Status RemoveAll(const std::string& path) override { return real_.RemoveAll(path); }
  absl::Status SyncDirectory(const std::string& directory) override { return real_.SyncDirectory(directory); }

 private:
  // Takes three lines, and half of the fourth.
  class FillingFile : public WritableFile {
   public:
    explicit FillingFile(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
    absl::Status Append(const void* data, size_t size_bytes) override {
      if (++lines_ <= 3) return file_->Append(data, size_bytes);
      const absl::Status half = file_->Append(data, size_bytes / 2);
      return half.ok() ? absl::ResourceExhaustedError("cannot write windows.jsonl: no space left") : half;
    }
    absl::Status Sync() override { return file_->Sync(); }
    absl::Status Close() override { return file_->Close(); }

   private:
    const std::unique_ptr<WritableFile> file_;
    int lines_ = 0;
  };

  FileSystem& real_ = FileSystem::Real();
};

class FillingDiskTest : public TrainingTest {
 protected:
  ServerOptions Options() const override {
    ServerOptions options = TrainingTest::Options();
    if (full_) options.file_system = &file_system_;
    return options;
  }
  mutable FillingFileSystem file_system_;
  bool full_ = true;
};

TEST_F(FillingDiskTest, WindowLogCannotBeWritten_TheJobFailsAndResumesWithRoom) {
  StartServer();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_windows(20);
  const Watched watched = Train(request);
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(watched.statuses.back().reason(), HasSubstr("no space left"));
  StopServer();
  full_ = false;
  StartServer();
  EXPECT_EQ(Status("headers-1").state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Status("headers-1").reason(), HasSubstr("no space left"));
  const Watched rest = Train(request);
  EXPECT_EQ(rest.statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(rest.windows.front().window(), 2);
  ExpectWholeLog(20);
}

}  // namespace
}  // namespace accrue
