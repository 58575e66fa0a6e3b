// A worker that joins a running job, with real processes: the members go on, and the digests are those of nobody joining.
#include <signal.h>

#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/integration/cluster.h"

namespace accrue::integration {
namespace {

std::vector<std::string> ReferenceDigests(int64_t windows) {
  Cluster cluster;
  cluster.AddWorker();
  cluster.Run(TinyJob(windows, 1, 4));
  return cluster.Digests();
}

int64_t WorkersOf(const WindowLine& line) { return static_cast<int64_t>(line.units.size()); }

// The newcomer stops in the middle of its copy, as long as the members need for some windows.
TEST(Joining, CopyStandsStill_MembersCommitWindowsMeanwhile_SameDigests) {
  Cluster cluster;
  cluster.AddWorker();
  cluster.AddWorker();
  const std::string job = cluster.Submit(TinyJob(1'000'000, 1, 4));
  Process* newcomer = nullptr;
  int64_t copying_at = -1, went_on_at = -1;
  bool joined = false;
  cluster.Watch(job, [&](const v1::WindowRecord& record) {
    if (newcomer == nullptr && record.window() >= 3) {
      newcomer = &cluster.AddWorker(1, {"--fault", "worker.sync_chunk_received=stop"});
    }
    if (newcomer != nullptr && copying_at < 0 && newcomer->Log().find("fault injected") != std::string::npos) {
      copying_at = record.window();
    }
    if (copying_at >= 0 && went_on_at < 0 && record.window() >= copying_at + 2) {
      went_on_at = record.window();
      newcomer->Signal(SIGCONT);
    }
    joined = record.workers_size() == 3;
    return !joined;
  });
  EXPECT_TRUE(joined);
  cluster.Cancel(job);
  EXPECT_EQ(cluster.Watch(job).state(), v1::JOB_STATE_CANCELLED);
  const std::vector<WindowLine> windows = cluster.Windows();
  const auto without_it = std::count_if(windows.begin(), windows.end(), [&](const WindowLine& line) {
    return line.window > copying_at && line.window <= went_on_at && WorkersOf(line) == 2;
  });
  EXPECT_EQ(without_it, 2);
  EXPECT_EQ(cluster.Digests(), ReferenceDigests(static_cast<int64_t>(windows.size())));
}

}  // namespace
}  // namespace accrue::integration
