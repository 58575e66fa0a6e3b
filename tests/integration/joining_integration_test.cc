// A worker that joins a running job, with real processes: the members go on, and the digests are those of nobody joining.
#include <signal.h>

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

// The newcomer stops in the middle of its copy, as long as the members need for some windows.
TEST(Joining, CopyStandsStill_MembersCommitWindowsMeanwhile_SameDigests) {
  Cluster cluster;
  cluster.AddWorker();
  cluster.AddWorker();
  const std::string job = cluster.Submit(TinyJob(1'000'000, 1, 4));
  Process* newcomer = nullptr;
  int64_t stood_at = -1, went_on_at = -1;
  bool joined = false;
  cluster.Watch(job, [&](const v1::WindowRecord& record) {
    if (newcomer == nullptr && record.window() >= 3) {
      newcomer = &cluster.AddWorker(1, {"--fault", "worker.copy_run_received#2=stop"});
      newcomer->WaitUntilStopped();
      // What has been committed by now may come from before.
      stood_at = static_cast<int64_t>(cluster.Windows().size());
    }
    if (stood_at >= 0 && went_on_at < 0 && record.window() >= stood_at + 2) {
      went_on_at = record.window();
      newcomer->Signal(SIGCONT);
    }
    joined = record.workers_size() == 3;
    EXPECT_FALSE(joined && went_on_at < 0) << "window " << record.window() << " waited for a newcomer that stood still";
    return !joined;
  });
  EXPECT_TRUE(joined);
  EXPECT_GE(went_on_at, 0);
  cluster.Cancel(job);
  EXPECT_EQ(cluster.Watch(job).state(), v1::JOB_STATE_CANCELLED);
  const std::vector<std::string> digests = cluster.Digests();
  EXPECT_EQ(digests, ReferenceDigests(static_cast<int64_t>(digests.size())));
}

}  // namespace
}  // namespace accrue::integration
