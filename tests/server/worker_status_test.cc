#include "coordinator/server/worker_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace accrue {
namespace {

using testing::HasSubstr;

core::WorkerView Worker(int64_t incarnation, const std::string& name, const std::string& job, double unit_seconds) {
  core::WorkerView worker;
  worker.incarnation = Incarnation(incarnation);
  worker.name = name;
  worker.job = job;
  worker.unit_seconds = unit_seconds;
  return worker;
}

TEST(WorkerStatusTest, StatusOfWorkers_RelativeToTheMedianOfTheirJob) {
  const auto workers = StatusOfWorkers({Worker(1, "a", "x", 0.1), Worker(2, "b", "x", 0.3), Worker(3, "c", "x", 0.11),
                                        Worker(4, "d", "y", 0.9), Worker(5, "e", "", 0.2), Worker(6, "f", "x", 0)});
  ASSERT_EQ(workers.size(), 6u);
  EXPECT_DOUBLE_EQ(workers[0].relative_unit_time(), 0.1 / 0.11);
  EXPECT_DOUBLE_EQ(workers[1].relative_unit_time(), 0.3 / 0.11);
  EXPECT_DOUBLE_EQ(workers[2].relative_unit_time(), 1);
  EXPECT_DOUBLE_EQ(workers[3].relative_unit_time(), 1);  // of another job
  EXPECT_EQ(workers[4].relative_unit_time(), 0);         // of none
  EXPECT_EQ(workers[5].relative_unit_time(), 0);         // not measured yet
  EXPECT_EQ(workers[1].incarnation(), 2);
  EXPECT_EQ(workers[1].name(), "b");
}

TEST(WorkerStatusTest, StatusOfWorkers_OfTwo_TheSlowOneStandsOut) {
  const auto workers = StatusOfWorkers({Worker(1, "slow", "x", 0.3), Worker(2, "fast", "x", 0.1)});
  EXPECT_DOUBLE_EQ(workers[0].relative_unit_time(), 0.3 / 0.1);
  EXPECT_DOUBLE_EQ(workers[1].relative_unit_time(), 1);
}

TEST(WorkerStatusTest, FindWorker_ByIncarnationThenByName) {
  const std::vector<core::WorkerView> workers = {Worker(7, "a", "", 0), Worker(8, "7", "", 0), Worker(9, "b", "", 0),
                                                 Worker(10, "b", "", 0)};
  EXPECT_EQ(FindWorker(workers, "a")->incarnation, Incarnation(7));
  EXPECT_EQ(FindWorker(workers, "7")->incarnation, Incarnation(7));
  EXPECT_EQ(FindWorker(workers, "10")->incarnation, Incarnation(10));
  EXPECT_EQ(FindWorker(workers, "c").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(FindWorker(workers, "").status().code(), absl::StatusCode::kNotFound);
  const absl::Status several = FindWorker(workers, "b").status();
  EXPECT_EQ(several.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(several.message(), HasSubstr("name one by its incarnation: 9, 10"));
}

}  // namespace
}  // namespace accrue
