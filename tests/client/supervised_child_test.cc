#include "client/supervised_child.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "common/file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace accrue {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSecondNs = 1'000'000'000;

TEST(RestartPolicyTest, FailsAgainAndAgain_PausesGrowThenNever) {
  RestartPolicy policy;
  int64_t now_ns = 5;
  for (int64_t pause_s : {0, 10, 20, 40, 80, 100, 100, 100, 100, 100}) {
    policy.OnStarted(now_ns);
    const std::optional<int64_t> at_ns = policy.OnEnded(now_ns + 1);
    ASSERT_TRUE(at_ns.has_value());
    EXPECT_EQ(*at_ns - now_ns - 1, pause_s * kSecondNs);
    now_ns = *at_ns;
  }
  policy.OnStarted(now_ns);
  EXPECT_FALSE(policy.OnEnded(now_ns + 1).has_value());
}

TEST(RestartPolicyTest, LivedWell_StartsAtOnceAgain) {
  RestartPolicy policy;
  policy.OnStarted(0);
  EXPECT_EQ(policy.OnEnded(1), 1);
  policy.OnStarted(1);
  EXPECT_EQ(policy.OnEnded(2), 2 + 10 * kSecondNs);
  policy.OnStarted(100);
  EXPECT_EQ(policy.OnEnded(100 + RestartPolicy::kLivedWellNs), 100 + RestartPolicy::kLivedWellNs);
}

class SupervisedChildTest : public ::testing::Test {
 protected:
  SupervisedChildTest() {
    char name[] = "/tmp/accrue-child-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~SupervisedChildTest() override { FileSystem::Real().RemoveAll(folder_).IgnoreError(); }

  SupervisedChild Child(const std::string& script,
                        SupervisedChild::WhenDone when_done = SupervisedChild::WhenDone::kRestart) {
    return SupervisedChild("child", {"/bin/sh", "-c", script}, JoinPath(folder_, "log"), when_done, clock_);
  }
  // What is said once the process has ended.
  static std::string NewsOfEnd(SupervisedChild& child) {
    EXPECT_TRUE(child.process().WaitUntilEnded(30'000));
    return child.LookAfter().value_or("nothing");
  }

  std::string folder_;
  FakeClock clock_;
};

TEST_F(SupervisedChildTest, KeepsFailing_RestartsAtOnceThenAfterPauses) {
  SupervisedChild child = Child("echo no luck; exit 3");
  ASSERT_TRUE(child.Start().ok());
  EXPECT_THAT(NewsOfEnd(child), HasSubstr("child exited with code 3; it is started again. The end of "));
  EXPECT_EQ(child.restarts(), 1);
  const std::string news = NewsOfEnd(child);
  EXPECT_THAT(news, HasSubstr("child exited with code 3; it is started again in 10 s."));
  EXPECT_THAT(news, HasSubstr("\n  no luck"));
  const pid_t before = child.process().process_id();
  clock_.AdvanceNs(10 * kSecondNs - 1);
  EXPECT_FALSE(child.LookAfter().has_value());
  EXPECT_EQ(child.process().process_id(), before);
  clock_.AdvanceNs(1);
  EXPECT_FALSE(child.LookAfter().has_value());
  EXPECT_NE(child.process().process_id(), before);
  EXPECT_EQ(child.restarts(), 2);
}

TEST_F(SupervisedChildTest, FailsTooOften_GivenUp) {
  SupervisedChild child = Child("exit 1");
  ASSERT_TRUE(child.Start().ok());
  std::string news;
  for (int i = 0; i < RestartPolicy::kMostInARow; ++i) {
    news = NewsOfEnd(child);
    EXPECT_FALSE(child.over()) << news;
    if (i == 0) continue;  // it was started again at once
    clock_.AdvanceNs(RestartPolicy::kLongestPauseNs);
    child.LookAfter();
  }
  EXPECT_THAT(NewsOfEnd(child), HasSubstr("given up"));
  EXPECT_TRUE(child.over());
  EXPECT_EQ(child.restarts(), RestartPolicy::kMostInARow);
  EXPECT_FALSE(child.LookAfter().has_value());
}

TEST_F(SupervisedChildTest, EndsWell_LeavesOrIsStartedAgain) {
  SupervisedChild worker = Child("exit 0", SupervisedChild::WhenDone::kLeave);
  ASSERT_TRUE(worker.Start().ok());
  EXPECT_EQ(NewsOfEnd(worker), "child has left");
  EXPECT_TRUE(worker.over());
  EXPECT_EQ(worker.restarts(), 0);
  SupervisedChild coordinator = Child("exit 0");
  ASSERT_TRUE(coordinator.Start().ok());
  EXPECT_THAT(NewsOfEnd(coordinator), HasSubstr("it is started again"));
  EXPECT_EQ(coordinator.restarts(), 1);
}

TEST_F(SupervisedChildTest, Runs_NothingIsSaid) {
  SupervisedChild child = Child("exec sleep 1000");
  ASSERT_TRUE(child.Start().ok());
  EXPECT_FALSE(child.LookAfter().has_value());
  child.process().Signal(SIGKILL);
  EXPECT_THAT(NewsOfEnd(child), HasSubstr("was killed by signal 9"));
}

TEST_F(SupervisedChildTest, ProgramGoneMeanwhile_SaidAndTriedAgain) {
  const std::string program = JoinPath(folder_, "program");
  ASSERT_TRUE(FileSystem::Real().WriteAtomically(program, "#!/bin/sh\nexit 1\n").ok());
  ASSERT_EQ(chmod(program.c_str(), 0755), 0);
  SupervisedChild child("child", {program}, JoinPath(folder_, "log"), SupervisedChild::WhenDone::kRestart, clock_);
  ASSERT_TRUE(child.Start().ok());
  EXPECT_TRUE(child.process().WaitUntilEnded(30'000));
  ASSERT_TRUE(FileSystem::Real().RemoveAll(program).ok());
  const std::string news = child.LookAfter().value_or("");
  EXPECT_THAT(news, HasSubstr("child exited with code 1; it is started again."));
  EXPECT_THAT(news, HasSubstr("child cannot be started: expected the program "));
  EXPECT_THAT(news, HasSubstr("; it is started again in 10 s"));
}

}  // namespace
}  // namespace accrue
