#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/journal/journal_test_util.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class JournalTest : public JournalTestBase {};

TEST_F(JournalTest, RaiseTerm_EachOpen_IsHigher) {
  EXPECT_EQ(Open().journal->RaiseTerm()->value(), 1);
  EXPECT_EQ(Open().journal->RaiseTerm()->value(), 2);
  auto journal = Open().journal;
  EXPECT_EQ(journal->RaiseTerm()->value(), 3);
  EXPECT_EQ(journal->RaiseTerm()->value(), 4);
}

TEST_F(JournalTest, RaiseTerm_StoreLost_StillRises) {
  EXPECT_EQ(Open().journal->RaiseTerm()->value(), 1);
  EXPECT_EQ(Open().journal->RaiseTerm()->value(), 2);
  for (const char* suffix : {"", "-wal", "-shm"}) {
    ASSERT_TRUE(FileSystem::Real().RemoveAll(directory_ + "/journal.db" + suffix).ok());
  }
  EXPECT_EQ(Open().journal->RaiseTerm()->value(), 3);
}

TEST_F(JournalTest, NewJobId_AcrossOpens_NeverRepeats) {
  EXPECT_EQ(*Open().journal->NewJobId("a"), "a-1");
  auto journal = Open().journal;
  EXPECT_EQ(*journal->NewJobId("a"), "a-2");
  EXPECT_EQ(*journal->NewJobId("b"), "b-3");
}

TEST_F(JournalTest, AddJob_Reopened_IsWhole) {
  JobRecord job = MakeJob("headers-1");
  job.resolved_json = "{\"a\": \"\u00e4\"}";
  job.timeline = Timeline(2);
  job.start_window = Window(7);
  job.state = core::JobState::kRunning;
  job.reason = "two workers";
  ASSERT_TRUE(Open().journal->AddJob(job).ok());
  auto journal = Open().journal;
  const auto jobs = journal->Jobs();
  ASSERT_EQ(jobs->size(), 1u);
  const JobRecord& read = jobs->front();
  EXPECT_EQ(read.id, job.id);
  EXPECT_EQ(read.name, job.name);
  EXPECT_EQ(read.resolved_json, job.resolved_json);
  EXPECT_EQ(read.output_directory, job.output_directory);
  EXPECT_EQ(read.state, core::JobState::kRunning);
  EXPECT_EQ(read.reason, "two workers");
  EXPECT_EQ(read.submitted_unix_ns, 5);
  EXPECT_EQ(read.until_window, 10);
  EXPECT_EQ(read.timeline, Timeline(2));
  EXPECT_EQ(read.start_window, Window(7));
  EXPECT_TRUE(absl::IsAlreadyExists(journal->AddJob(job)));
}

TEST_F(JournalTest, Record_Commit_ReadsBackTheSame) {
  auto journal = Open().journal;
  core::PersistCommit commit = MakeCommit("j", 3, 1);
  core::WindowRecord& r = commit.record;
  r.loss = 0.1 + 0.2;  // needs all 17 digits
  r.gradient_norm = std::numeric_limits<double>::quiet_NaN();
  r.learning_rate = 1e-300;
  r.skipped = true;
  r.attempt = Attempt(2);
  r.sequences = 64;
  r.clip_coefficient = 0.5;
  r.vanished_fraction = 1e-9;
  r.epoch = Epoch(4);
  r.duration_ns = 123456789;
  r.next_exponents = {-1000, 40, 7};
  r.steps = 3;
  core::WorkerWindow worker;
  worker.incarnation = Incarnation(9);
  worker.name = "host \"a\"";
  worker.units = 8;
  worker.gradient_norm = 0.25;
  worker.phases.reduce_ns = 77;
  worker.memory_bytes = 1 << 30;
  r.workers = {worker};
  ASSERT_TRUE(journal->Record({commit}, 99).ok());
  const auto commits = journal->Commits("j", Window(0), 10);
  ASSERT_TRUE(commits.ok()) << commits.status();
  ASSERT_EQ(commits->size(), 1u);
  const core::WindowRecord& read = commits->front().window;
  EXPECT_EQ(commits->front().committed_unix_ns, 99);
  EXPECT_EQ(read.window, Window(3));
  EXPECT_EQ(read.loss, r.loss);
  EXPECT_TRUE(std::isnan(read.gradient_norm));
  EXPECT_EQ(read.learning_rate, 1e-300);
  EXPECT_EQ(read.tokens, 103);
  EXPECT_EQ(read.digest, "digest-3-1");
  EXPECT_TRUE(read.skipped);
  EXPECT_EQ(read.attempt, Attempt(2));
  EXPECT_EQ(read.sequences, 64);
  EXPECT_EQ(read.clip_coefficient, 0.5);
  EXPECT_EQ(read.vanished_fraction, 1e-9);
  EXPECT_EQ(read.timeline, Timeline(1));
  EXPECT_EQ(read.epoch, Epoch(4));
  EXPECT_EQ(read.duration_ns, 123456789);
  EXPECT_THAT(read.next_exponents, ElementsAre(-1000, 40, 7));
  EXPECT_EQ(read.steps, 3);
  ASSERT_EQ(read.workers.size(), 1u);
  EXPECT_EQ(read.workers[0].incarnation, Incarnation(9));
  EXPECT_EQ(read.workers[0].name, "host \"a\"");
  EXPECT_EQ(read.workers[0].units, 8);
  EXPECT_EQ(read.workers[0].gradient_norm, 0.25);
  EXPECT_EQ(read.workers[0].phases.reduce_ns, 77);
  EXPECT_EQ(read.workers[0].memory_bytes, 1 << 30);
}

