// The promise, with real processes: the digests of a job are the same whoever computes it.
#include <signal.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/integration/cluster.h"

namespace accrue::integration {
namespace {

constexpr int64_t kWindows = 8;

bool CpuHasBf16() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.find("avx512_bf16") != std::string::npos) return true;
  }
  return false;
}

v1::JobSpec SpecOf(const std::string& precision, int64_t windows, int64_t min_workers, int64_t max_workers) {
  v1::JobSpec spec = TinyJob(windows, min_workers, max_workers);
  spec.set_precision(precision);
  return spec;
}

// Of one worker with one thread, nothing happening.
const std::vector<std::string>& UndisturbedDigests(const std::string& precision) {
  static std::map<std::string, std::vector<std::string>> digests;
  if (digests.count(precision) == 0) {
    Cluster cluster;
    cluster.AddWorker();
    cluster.Run(SpecOf(precision, kWindows, 1, 1));
    digests[precision] = cluster.Digests();
  }
  return digests[precision];
}

class Training : public testing::TestWithParam<std::tuple<std::string, int, int>> {};

TEST_P(Training, Digests_WorkersAndThreads_Equal) {
  const auto& [precision, workers, threads] = GetParam();
  if (precision == "bf16" && !CpuHasBf16()) GTEST_SKIP() << "this CPU has no AVX-512 bf16";
  const std::vector<std::string>& expected = UndisturbedDigests(precision);
  ASSERT_EQ(expected.size(), static_cast<size_t>(kWindows));
  EXPECT_EQ(std::set<std::string>(expected.begin(), expected.end()).size(), expected.size()) << "the state changes";

  Cluster cluster;
  for (int i = 0; i < workers; ++i) cluster.AddWorker(threads);
  cluster.Run(SpecOf(precision, kWindows, workers, workers));
  EXPECT_EQ(cluster.Digests(), expected);
  for (const WindowLine& line : cluster.Windows()) {
    EXPECT_EQ(line.units.size(), static_cast<size_t>(workers));
    EXPECT_EQ(std::accumulate(line.units.begin(), line.units.end(), int64_t{0}), kTinyUnits);
    EXPECT_EQ(line.tokens, kTinyUnits * 2 * 16);
  }
  EXPECT_LT(cluster.Windows().back().loss, cluster.Windows().front().loss);
}

INSTANTIATE_TEST_SUITE_P(
    PrecisionWorkersThreads, Training,
    testing::Values(std::tuple("fp32", 2, 1), std::tuple("fp32", 3, 1), std::tuple("fp32", 5, 1), std::tuple("fp32", 1, 2),
                    std::tuple("fp32", 1, 7), std::tuple("fp32", 2, 7), std::tuple("bf16", 3, 2),
                    std::tuple("fp16", 2, 1), std::tuple("fp16", 3, 2), std::tuple("fp16", 1, 7)),
    [](const auto& info) {
      return std::get<0>(info.param) + "_" + std::to_string(std::get<1>(info.param)) + "Workers_" +
             std::to_string(std::get<2>(info.param)) + "Threads";
    });

// Digests of the same job on one quiet worker, as far as `windows`.
std::vector<std::string> ReferenceDigests(int64_t windows) {
  Cluster cluster;
  cluster.AddWorker();
  cluster.Run(TinyJob(windows, 1, 4));
  return cluster.Digests();
}

TEST(TrainingChanges, WorkersJoinAndLeave_SameDigests) {
  Cluster cluster;
  Process& first = cluster.AddWorker();
  const std::string job = cluster.Submit(TinyJob(1'000'000, 1, 4));
  // Alone; joined by two; the first leaves; one joins again.
  int stage = 0;
  cluster.Watch(job, [&](const v1::WindowRecord& record) {
    const int workers = record.workers_size();
    if (stage == 0 && record.window() >= 3) {
      cluster.AddWorker(2);
      cluster.AddWorker();
      stage = 1;
    } else if (stage == 1 && workers == 3) {
      first.Signal(SIGTERM);
      stage = 2;
    } else if (stage == 2 && workers == 2) {
      EXPECT_EQ(first.Wait(), 0);
      cluster.AddWorker();
      stage = 3;
    } else if (stage == 3 && workers == 3) {
      stage = 4;
    }
    return stage < 4;
  });
  EXPECT_EQ(stage, 4);
  cluster.Cancel(job);
  EXPECT_EQ(cluster.Watch(job).state(), v1::JOB_STATE_CANCELLED);
  const std::vector<std::string> digests = cluster.Digests();
  ASSERT_GT(digests.size(), 3u);
  EXPECT_EQ(digests, ReferenceDigests(static_cast<int64_t>(digests.size())));
}

