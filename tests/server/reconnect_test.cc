// Workers that outlive the coordinator: they come back to the next one with what they hold, and nothing is lost.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <nlohmann/json.hpp>
#include <set>

#include "common/file_system.h"
#include "tests/server/server_test_util.h"

namespace accrue {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using M = v1::CoordinatorMessage;

class ReconnectTest : public ServerTestBase {
 protected:
  ServerOptions Options() const override {
    ServerOptions options = ServerTestBase::Options();
    options.reconnect_timeout_seconds = reconnect_seconds_;
    return options;
  }

  v1::SubmitRequest LongRequest(int64_t windows, int64_t workers = 1) const {
    v1::SubmitRequest request = Request();
    request.mutable_spec()->set_windows(windows);
    request.mutable_spec()->mutable_checkpoint()->set_every_windows(0);
    request.mutable_spec()->mutable_workers()->set_min(workers);
    request.mutable_spec()->mutable_workers()->set_max(workers);
    return request;
  }

  void WaitForWindow(size_t windows) {
    Watch("headers", 0, [&](const Watched& watched) { return watched.windows.size() >= windows; });
  }

  // Every window once, in order, none computed a second time.
  void ExpectWholeLog(int64_t windows) {
    const std::vector<std::string> lines = Lines("windows.jsonl");
    ASSERT_THAT(lines, SizeIs(windows));
    for (int64_t window = 0; window < windows; ++window) {
      const auto line = nlohmann::json::parse(lines[static_cast<size_t>(window)]);
      EXPECT_EQ(line["window"], window);
      EXPECT_EQ(line["timeline"], 0);
      EXPECT_EQ(line["digest"], FakeWorker::DigestAfter(window + 1));
    }
  }

  const v1::Refused& RefusalOf(FakeWorker& worker) {
    EXPECT_TRUE(worker.WaitForEnd());
    messages_ = worker.Messages();
    for (const M& message : messages_) {
      if (message.has_refused()) return message.refused();
    }
    ADD_FAILURE() << "it was not refused";
    return v1::Refused::default_instance();
  }

  double reconnect_seconds_ = 30;
  std::vector<M> messages_;
};

TEST_F(ReconnectTest, Restart_WorkerOutlivesIt_NoWindowIsComputedAgain) {
  StartServer();
  ASSERT_TRUE(Submit(LongRequest(300)).ok());
  auto worker = Worker();
  for (size_t stop : {20u, 60u, 100u}) {
    WaitForWindow(stop);
    StopServer();
    const FakeWorkerLife life = worker->Outlive();
    ASSERT_GT(life.incarnation, 0);
    StartServer();
    const v1::JobStatus status = Status("headers");
    EXPECT_EQ(status.state(), v1::JOB_STATE_WAITING);
    EXPECT_THAT(status.reason(), HasSubstr("the coordinator was restarted: waits for the 1 worker that"));
    EXPECT_EQ(status.parameters(), 10);
    worker = Worker("fake", life);
    ASSERT_TRUE(worker->WaitFor(M::kWelcome));
    EXPECT_TRUE(worker->Messages()[0].welcome().resumed());
    EXPECT_EQ(worker->Messages()[0].welcome().incarnation(), life.incarnation);
  }
  const Watched watched = Watch("headers");
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED) << watched.statuses.back().reason();
  EXPECT_THAT(watched.windows, SizeIs(300));
  ExpectWholeLog(300);
}