TEST_F(JournalTest, Record_OneBadEffect_NothingIsWritten) {
  auto journal = Open().journal;
  ASSERT_TRUE(journal->Record({MakeCommit("j", 0)}, 1).ok());
  core::PersistLedger ledger{"j", {}};
  ledger.entry.kind = "commit";
  // The same window of the same timeline twice breaks the primary key.
  EXPECT_FALSE(journal->Record({ledger, MakeCommit("j", 1), MakeCommit("j", 0)}, 2).ok());
  EXPECT_THAT(Windows(*journal, "j"), ElementsAre(0));
  EXPECT_THAT(*journal->Ledger("j", 0, 10), IsEmpty());
}

TEST_F(JournalTest, Record_Ledger_SequenceHasNoGapsPerJob) {
  auto journal = Open().journal;
  for (const char* job : {"a", "b", "a"}) {
    core::PersistLedger ledger{job, {}};
    ledger.entry.kind = "plan";
    ledger.entry.reason = job;
    ledger.entry.detail = "{\"units\":3}";
    ledger.entry.incarnation = Incarnation(6);
    ASSERT_TRUE(journal->Record({ledger, core::GiveUpCommunicator{"c"}}, 42).ok());
  }
  const auto ledger = journal->Ledger("a", 0, 10);
  ASSERT_EQ(ledger->size(), 2u);
  EXPECT_EQ((*ledger)[0].sequence, 1);
  EXPECT_EQ((*ledger)[1].sequence, 2);
  EXPECT_EQ((*ledger)[1].entry.kind, "plan");
  EXPECT_EQ((*ledger)[1].unix_ns, 42);
  EXPECT_EQ((*ledger)[1].entry.detail, "{\"units\":3}");
  EXPECT_EQ(journal->Ledger("a", 2, 10)->size(), 1u);
  EXPECT_EQ(journal->Ledger("b", 0, 10)->front().sequence, 1);
  EXPECT_EQ(journal->HighestIncarnation()->value(), 6);
}

TEST_F(JournalTest, HighestIncarnation_CountsMembersOfEpochs) {
  auto journal = Open().journal;
  EXPECT_EQ(journal->HighestIncarnation()->value(), 0);
  ASSERT_TRUE(journal->Record({core::PersistEpoch{"j", Timeline(0), Epoch(1), Attempt(0),
                                                  {Incarnation(3), Incarnation(12)}}}, 1).ok());
  EXPECT_EQ(journal->HighestIncarnation()->value(), 12);
}

// The members of epoch 2 hold the state after three windows.
core::PersistPosition MakePosition(int64_t window, int64_t timeline = 0) {
  return {"j", Timeline(timeline), Window(window), window - 1, "digest-" + std::to_string(window), {4, -5}, "hash"};
}

core::PersistEpoch MakeEpoch(int64_t epoch, std::vector<Incarnation> members, int64_t timeline = 0) {
  return {"j", Timeline(timeline), Epoch(epoch), Attempt(0), std::move(members)};
}

class LiveTest : public JournalTest {
 protected:
  // One job whose members were fixed, on record.
  void Start() {
    journal_ = Open().journal;
    ASSERT_TRUE(journal_->AddJob(MakeJob("j")).ok());
    EXPECT_EQ(Live(), std::nullopt);
    Record({core::PersistLayout{"j", layout_}, MakePosition(3), MakeEpoch(1, {Incarnation(1)})});
    Record({MakeEpoch(2, {Incarnation(1), Incarnation(4)})});
  }
  void Record(std::vector<core::Effect> effects) { ASSERT_TRUE(journal_->Record(effects, 1).ok()); }
  // As the next coordinator finds it.
  std::optional<core::LiveState> Live() {
    journal_.reset();
    journal_ = Open().journal;
    const auto live = journal_->Live("j");
    EXPECT_TRUE(live.ok()) << live.status();
    return live.ok() ? *live : std::nullopt;
  }
  const core::Layout layout_{"avx512", {"wte", "h.0"}, {60, 40}, 3};
  std::unique_ptr<Journal> journal_;
};