// oneDNN takes its instruction set from the environment, and the numeric class names it.
Process& AddAvx2Worker(Cluster& cluster) {
  setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
  Process& worker = cluster.AddWorker();
  unsetenv("ONEDNN_MAX_CPU_ISA");
  return worker;
}

// Units are multiplied on different instruction sets, and the step makes the same bits of their sum on both.
TEST(TrainingChanges, WorkersOfTwoClasses_MixedIfAllowedAndEveryWindowIsAgreedOn) {
  Cluster cluster;
  cluster.AddWorker();
  v1::JobSpec spec = TinyJob(1'000'000, 1, 2);
  spec.mutable_workers()->set_mixed(true);
  spec.mutable_audit()->set_fraction(0.5);
  const std::string job = cluster.Submit(spec);
  int64_t alone = -1, together = -1;
  const v1::JobStatus before = cluster.Describe(job);
  EXPECT_TRUE(before.reproducible());
  cluster.Watch(job, [&](const v1::WindowRecord& record) {
    if (record.window() == 3) AddAvx2Worker(cluster);
    int64_t computing = 0;
    for (const v1::WorkerWindow& worker : record.workers()) computing += worker.units() > 0;
    if (computing == 1 && record.workers_size() == 1) alone = record.window();
    if (computing == 2 && together < 0) together = record.window();
    return together < 0 || record.window() < together + 10;
  });
  const v1::JobStatus status = cluster.Describe(job);
  cluster.Cancel(job);
  cluster.Watch(job);
  const std::string ledger = cluster.Ledger(job);
  if (status.reproducible()) {
    EXPECT_EQ(ledger.find("joined at window"), std::string::npos);
    GTEST_SKIP() << "both workers are of one class: this CPU has nothing beyond AVX2";
  }
  EXPECT_NE(status.irreproducible_reason().find("-avx2"), std::string::npos) << status.irreproducible_reason();
  EXPECT_NE(ledger.find("mixed: not reproducible any more: worker-1"), std::string::npos) << ledger;
  EXPECT_EQ(ledger.find("quarantined"), std::string::npos) << ledger;
  EXPECT_EQ(ledger.find("goes back"), std::string::npos) << ledger;
  const std::vector<std::string> digests = cluster.Digests(), reference = ReferenceDigests(static_cast<int64_t>(digests.size()));
  for (int64_t window = 0; window <= alone; ++window) {
    EXPECT_EQ(digests[static_cast<size_t>(window)], reference[static_cast<size_t>(window)]) << window;
  }
  EXPECT_NE(digests.back(), reference.back()) << "both classes compute alike here: the test shows nothing";
}

TEST(TrainingChanges, WorkerOfAnotherClass_IsRefusedByAStrictJob) {
  Cluster cluster;
  cluster.AddWorker();
  const std::string job = cluster.Submit(TinyJob(1'000'000, 1, 2));
  cluster.Watch(job, [](const v1::WindowRecord& record) { return record.window() < 2; });
  AddAvx2Worker(cluster);
  cluster.WaitForLedger(job, "worker-1");
  const std::string ledger = cluster.Ledger(job);
  cluster.Cancel(job);
  cluster.Watch(job);
  if (ledger.find("worker-1 (2) is assigned") != std::string::npos) GTEST_SKIP() << "both workers are of one class";
  EXPECT_NE(ledger.find("worker-1 (2) is of numeric class"), std::string::npos) << ledger;
  EXPECT_NE(ledger.find("equal bits need equal classes"), std::string::npos) << ledger;
}

