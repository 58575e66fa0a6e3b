#include "common/fault_points.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_split.h"

namespace accrue {
namespace {

using testing::HasSubstr;

class FaultPointsTest : public testing::Test {
 protected:
  ~FaultPointsTest() override { EXPECT_TRUE(ArmFaults(FaultProcess::kWorker, {}).ok()); }
  static void Arm(const std::vector<std::string>& faults, FaultProcess process = FaultProcess::kWorker) {
    const absl::Status status = ArmFaults(process, faults);
    ASSERT_TRUE(status.ok()) << status;
  }
  static bool Fails(FaultPoint point, int64_t window) { return !FaultStatus(point, window).ok(); }
};
using FaultPointsDeathTest = FaultPointsTest;

TEST_F(FaultPointsTest, NothingArmed_NothingHappens) {
  PassFaultPoint(FaultPoint::kWorkerStepped, 3);
  EXPECT_TRUE(FaultStatus(FaultPoint::kWorkerUnitBegun, 3).ok());
  EXPECT_FALSE(FaultFires(FaultPoint::kFlipGradient, 3));
}

TEST_F(FaultPointsTest, Window_IsThatOneOnly) {
  Arm({"worker.unit_begun@3=error"});
  EXPECT_FALSE(Fails(FaultPoint::kWorkerUnitBegun, 2));
  EXPECT_FALSE(Fails(FaultPoint::kWorkerBucketReducing, 3));
  EXPECT_TRUE(Fails(FaultPoint::kWorkerUnitBegun, 3));
}

TEST_F(FaultPointsTest, Count_IsOfTheWindow) {
  Arm({"worker.unit_begun@3#2=error"});
  EXPECT_FALSE(Fails(FaultPoint::kWorkerUnitBegun, 2));
  EXPECT_FALSE(Fails(FaultPoint::kWorkerUnitBegun, 2));
  EXPECT_FALSE(Fails(FaultPoint::kWorkerUnitBegun, 3));
  EXPECT_TRUE(Fails(FaultPoint::kWorkerUnitBegun, 3));
}

TEST_F(FaultPointsTest, EachFault_FiresOnce) {
  Arm({"worker.unit_begun=error", "flip-gradient@5", "worker.unit_begun=error"});
  EXPECT_TRUE(Fails(FaultPoint::kWorkerUnitBegun, 0));
  EXPECT_TRUE(FaultFires(FaultPoint::kFlipGradient, 5));
  EXPECT_FALSE(FaultFires(FaultPoint::kFlipGradient, 5));
  // Both were passed the first time; the second fires at the next.
  EXPECT_TRUE(Fails(FaultPoint::kWorkerUnitBegun, 0));
  EXPECT_FALSE(Fails(FaultPoint::kWorkerUnitBegun, 0));
}

TEST_F(FaultPointsTest, OnceFolder_IsSharedByProcesses) {
  std::string folder = testing::TempDir() + "/once-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::vector<std::string> faults = {"worker.unit_begun@3=error", "worker.unit_begun@4=error"};
  for (const bool fires : {true, false}) {  // a first process, and a second one
    ASSERT_TRUE(ArmFaults(FaultProcess::kWorker, faults, folder).ok());
    EXPECT_EQ(Fails(FaultPoint::kWorkerUnitBegun, 3), fires);
  }
  EXPECT_TRUE(Fails(FaultPoint::kWorkerUnitBegun, 4));
  std::filesystem::remove_all(folder);
}

TEST_F(FaultPointsTest, Error_NamesTheFault) {
  Arm({"worker.sync_begun#1=error"});
  const absl::Status status = FaultStatus(FaultPoint::kWorkerSyncBegun, 4);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("worker.sync_begun#1=error"));
}

TEST_F(FaultPointsDeathTest, Kill_EndsWithSigkill) {
  EXPECT_EXIT(
      {
        Arm({"worker.stepped@2=kill"});
        PassFaultPoint(FaultPoint::kWorkerStepped, 2);
      },
      testing::KilledBySignal(SIGKILL), "fault injected: worker.stepped@2=kill at window 2");
}

TEST_F(FaultPointsDeathTest, Exit_EndsWithItsCode) {
  EXPECT_EXIT(
      {
        Arm({"coordinator.taken_up=exit"}, FaultProcess::kCoordinator);
        PassFaultPoint(FaultPoint::kCoordinatorTakenUp);
      },
      testing::ExitedWithCode(kFaultExitCode), "fault injected");
}

TEST_F(FaultPointsTest, Stop_StopsUntilContinued) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Arm({"worker.stepped=stop"});
    PassFaultPoint(FaultPoint::kWorkerStepped, 0);
    _exit(7);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  EXPECT_TRUE(WIFSTOPPED(status));
  kill(child, SIGCONT);
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

TEST_F(FaultPointsTest, Nonsense_IsRefusedWithWhatIsExpected) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no point \"\""},
      {"worker.nowhere=kill", "no point \"worker.nowhere\""},
      {"coordinator.taken_up=kill", "no point"},  // of the other program
      {"worker.stepped", "action \"\" is none of kill,stop,exit,hang"},
      {"worker.stepped=error", "none of kill,stop,exit,hang"},
      {"worker.stepped=", "action \"\""},
      {"worker.stepped@x=kill", "window"},
      {"worker.stepped@-1=kill", "window"},
      {"worker.stepped#0=kill", "at least 1"},
      {"worker.stepped#=kill", "at least 1"},
      {"worker.welcomed@3=kill", "belongs to no window"},
      {"flip-gradient=kill", "none of flip"},
  };
  for (const auto& [text, part] : cases) {
    const absl::Status status = ArmFaults(FaultProcess::kWorker, {text});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_THAT(std::string(status.message()), HasSubstr("NAME[@WINDOW][#N][=ACTION]"));
  }
}

// What is listed can be armed, in every way that is listed.
TEST_F(FaultPointsTest, List_IsWhatCanBeArmed) {
  std::set<std::string> names;
  for (FaultProcess process : {FaultProcess::kWorker, FaultProcess::kCoordinator}) {
    for (const std::string& line : std::vector<std::string>(
             absl::StrSplit(ListFaultPoints(process), '\n', absl::SkipEmpty()))) {
      const std::vector<std::string> columns = absl::StrSplit(line, '\t');
      ASSERT_EQ(columns.size(), 5u) << line;
      EXPECT_TRUE(names.insert(columns[0]).second) << columns[0] << " is listed twice";
      const std::string window = columns[3] == "windowed" ? "@3" : "";
      for (const std::string& action : std::vector<std::string>(absl::StrSplit(columns[2], ','))) {
        Arm({columns[0] + window + "#2=" + action}, process);
      }
    }
  }
  EXPECT_GT(names.size(), 50u);
}

}  // namespace
}  // namespace accrue
