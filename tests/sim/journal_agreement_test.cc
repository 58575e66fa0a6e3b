// The simulated journal and the SQLite one say the same of every crash: what a simulation proves holds for the store.
#include <gtest/gtest.h>

#include "tests/journal/journal_test_util.h"
#include "tests/sim/scenarios.h"

namespace accrue {
namespace {

class JournalAgreementTest : public JournalTestBase, public testing::WithParamInterface<uint64_t> {};

TEST_P(JournalAgreementTest, EveryRestart_SameStart) {
  std::unique_ptr<Journal> journal = Open().journal;
  ASSERT_TRUE(journal->AddJob(MakeJob("job")).ok());
  core::SimulationConfig config = core::CoordinatorScenario(GetParam());
  config.faults.blackouts = 0.3;
  config.holders_suffice = false;
  int64_t restarts = 0, awaited = 0;
  config.on_durable = [&](const std::vector<core::Effect>& effects) {
    ASSERT_TRUE(journal->Record(effects, 1).ok());
  };
  config.on_restart = [&](const core::StartPoint& start) {
    ++restarts;
    journal.reset();
    journal = Open().journal;
    const auto live = journal->Live("job");
    ASSERT_TRUE(live.ok()) << live.status();
    // One that lies before the checkpoint that the job would go back to is of no use.
    if (start.live || !live->has_value() || (*live)->window >= start.window) {
      EXPECT_EQ(*live, start.live);
    }
    awaited += start.live ? 1 : 0;
    const auto jobs = journal->Jobs();
    EXPECT_EQ(jobs->front().timeline.Next(), start.timeline);
    std::map<int64_t, std::string> recorded;
    const auto commits = journal->Commits("job", start.window, 1000);
    for (const CommitRecord& commit : *commits) recorded[commit.window.window.value()] = commit.window.digest;
    EXPECT_EQ(recorded, start.recorded);
    const auto evaluations = journal->Evaluations("job", start.window);
    EXPECT_EQ(evaluations->size(), start.evaluated.size());
    for (const EvaluationRecord& evaluation : *evaluations) {
      EXPECT_EQ(evaluation.loss, start.evaluated.at(evaluation.window.value()));
    }
    // As Coordinator::StartAgain.
    const int64_t next = recorded.empty() ? start.window.value() : recorded.rbegin()->first + 1;
    if (!start.live) {
      ASSERT_TRUE(journal->StartTimeline("job", start.timeline, Window(next + 1)).ok());
    }
  };
  EXPECT_EQ(core::CheckScenario(config), "");
  EXPECT_GT(restarts, 5);
  EXPECT_GT(awaited, 0);
}

INSTANTIATE_TEST_SUITE_P(Seeds, JournalAgreementTest, testing::Range(uint64_t{1}, uint64_t{4}));

}  // namespace
}  // namespace accrue