TEST(TrainingChanges, WorkerKilled_SurvivorsGoOn_SameDigests) {
  Cluster cluster;
  cluster.AddWorker();
  Process& victim = cluster.AddWorker();
  const std::string job = cluster.Submit(TinyJob(1'000'000, 1, 4));
  int stage = 0;
  int64_t last = 0;
  cluster.Watch(job, [&](const v1::WindowRecord& record) {
    if (stage == 0 && record.workers_size() == 2 && record.window() >= 3) {
      victim.Signal(SIGKILL);
      stage = 1;
    } else if (stage == 1 && record.workers_size() == 1) {
      stage = 2;
      last = record.window() + 3;
    }
    return stage < 2 || record.window() < last;
  });
  EXPECT_EQ(stage, 2);
  cluster.Cancel(job);
  cluster.Watch(job);
  const std::vector<std::string> digests = cluster.Digests();
  EXPECT_EQ(digests, ReferenceDigests(static_cast<int64_t>(digests.size())));
}

TEST(TrainingChanges, CoordinatorKilled_AnotherGoesOn_SameDigests) {
  v1::JobSpec spec = TinyJob(1'000'000, 1, 4);
  spec.mutable_checkpoint()->set_every_windows(5);
  Cluster cluster;
  for (int i = 0; i < 2; ++i) cluster.AddWorker();
  const std::string job = cluster.Submit(spec);
  int64_t seen = 0;
  const auto until = [&](int64_t window) {
    cluster.Watch(job, [&, window](const v1::WindowRecord& record) {
      seen = record.window();
      return seen < window;
    });
  };
  until(8);
  cluster.ReplaceCoordinator();
  until(seen + 20);
  cluster.Cancel(job);
  cluster.Watch(job);
  const std::vector<std::string> digests = cluster.Digests();
  EXPECT_GT(digests.size(), 20u);
  EXPECT_EQ(digests, ReferenceDigests(static_cast<int64_t>(digests.size())));
}

TEST(TrainingChanges, ResumedFromCheckpoint_OnOtherWorkers_SameDigests) {
  v1::JobSpec spec = TinyJob(kWindows, 1, 4);
  spec.mutable_checkpoint()->set_every_windows(3);
  spec.mutable_evaluation()->set_every_windows(2);
  spec.mutable_evaluation()->set_sequences(8);
  Cluster cluster;
  for (int i = 0; i < 2; ++i) cluster.AddWorker();
  cluster.Run(spec, /*until=*/5);
  EXPECT_EQ(cluster.Digests().size(), 5u);
  cluster.AddWorker(2);
  cluster.Run(spec);
  EXPECT_EQ(cluster.Digests(), UndisturbedDigests("fp32"));
}

TEST(TrainingChanges, FastAccumulation_TwoWorkers_Commits) {
  v1::JobSpec spec = TinyJob(4, 2, 2);
  spec.mutable_accumulation()->set_mode("fast");
  Cluster cluster;
  for (int i = 0; i < 2; ++i) cluster.AddWorker();
  cluster.Run(spec);
  EXPECT_EQ(cluster.Digests().size(), 4u);
}

TEST(TrainingChanges, Evaluation_OneAndThreeWorkers_SameLoss) {
  std::vector<double> losses;
  for (int workers : {1, 3}) {
    v1::JobSpec spec = TinyJob(4, workers, workers);
    spec.mutable_evaluation()->set_every_windows(2);
    spec.mutable_evaluation()->set_sequences(10);
    Cluster cluster;
    for (int i = 0; i < workers; ++i) cluster.AddWorker();
    const std::string job = cluster.Submit(spec);
    EXPECT_EQ(cluster.Watch(job).state(), v1::JOB_STATE_SUCCEEDED);
    const v1::JobStatus status = cluster.Describe(job);
    ASSERT_TRUE(status.has_validation_loss());
    losses.push_back(status.validation_loss());
  }
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_GT(losses[0], 0);
}

// The first scale is far too high: windows are skipped until it fits, and after each three that step it is tried higher.
v1::JobSpec FarTooHighJob(int64_t windows, int64_t min_workers, int64_t max_workers) {
  v1::JobSpec spec = SpecOf("fp16", windows, min_workers, max_workers);
  spec.mutable_loss_scale()->set_initial(int64_t{1} << 24);
  spec.mutable_loss_scale()->set_growth_windows(3);
  spec.mutable_checkpoint()->set_every_windows(4);
  return spec;
}

