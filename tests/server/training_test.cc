// A whole job through gRPC, the real core, the journal and the output folder, with workers that invent their numbers.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/file_system.h"
#include "tests/server/server_test_util.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class TrainingTest : public ServerTestBase {};

TEST_F(TrainingTest, Submit_OneWorker_CommitsEveryWindowOnceAndInOrder) {
  StartServer();
  v1::SubmitResponse response;
  const grpc::Status submitted = Submit(Request(), &response);
  ASSERT_TRUE(submitted.ok()) << submitted.error_message();
  EXPECT_EQ(response.job_id(), "headers-1");
  EXPECT_EQ(response.first_window(), 0);
  const auto worker = Worker();
  const Watched watched = Watch("headers-1");
  EXPECT_TRUE(watched.end.ok()) << watched.end.error_message();
  EXPECT_THAT(watched.WindowNumbers(), ElementsAre(0, 1, 2, 3));
  ASSERT_THAT(watched.statuses, testing::Not(IsEmpty()));
  const v1::JobStatus& last = watched.statuses.back();
  EXPECT_EQ(last.state(), v1::JOB_STATE_SUCCEEDED) << last.reason();
  EXPECT_EQ(last.window(), 4);
  EXPECT_EQ(last.digest(), FakeWorker::DigestAfter(4));
  EXPECT_GT(last.tokens_per_second(), 0);
  EXPECT_EQ(last.parameters(), 10);

  const std::vector<std::string> lines = Lines("windows.jsonl");
  ASSERT_THAT(lines, SizeIs(4));
  for (size_t window = 0; window < lines.size(); ++window) {
    const auto line = nlohmann::ordered_json::parse(lines[window]);
    EXPECT_EQ(line["window"], window);
    const v1::WindowRecord& record = watched.windows[window];
    EXPECT_EQ(line["loss"].get<double>(), record.loss());
    EXPECT_EQ(line["gradient_norm"].get<double>(), record.gradient_norm());
    EXPECT_EQ(line["learning_rate"].get<double>(), record.learning_rate());
    EXPECT_EQ(line["tokens"], 8 * 16);
    EXPECT_EQ(line["digest"], FakeWorker::DigestAfter(static_cast<int64_t>(window) + 1));
  }
  EXPECT_TRUE(FileSystem::Real().Exists(folder_ + "/out/job.json"));
  EXPECT_TRUE(FileSystem::Real().Exists(folder_ + "/out/checkpoints/window-00000004/manifest.json"));
}

}  // namespace
}  // namespace accrue
