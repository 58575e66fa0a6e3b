// The promise on a GPU, with real processes: the digests of a job are the same for one rank and for several that share
// the first GPU over NCCL, whatever becomes of them. Skipped, with the reason, where there is no GPU.
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/status.h"
#include "tests/integration/cluster.h"
#include "worker/backend/plugin/gpu_probe.h"
#include "worker/backend/plugin/plugin_loader.h"

namespace accrue::integration {
namespace {

constexpr int64_t kWindows = 8;

absl::Status FindGpu() {
  ACCRUE_ASSIGN_OR_RETURN(const std::string path, FindPlugin(PluginPlaces(BinaryDirectory())));
  ACCRUE_ASSIGN_OR_RETURN(const DriverFunctions driver, LoadDriver());
  ACCRUE_ASSIGN_OR_RETURN(const GpuReport report, ProbeGpus(driver));
  ACCRUE_ASSIGN_OR_RETURN(const BackendPlugin* const plugin, LoadPlugin(path));
  return CheckGpu(report, plugin->needs(), 0).status();
}

// With the GPU's flags before a test's own.
Process& AddGpuWorker(Cluster& cluster, std::vector<std::string> more_arguments = {}) {
  more_arguments.insert(more_arguments.begin(), {"--backend", "cuda"});
  return cluster.AddWorker(1, more_arguments);
}

v1::JobSpec SpecOf(const std::string& precision, int64_t windows, int64_t min_workers, int64_t max_workers) {
  v1::JobSpec spec = TinyJob(windows, min_workers, max_workers);
  spec.set_precision(precision);
  return spec;
}

// Of one rank.
std::vector<std::string> DigestsOfOne(const std::string& precision, int64_t windows) {
  Cluster cluster;
  AddGpuWorker(cluster);
  cluster.Run(SpecOf(precision, windows, 1, 1));
  return cluster.Digests();
}

class GpuTraining : public testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  void SetUp() override {
    if (const absl::Status gpu = FindGpu(); !gpu.ok()) GTEST_SKIP() << gpu;
  }
};

TEST_P(GpuTraining, Digests_RanksOnOneGpu_Equal) {
  const auto& [precision, ranks] = GetParam();
  const std::vector<std::string> expected = DigestsOfOne(precision, kWindows);
  ASSERT_EQ(expected.size(), static_cast<size_t>(kWindows));
  Cluster cluster;
  for (int i = 0; i < ranks; ++i) AddGpuWorker(cluster);
  cluster.Run(SpecOf(precision, kWindows, ranks, ranks));
  EXPECT_EQ(cluster.Digests(), expected);
  EXPECT_LT(cluster.Windows().back().loss, cluster.Windows().front().loss);
}

INSTANTIATE_TEST_SUITE_P(PrecisionRanks, GpuTraining,
                         testing::Combine(testing::Values("fp32", "bf16"), testing::Values(1, 2, 4)),
                         [](const auto& info) {
                           return std::get<0>(info.param) + "_" + std::to_string(std::get<1>(info.param)) + "Ranks";
                         });

class GpuTrainingChanges : public testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  void SetUp() override {
    if (const absl::Status gpu = FindGpu(); !gpu.ok()) GTEST_SKIP() << gpu;
  }
};

// Two ranks, of which one is killed on its way; a third one joins, by a copy of the state.
TEST_P(GpuTrainingChanges, RankKilledAndAnotherJoins_SameDigests) {
  Cluster cluster;
  AddGpuWorker(cluster);
  AddGpuWorker(cluster, {"--fault", std::get<1>(GetParam())});
  const std::string job = cluster.Submit(SpecOf("fp32", 1'000'000, 1, 4));
  int stage = 0;
  int64_t last = 0;
  cluster.Watch(job, [&](const v1::WindowRecord& record) {
    const int workers = record.workers_size();
    if (stage == 0 && workers == 2) stage = 1;
    if (stage == 1 && workers == 1) {
      AddGpuWorker(cluster);
      stage = 2;
    }
    if (stage == 2 && workers == 2) {
      stage = 3;
      last = record.window() + 3;
    }
    return stage < 3 || record.window() < last;
  });
  EXPECT_EQ(stage, 3);
  cluster.Cancel(job);
  cluster.Watch(job);
  const std::vector<std::string> digests = cluster.Digests();
  EXPECT_EQ(digests, DigestsOfOne("fp32", static_cast<int64_t>(digests.size())));
}

INSTANTIATE_TEST_SUITE_P(Places, GpuTrainingChanges,
                         testing::Values(std::tuple("InMidWindow", "worker.unit_added#20=kill"),
                                         std::tuple("InMidReduce", "worker.bucket_reducing#6=kill"),
                                         std::tuple("StoppedInMidReduce", "worker.bucket_reducing#6=stop")),
                         [](const auto& info) { return std::string(std::get<0>(info.param)); });

}  // namespace
}  // namespace accrue::integration