TEST(LossScale, FarTooHigh_SkipsUntilItFits_SameDigestsOnOtherWorkersAndAfterAResume) {
  constexpr int64_t kLong = 30;
  std::vector<WindowLine> alone;
  {
    Cluster cluster;
    cluster.AddWorker();
    cluster.Run(FarTooHighJob(kLong, 1, 4));
    alone = cluster.Windows();
  }
  ASSERT_EQ(alone.size(), static_cast<size_t>(kLong));
  EXPECT_EQ(alone[0].loss_scale, int64_t{1} << 24);
  int64_t skips = 0, growths = 0;
  for (size_t window = 0; window < alone.size(); ++window) {
    skips += alone[window].skipped;
    if (window == 0) continue;
    growths += alone[window].loss_scale == 2 * alone[window - 1].loss_scale;
    if (!alone[window - 1].skipped) continue;
    EXPECT_EQ(2 * alone[window].loss_scale, alone[window - 1].loss_scale) << window;
  }
  EXPECT_TRUE(alone[0].skipped);
  EXPECT_GE(skips, 3);
  EXPECT_GE(growths, 1);
  EXPECT_LT(alone.back().loss, alone.front().loss);

  Cluster cluster;
  for (int i = 0; i < 3; ++i) cluster.AddWorker();
  cluster.Run(FarTooHighJob(kLong, 1, 4), /*until=*/kLong / 2);
  cluster.AddWorker(2);
  cluster.Run(FarTooHighJob(kLong, 1, 4));
  std::vector<std::string> expected;
  for (const WindowLine& line : alone) expected.push_back(line.digest);
  EXPECT_EQ(cluster.Digests(), expected);
}

TEST(LossScale, CoordinatorKilledWhileItFalls_SameDigests) {
  Cluster cluster;
  for (int i = 0; i < 2; ++i) cluster.AddWorker();
  const std::string job = cluster.Submit(FarTooHighJob(1'000'000, 1, 4));
  int64_t seen = 0;
  const auto until = [&](int64_t window) {
    cluster.Watch(job, [&, window](const v1::WindowRecord& record) {
      seen = record.window();
      return seen < window;
    });
  };
  until(2);
  EXPECT_THAT(cluster.Ledger(job), testing::ContainsRegex("with loss scale [0-9]+, which is too high"));
  cluster.ReplaceCoordinator();
  until(seen + 12);
  cluster.Cancel(job);
  cluster.Watch(job);
  const std::vector<std::string> digests = cluster.Digests();
  Cluster quiet;
  quiet.AddWorker();
  quiet.Run(FarTooHighJob(static_cast<int64_t>(digests.size()), 1, 4));
  EXPECT_EQ(digests, quiet.Digests());
}

TEST(LossScale, FastAccumulation_Commits) {
  v1::JobSpec spec = FarTooHighJob(16, 2, 2);
  spec.mutable_accumulation()->set_mode("fast");
  Cluster cluster;
  for (int i = 0; i < 2; ++i) cluster.AddWorker();
  cluster.Run(spec);
  EXPECT_LT(cluster.Windows().back().loss, cluster.Windows().front().loss);
}

TEST(TrainingErrors, Tf32OnACpu_RefusedWithTheReason) {
  Cluster cluster;
  const std::string job = cluster.Submit(SpecOf("tf32", 4, 1, 1));
  cluster.AddWorker();
  cluster.WaitForLedger(job, "does not compute in precision tf32 with backend cpu: only GPUs do");
  cluster.Cancel(job);
  EXPECT_EQ(cluster.Watch(job).state(), v1::JOB_STATE_CANCELLED);
}

TEST(TrainingErrors, ShardChangedSinceSubmit_JobFailsWithPathAndHashes) {
  Cluster cluster;
  const std::string job = cluster.Submit(TinyJob(4, 1, 1));
  {
    std::fstream file(cluster.train_shard(), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(2000);
    file.put(1);
    file.put(0);
  }
  Process& worker = cluster.AddWorker();
  // The coordinator finds its own copy changed too, so no worker could ever do better.
  cluster.WaitForLedger(job, "has changed since the job was submitted");
  worker.Signal(SIGTERM);
  EXPECT_EQ(worker.Wait(), 0);
  EXPECT_THAT(cluster.Ledger(job), testing::ContainsRegex("failed.*train-0\\.bin.*[0-9a-f]{32}.*[0-9a-f]{32}"));
}

}  // namespace
}  // namespace accrue::integration