TEST_F(LiveTest, Layout_MarkedAsMixed_OutlivesTheStoreAndTheTimeline) {
  Start();
  EXPECT_EQ(journal_->LayoutOf("j")->value(), layout_);
  EXPECT_EQ(*journal_->LayoutOf("another"), std::nullopt);
  core::Layout mixed = layout_;
  mixed.mixed = "avx2 joined at window 3";
  Record({core::PersistLayout{"j", mixed}});
  EXPECT_EQ(Live()->layout, mixed);
  ASSERT_TRUE(journal_->StartTimeline("j", Timeline(5), Window(0)).ok());
  EXPECT_EQ(Live(), std::nullopt);
  EXPECT_EQ(journal_->LayoutOf("j")->value(), mixed);
}

TEST_F(LiveTest, Live_MembersHoldAState_IsWhole) {
  Start();
  const auto live = Live();
  ASSERT_TRUE(live.has_value());
  EXPECT_EQ(live->layout, layout_);
  EXPECT_EQ(live->timeline, Timeline(0));
  EXPECT_EQ(live->window, Window(3));
  EXPECT_EQ(live->steps, 2);
  EXPECT_EQ(live->digest, "digest-3");
  EXPECT_EQ(live->parameter_hash, "hash");
  EXPECT_EQ(live->epoch, Epoch(2));
  EXPECT_EQ(live->attempt, Attempt(0));
  EXPECT_THAT(live->exponents, ElementsAre(4, -5));
  EXPECT_THAT(live->members, ElementsAre(Incarnation(1), Incarnation(4)));
}

TEST_F(LiveTest, Live_LossScale_IsThePositions) {
  Start();
  EXPECT_EQ(Live()->loss_scale, std::nullopt);
  core::PersistPosition position = MakePosition(4);
  position.loss_scale = LossScale{13, 1999};
  core::PersistCommit commit = MakeCommit("j", 3);
  commit.record.loss_scale = LossScale{14, 0};
  Record({commit, position});
  EXPECT_EQ(Live()->loss_scale, (LossScale{13, 1999}));
  EXPECT_EQ((*journal_->LastCommit("j"))->window.loss_scale, (LossScale{14, 0}));
  Record({core::PersistAttempt{"j", Window(4), Attempt(1), {7, 8}}});
  EXPECT_EQ(Live()->loss_scale, (LossScale{13, 1999}));  // a new attempt has the window's
}

TEST_F(LiveTest, Live_AttemptOfTheWindowOnTheWay_ComesWithItsExponents) {
  Start();
  Record({core::PersistAttempt{"j", Window(3), Attempt(2), {7, 8}}});
  EXPECT_EQ(Live()->attempt, Attempt(2));
  EXPECT_THAT(Live()->exponents, ElementsAre(7, 8));
  Record({MakePosition(4)});  // the next window begins anew
  EXPECT_EQ(Live()->attempt, Attempt(0));
  EXPECT_THAT(Live()->exponents, ElementsAre(4, -5));
  Record({core::PersistExponents{"j", {1, 2}}});
  EXPECT_THAT(Live()->exponents, ElementsAre(1, 2));
}

TEST_F(LiveTest, Live_WentBackToACheckpoint_NobodyUntilThereAreMembersAgain) {
  Start();
  Record({MakeEpoch(3, {}, 1)});
  EXPECT_EQ(Live(), std::nullopt);
  EXPECT_EQ(journal_->Jobs()->front().timeline, Timeline(1));
  // A window that is on record is computed again: what the members hold lies before the newest commit.
  Record({MakeCommit("j", 8), MakePosition(1, 1), MakeEpoch(4, {Incarnation(9)}, 1)});
  EXPECT_EQ(Live()->window, Window(1));
  EXPECT_EQ(Live()->timeline, Timeline(1));
  EXPECT_THAT(Live()->members, ElementsAre(Incarnation(9)));
}

TEST_F(LiveTest, Live_EveryMemberGone_Nobody) {
  Start();
  Record({MakeEpoch(3, {})});
  EXPECT_EQ(Live(), std::nullopt);
}

