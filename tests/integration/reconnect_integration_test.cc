// Workers that outlive their coordinator, are stopped and go on, or are asked to leave: real processes.
#include <signal.h>

#include <regex>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/integration/cluster.h"

namespace accrue::integration {
namespace {

using testing::HasSubstr;

// Digests of the same job on one quiet worker, as far as `windows`.
std::vector<std::string> ReferenceDigests(int64_t windows) {
  Cluster cluster;
  cluster.AddWorker();
  cluster.Run(TinyJob(windows, 1, 4));
  return cluster.Digests();
}

// Units that a worker computed for its job, from its log. It has left the job.
int64_t UnitsComputed(const Process& worker) {
  worker.WaitForLog("units_computed=");
  const std::string log = worker.Log();
  std::smatch found;
  return std::regex_search(log, found, std::regex("units_computed=([0-9]+)")) ? std::stoll(found[1]) : -1;
}

// Until `windows` more are committed than `seen`, which it counts.
void Follow(Cluster& cluster, const std::string& job, int64_t windows, int64_t& seen) {
  const int64_t until = seen + windows;
  cluster.Watch(job, [&](const v1::WindowRecord& record) {
    seen = std::max(seen, record.window());
    return seen < until;
  });
}

// Nobody is given up however busy the machine is.
const std::vector<std::string> kPatient = {"--worker-timeout", "60", "--reconnect-timeout", "60"};

class CoordinatorEnds : public testing::TestWithParam<int> {};

TEST_P(CoordinatorEnds, AgainAndAgain_NoWindowAndNoUnitIsComputedTwice) {
  constexpr int64_t kWindows = 300;
  constexpr int kEnds = 6;
  Cluster cluster(kPatient);
  std::vector<Process*> workers;
  for (int i = 0; i < 3; ++i) workers.push_back(&cluster.AddWorker());
  const std::string job = cluster.Submit(TinyJob(kWindows, 3, 3));
  int64_t seen = 0;
  for (int i = 0; i < kEnds; ++i) {
    Follow(cluster, job, 10, seen);
    cluster.StopCoordinator(GetParam());
    cluster.StartCoordinatorAgain();
  }
  EXPECT_EQ(cluster.Watch(job).state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(cluster.Digests(), ReferenceDigests(kWindows));
  const std::vector<WindowLine> lines = cluster.Windows();
  for (const WindowLine& line : lines) EXPECT_EQ(line.timeline, lines[0].timeline) << line.window;
  EXPECT_THAT(cluster.Ledger(job), HasSubstr("3 of the 3 members outlived the coordinator"));
  int64_t units = 0;
  for (const Process* worker : workers) units += UnitsComputed(*worker);
  EXPECT_EQ(units, kWindows * kTinyUnits);
}

INSTANTIATE_TEST_SUITE_P(Signals, CoordinatorEnds, testing::Values(SIGKILL, SIGTERM), [](const auto& info) {
  return std::string(info.param == SIGKILL ? "Killed" : "Stopped");
});

// The workers stand still at some instant of a window, with part of its units done, while the coordinator is replaced.
TEST(Reconnect, CoordinatorKilledAmidUnits_TheyCount) {
  constexpr int64_t kWindows = 200;
  Cluster cluster(kPatient);
  std::vector<Process*> workers;
  for (int i = 0; i < 2; ++i) workers.push_back(&cluster.AddWorker());
  const std::string job = cluster.Submit(TinyJob(kWindows, 2, 2));
  int64_t seen = 0;
  for (int i = 0; i < 4; ++i) {
    Follow(cluster, job, 6, seen);
    for (Process* worker : workers) worker->Signal(SIGSTOP);
    cluster.ReplaceCoordinator();
    for (Process* worker : workers) worker->Signal(SIGCONT);
  }
  EXPECT_EQ(cluster.Watch(job).state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(cluster.Digests(), ReferenceDigests(kWindows));
  EXPECT_EQ(UnitsComputed(*workers[0]) + UnitsComputed(*workers[1]), kWindows * kTinyUnits);
}

TEST(Reconnect, CoordinatorAndWorkerKilled_SurvivorGoesOn) {
  Cluster cluster({"--reconnect-timeout", "1"});
  Process& survivor = cluster.AddWorker();
  Process& victim = cluster.AddWorker();
  const std::string job = cluster.Submit(TinyJob(1'000'000, 1, 2));
  int64_t seen = 0;
  Follow(cluster, job, 8, seen);
  victim.Signal(SIGKILL);
  cluster.ReplaceCoordinator();
  Follow(cluster, job, 8, seen);
  cluster.Cancel(job);
  cluster.Watch(job);
  survivor.WaitForLog("the coordinator is told what is held");
  const std::vector<WindowLine> windows = cluster.Windows();
  for (const WindowLine& line : windows) EXPECT_EQ(line.timeline, windows[0].timeline) << line.window;
  EXPECT_EQ(cluster.Digests(), ReferenceDigests(static_cast<int64_t>(windows.size())));
}

TEST(Stalled, WorkerStoppedAndContinued_IsRefusedAndRejoins) {
  Cluster cluster;
  cluster.AddWorker();
  Process& stalled = cluster.AddWorker();
  const std::string job = cluster.Submit(TinyJob(1'000'000, 1, 2));
  int64_t seen = 0;
  Follow(cluster, job, 5, seen);
  stalled.WaitForLog("joined incarnation=");
  stalled.Signal(SIGSTOP);
  cluster.WaitForLedger(job, "nothing was heard from it for");
  Follow(cluster, job, 5, seen);
  stalled.Signal(SIGCONT);
  stalled.WaitForLog("refused: nothing was heard from it for");
  stalled.WaitForLog("this incarnation is over; a new one begins");
  stalled.WaitForLog("joined incarnation=", 2);
  // Its new life takes part again.
  const int64_t alone = seen;
  cluster.Watch(job, [&](const v1::WindowRecord& record) {
    seen = record.window();
    return record.window() <= alone || record.workers_size() < 2;
  });
  Follow(cluster, job, 5, seen);
  cluster.Cancel(job);
  cluster.Watch(job);
  const std::vector<std::string> digests = cluster.Digests();
  EXPECT_EQ(digests, ReferenceDigests(static_cast<int64_t>(digests.size())));
}

TEST(Drain, Signal_FinishesTheWindowAndLeaves) {
  Cluster cluster;
  cluster.AddWorker();
  Process& leaver = cluster.AddWorker();
  const std::string job = cluster.Submit(TinyJob(1'000'000, 1, 2));
  int64_t seen = 0;
  Follow(cluster, job, 3, seen);
  leaver.Signal(SIGTERM);
  EXPECT_EQ(leaver.Wait(), 0);
  EXPECT_THAT(leaver.Log(), HasSubstr("worker ends"));
  EXPECT_THAT(cluster.Ledger(job), HasSubstr("leaves: signal 15"));
  Follow(cluster, job, 3, seen);
  cluster.Cancel(job);
  cluster.Watch(job);
  const std::vector<std::string> digests = cluster.Digests();
  EXPECT_EQ(digests, ReferenceDigests(static_cast<int64_t>(digests.size())));
}

// While another member stands still no window ends, so it is the second signal that ends the worker (unless the first one
// came just before a commit).
TEST(Drain, SecondSignal_HandsItsUnitsBackAtOnce) {
  Cluster cluster(kPatient);
  Process& still = cluster.AddWorker();
  Process& leaver = cluster.AddWorker();
  const std::string job = cluster.Submit(TinyJob(1'000'000, 1, 2));
  int64_t seen = 0;
  Follow(cluster, job, 3, seen);
  still.Signal(SIGSTOP);
  leaver.Signal(SIGTERM);
  cluster.WaitForLedger(job, "leaves: signal 15");
  leaver.Signal(SIGTERM);
  EXPECT_EQ(leaver.Wait(), 0);
  still.Signal(SIGCONT);
  Follow(cluster, job, 5, seen);
  cluster.Cancel(job);
  cluster.Watch(job);
  const std::vector<std::string> digests = cluster.Digests();
  EXPECT_EQ(digests, ReferenceDigests(static_cast<int64_t>(digests.size())));
}

}  // namespace
}  // namespace accrue::integration