TEST_F(ReconnectTest, Restart_SomeWorkersOutliveIt_TheJobGoesOnWithThem) {
  StartServer();
  ASSERT_TRUE(Submit(LongRequest(200, 2)).ok());
  auto first = Worker("first"), second = Worker("second");
  WaitForWindow(10);
  StopServer();
  const FakeWorkerLife life = first->Outlive();
  second.reset();
  reconnect_seconds_ = 0.5;
  StartServer();
  first = Worker("first", life);
  const auto third = Worker("third");
  EXPECT_EQ(Watch("headers").statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  ExpectWholeLog(200);
}

TEST_F(ReconnectTest, Hello_IncarnationThatNobodyAwaits_MustRejoin) {
  StartServer();
  FakeWorkerLife life;
  life.incarnation = 5;
  EXPECT_THAT(RefusalOf(*Worker("stranger", life)).reason(), HasSubstr("no job awaits incarnation 5"));
  EXPECT_TRUE(messages_.back().refused().rejoin());
  life.incarnation = -1;
  EXPECT_TRUE(RefusalOf(*Worker("stranger", life)).rejoin());
}

TEST_F(ReconnectTest, Hello_OfTheSameTerm_MustRejoin_TheLivingStreamGoesOn) {
  StartServer();
  ASSERT_TRUE(Submit(LongRequest(200)).ok());
  auto worker = Worker();
  WaitForWindow(5);
  FakeWorkerLife life;
  life.incarnation = 1;
  EXPECT_TRUE(RefusalOf(*Worker("twin", life)).rejoin());
  EXPECT_THAT(messages_.back().refused().reason(), HasSubstr("is here already"));
  EXPECT_EQ(Watch("headers").statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  ExpectWholeLog(200);
}

TEST_F(ReconnectTest, Hello_StreamEndedWithinTheTerm_IsADeath) {
  StartServer();
  ASSERT_TRUE(Submit(LongRequest(100'000)).ok());
  auto worker = Worker();
  WaitForWindow(5);
  const FakeWorkerLife life = worker->Outlive();
  EXPECT_TRUE(RefusalOf(*Worker("fake", life)).rejoin());
}

TEST_F(ReconnectTest, Holding_OfTenThousandUnits_IsTaken) {
  StartServer();
  v1::SubmitRequest request = LongRequest(4);
  WriteShard(folder_ + "/data/train-0.bin", 20'001);
  request.mutable_spec()->mutable_batch()->set_sequences(10'000);
  request.mutable_spec()->mutable_batch()->set_micro_batch(1);
  request.mutable_spec()->mutable_batch()->set_sequence_length(2);
  ASSERT_TRUE(Submit(request).ok());
  auto worker = Worker();
  WaitForWindow(1);
  StopServer();
  FakeWorkerLife life = worker->Outlive();
  v1::Holding& holding = life.holding;
  // As much as a large model reports of each unit.
  if (holding.has_stepped()) holding.mutable_key()->set_window(holding.stepped().key().window() + 1);
  holding.clear_reports();
  for (int64_t unit = 0; unit < 10'000; ++unit) {
    v1::UnitReport& report = *holding.add_reports();
    report.set_unit(unit);
    for (int tensor = 0; tensor < 300; ++tensor) report.add_max_exponents(-300);
    for (int bucket = 0; bucket < 200; ++bucket) report.add_bucket_checksums(~uint64_t{0});
  }
  EXPECT_GT(holding.ByteSizeLong(), 20u << 20);
  StartServer();
  // It was read whole: what is wrong with it is said.
  EXPECT_THAT(RefusalOf(*Worker("fake", life)).reason(), HasSubstr("unit 0 has 300 exponents and 200 checksums"));
}

TEST_F(ReconnectTest, Holding_OfAnotherState_IsRefusedAndTheJobGoesBack) {
  StartServer();
  ASSERT_TRUE(Submit(LongRequest(50)).ok());
  auto worker = Worker();
  WaitForWindow(10);
  StopServer();
  FakeWorkerLife life = worker->Outlive();
  life.holding.set_digest("of something else");
  StartServer();
  EXPECT_TRUE(RefusalOf(*Worker("fake", life)).rejoin());
  EXPECT_THAT(messages_.back().refused().reason(), HasSubstr("cannot be used"));
  const auto fresh = Worker();
  const Watched watched = Watch("headers");
  EXPECT_EQ(watched.statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_GT(watched.windows.back().timeline(), 0);
  EXPECT_THAT(Lines("windows.jsonl"), SizeIs(50));
}

TEST_F(ReconnectTest, Start_StateOfVersion1_GoesOnAndTakesFreshJobs) {
  StartServer();
  v1::SubmitRequest request = LongRequest(400);
  request.mutable_spec()->mutable_checkpoint()->set_every_windows(3);
  ASSERT_TRUE(Submit(request).ok());
  {
    const auto worker = Worker();
    WaitForWindow(10);
    StopServer();
  }
  // What the first accrued had on disk.
  sqlite3* handle = nullptr;
  ASSERT_EQ(sqlite3_open((folder_ + "/state/journal.db").c_str(), &handle), SQLITE_OK);
  char* error = nullptr;
  EXPECT_EQ(sqlite3_exec(handle, "DROP TABLE positions; DROP TABLE layouts; ALTER TABLE ledger DROP COLUMN detail;"
                                 "ALTER TABLE jobs DROP COLUMN paused; PRAGMA user_version = 1", nullptr, nullptr,
                         &error), SQLITE_OK) << error;
  sqlite3_close(handle);
  StartServer();
  EXPECT_THAT(server_->warnings(), IsEmpty());
  EXPECT_GE(Status("headers").window(), 10);
  const auto worker = Worker();
  Watch("headers", 0, [](const Watched& watched) { return watched.statuses.back().state() == v1::JOB_STATE_RUNNING; });
  grpc::ClientContext context;
  v1::CancelRequest cancel;
  cancel.set_job("headers");
  v1::CancelResponse cancelled;
  ASSERT_TRUE(client_->Cancel(&context, cancel, &cancelled).ok());
  v1::SubmitRequest again = LongRequest(6);
  again.set_fresh(true);
  v1::SubmitResponse response;
  const grpc::Status submitted = Submit(again, &response);
  ASSERT_TRUE(submitted.ok()) << submitted.error_message();
  EXPECT_EQ(response.first_window(), 0);
  EXPECT_EQ(Watch(response.job_id()).statuses.back().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(Lines("windows.jsonl"), SizeIs(6));
}

}  // namespace
}  // namespace accrue