TEST_F(JournalTest, Record_State_ChangesTheJob) {
  auto journal = Open().journal;
  ASSERT_TRUE(journal->AddJob(MakeJob("j")).ok());
  ASSERT_TRUE(journal->Record({core::PersistState{"j", core::JobState::kFailed, "a reason"}}, 1).ok());
  EXPECT_EQ(journal->Jobs()->front().state, core::JobState::kFailed);
  EXPECT_EQ(journal->Jobs()->front().reason, "a reason");
}

TEST_F(JournalTest, SetPaused_StaysThroughOtherChanges) {
  auto journal = Open().journal;
  ASSERT_TRUE(journal->AddJob(MakeJob("j")).ok());
  EXPECT_FALSE(journal->Jobs()->front().paused);
  ASSERT_TRUE(journal->SetPaused("j", true).ok());
  ASSERT_TRUE(journal->Record({core::PersistState{"j", core::JobState::kWaiting, ""}}, 1).ok());
  EXPECT_TRUE(journal->Jobs()->front().paused);
  ASSERT_TRUE(journal->SetPaused("j", false).ok());
  EXPECT_FALSE(journal->Jobs()->front().paused);
}

TEST_F(JournalTest, StartTimeline_SupersedesWhatFollows) {
  auto journal = Open().journal;
  ASSERT_TRUE(journal->AddJob(MakeJob("j")).ok());
  for (int window = 0; window < 5; ++window) ASSERT_TRUE(journal->Record({MakeCommit("j", window)}, 1).ok());
  ASSERT_TRUE(journal->Record({core::PersistEvaluation{"j", Window(2), 2.5, 10},
                               core::PersistEvaluation{"j", Window(4), 2.25, 10}}, 1).ok());
  EXPECT_EQ(journal->Commits("j", Window(3), 1)->front().validation_loss, 2.25);
  ASSERT_TRUE(journal->StartTimeline("j", Timeline(1), Window(2)).ok());
  EXPECT_THAT(Windows(*journal, "j"), ElementsAre(0, 1));
  EXPECT_EQ((*journal->LastCommit("j"))->window.window, Window(1));
  EXPECT_EQ((*journal->LastCommit("j"))->validation_loss, 2.5);
  EXPECT_EQ(journal->Evaluations("j", Window(0))->size(), 1u);
  EXPECT_EQ(*journal->SupersededDigest("j", Window(3)), "digest-3-0");
  EXPECT_EQ(*journal->SupersededDigest("j", Window(1)), "");
  ASSERT_TRUE(journal->Record({MakeCommit("j", 2, 1)}, 1).ok());
  EXPECT_THAT(Windows(*journal, "j", 1), ElementsAre(1, 2));
  EXPECT_EQ(journal->Jobs()->front().timeline, Timeline(1));
  EXPECT_EQ(journal->Jobs()->front().start_window, Window(2));
}

TEST_F(JournalTest, Record_CommitOfHigherTimeline_SupersedesByItself) {
  auto journal = Open().journal;
  for (int window = 0; window < 5; ++window) ASSERT_TRUE(journal->Record({MakeCommit("j", window)}, 1).ok());
  ASSERT_TRUE(journal->Record({MakeCommit("j", 3, 1)}, 1).ok());
  EXPECT_THAT(Windows(*journal, "j"), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ((*journal->LastCommit("j"))->window.digest, "digest-3-1");
}

TEST_F(JournalTest, FindFileHash_ChangedFile_IsUnknown) {
  auto journal = Open().journal;
  FileHash file{"/data/a.bin", 10, 20, "00"};
  EXPECT_EQ(*journal->FindFileHash(file), "");
  ASSERT_TRUE(journal->PutFileHash(file).ok());
  EXPECT_EQ(*journal->FindFileHash(file), "00");
  file.modified_unix_ns = 21;
  EXPECT_EQ(*journal->FindFileHash(file), "");
}

TEST_F(JournalTest, Checkpoints_InOrder) {
  auto journal = Open().journal;
  ASSERT_TRUE(journal->Record({core::PersistCheckpoint{"j", Window(20), "b"},
                               core::PersistCheckpoint{"j", Window(10), "a"}}, 7).ok());
  const auto checkpoints = journal->Checkpoints("j");
  ASSERT_EQ(checkpoints->size(), 2u);
  EXPECT_EQ((*checkpoints)[0].window, Window(10));
  EXPECT_EQ((*checkpoints)[1].digest, "b");
  EXPECT_EQ((*checkpoints)[1].written_unix_ns, 7);
}

}  // namespace
}  // namespace accrue
