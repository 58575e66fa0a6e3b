#include "worker/backend/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <cfenv>
#include <limits>
#include <vector>

namespace accrue {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, ParallelFor_ManyOperations_EveryTaskRunsOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  for (int operation = 0; operation < 300; ++operation) {
    std::vector<int> runs(operation % 37, 0);
    pool.ParallelFor(runs.size(), [&](int64_t task) { ++runs[task]; });
    for (int run : runs) ASSERT_EQ(run, 1);
  }
}

TEST_P(ThreadPoolTest, ParallelFor_OnReturn_ResultsAreVisible) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> values(1000, 1);
  for (int pass = 0; pass < 50; ++pass) {
    pool.ParallelFor(values.size(), [&](int64_t task) { values[task] += task; });
  }
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], 1 + 50 * static_cast<int64_t>(i));
}

TEST_P(ThreadPoolTest, ParallelFor_ForeignRoundingInTheCaller_TasksRoundToNearest) {
  ThreadPool pool(GetParam());
  std::fesetround(FE_UPWARD);
  std::vector<int> modes(64, -1);
  std::vector<float> denormals(64, 0);
  volatile float small = std::numeric_limits<float>::min();
  pool.ParallelFor(64, [&](int64_t task) {
    modes[task] = std::fegetround();
    denormals[task] = small / 2;
  });
  for (int mode : modes) EXPECT_EQ(mode, FE_TONEAREST);
  for (float denormal : denormals) EXPECT_GT(denormal, 0);
}

TEST_P(ThreadPoolTest, CurrentThread_InABody_IsWithinThePool) {
  ThreadPool pool(GetParam());
  std::vector<int> threads(256, -1);
  pool.ParallelFor(256, [&](int64_t task) { threads[task] = ThreadPool::CurrentThread(); });
  for (int thread : threads) {
    EXPECT_GE(thread, 0);
    EXPECT_LT(thread, GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 5, 16, 64));

TEST(ThreadPool, Constructor_ZeroThreads_TakesWhatTheProcessMay) { EXPECT_GE(ThreadPool(0).threads(), 1); }

}  // namespace
}  // namespace accrue
