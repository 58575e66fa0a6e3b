// workers, worker drain and events against a scripted coordinator.
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/client_runner.h"
#include "tests/client/fake_job_service.h"

namespace accrue {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class WorkerCommandsTest : public ::testing::Test {
 protected:
  ClientResult Run(std::vector<std::string> arguments) {
    if (address_.empty()) address_ = service_.Start();
    arguments.insert(arguments.begin(), {"--coordinator", address_});
    return RunAccrue(arguments);
  }
  static v1::LedgerEntry Entry(int64_t sequence, const std::string& kind = "commit") {
    v1::LedgerEntry entry;
    entry.set_sequence(sequence);
    entry.set_unix_ns(1'700'000'000'000'000'000);
    entry.set_kind(kind);
    entry.set_window(sequence);
    return entry;
  }
  static std::vector<int64_t> Sequences(const std::string& out) {
    std::vector<int64_t> sequences;
    std::istringstream lines(out);
    for (std::string line; std::getline(lines, line);) sequences.push_back(json::parse(line)["sequence"]);
    return sequences;
  }

  FakeJobService service_;
  std::string address_;
};

TEST_F(WorkerCommandsTest, Workers_SlowAgainstTheMedian_Marked) {
  service_.relative_unit_time = 3.2;
  EXPECT_EQ(Run({"workers"}).out,
            "WORKER   INCARNATION  STATE      JOB        DEVICE     UNIT  VS MEDIAN  MEMORY  WINDOWS\n"
            "host:42            7  computing  headers-1  cpu     31.5 ms  3.2x slow     0 B        0\n");
  EXPECT_EQ(json::parse(Run({"workers", "-o", "json"}).out)["workers"][0]["relative_unit_time"], 3.2);
}

TEST_F(WorkerCommandsTest, Workers_AsFastAsOthersOrNotMeasured_NotMarked) {
  service_.relative_unit_time = 1.4;
  EXPECT_THAT(Run({"workers"}).out, HasSubstr("31.5 ms       1.4x"));
  service_.relative_unit_time = 0;
  EXPECT_THAT(Run({"workers"}).out, HasSubstr("31.5 ms          -"));
}

TEST_F(WorkerCommandsTest, Drain_AtTheWindowsEnd) {
  const ClientResult result = Run({"worker", "drain", "host:42"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "host:42 (incarnation 7) finishes the window on the way, then ends\n");
  EXPECT_EQ(service_.drained().worker(), "host:42");
  EXPECT_FALSE(service_.drained().at_once());
  EXPECT_EQ(service_.drained().reason(), "drained with accrue worker drain");
}

TEST_F(WorkerCommandsTest, Drain_AtOnceWithAReason) {
  const ClientResult result = Run({"worker", "drain", "7", "--now", "--reason", "maintenance", "-o", "json"});
  EXPECT_EQ(json::parse(result.out)["incarnation"], 7);
  EXPECT_TRUE(service_.drained().at_once());
  EXPECT_EQ(service_.drained().reason(), "maintenance");
  EXPECT_THAT(Run({"worker", "drain", "7", "--now"}).out, HasSubstr("hands its units back and ends\n"));
}

TEST_F(WorkerCommandsTest, Drain_Unknown_ExitCode4) {
  const ClientResult result = Run({"worker", "drain", "nobody"});
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, HasSubstr("no worker \"nobody\""));
  EXPECT_EQ(Run({"worker"}).exit_code, 2);
  EXPECT_EQ(Run({"worker", "drain"}).exit_code, 2);
}

TEST_F(WorkerCommandsTest, Events_DetailIsJsonWithinJsonAndShownAsText) {
  service_.events = {Entry(1), Entry(2)};
  service_.events[0].set_detail(R"({"loss":3.5})");
  service_.status = MakeStatus(v1::JOB_STATE_SUCCEEDED, 2);
  EXPECT_THAT(Run({"events", "headers"}).out, HasSubstr("#1  commit  window 1  {\"loss\":3.5}\n"));
  std::istringstream lines(Run({"events", "headers", "-o", "json"}).out);
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(json::parse(line)["detail"]["loss"], 3.5);
  std::getline(lines, line);
  EXPECT_TRUE(json::parse(line)["detail"].is_null());
}

TEST_F(WorkerCommandsTest, Events_NoFollow_EndsAtOnce) {
  service_.events = {Entry(1), Entry(2)};
  const ClientResult result = Run({"events", "headers", "--no-follow", "-o", "json"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(Sequences(result.out), ElementsAre(1, 2));
  EXPECT_FALSE(service_.event_calls().back().follow());
}

TEST_F(WorkerCommandsTest, Events_ConnectionBreaks_GoesOnAfterTheLastSequenceUntilTheJobEnds) {
  service_.events = {Entry(1), Entry(2), Entry(3), Entry(4)};
  // It breaks after two entries, before any, and ends like a job's although the job still runs.
  service_.event_scripts = {{2, grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken")},
                            {0, grpc::Status(grpc::StatusCode::UNAVAILABLE, "still broken")},
                            {1, grpc::Status::OK},
                            {4, grpc::Status::OK, [this] { service_.SetStatus(MakeStatus(v1::JOB_STATE_SUCCEEDED, 4)); }}};
  const ClientResult result = Run({"events", "headers", "-o", "json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(Sequences(result.out), ElementsAre(1, 2, 3, 4));
  std::vector<int64_t> from;
  for (const v1::EventsRequest& call : service_.event_calls()) {
    from.push_back(call.first_sequence());
    EXPECT_EQ(call.job(), "headers-1");  // a newer job of the name must not take over
    EXPECT_TRUE(call.follow());
  }
  EXPECT_THAT(from, ElementsAre(0, 3, 3, 4));
  EXPECT_THAT(result.err, HasSubstr("connection lost; trying again from entry 3\n"));
  EXPECT_THAT(result.err, HasSubstr("connected again, from entry 3\n"));
}

TEST_F(WorkerCommandsTest, Events_ToldTwice_PrintedOnce) {
  service_.events = {Entry(1), Entry(2)};
  service_.repeat_events = true;  // whatever entry is asked for
  service_.event_scripts = {{1, grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken")}, {2, grpc::Status::OK}};
  service_.status = MakeStatus(v1::JOB_STATE_SUCCEEDED, 2);
  EXPECT_THAT(Sequences(Run({"events", "headers", "-o", "json"}).out), ElementsAre(1, 2));
}

TEST_F(WorkerCommandsTest, Events_CannotSucceed_Fails) {
  service_.event_scripts = {{0, grpc::Status(grpc::StatusCode::NOT_FOUND, "no job \"headers-1\"")}};
  const ClientResult result = Run({"events", "headers"});
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, HasSubstr("no job \"headers-1\""));
}

}  // namespace
}  // namespace accrue
