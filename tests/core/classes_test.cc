// Workers of different numeric classes: refused, or let in and the job marked.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/audit_fixture.h"
#include "tests/core/restore_fixture.h"

namespace accrue::core {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kOne[] = "cpu/avx2", kOther[] = "cpu/avx512";

JobConfig MixedJob() {
  JobConfig config = SmallJob();
  config.mixed_classes = true;
  return config;
}

// A member of class kOne that has committed a window.
struct Job : Harness {
  explicit Job(const JobConfig& config = MixedJob()) {
    Submit(config);
    first = Join(kOne);
    Load(first);
    AnswerProbe(first);
    RunWindow({first}, 0);
  }
  // One more, by a copy of the state between two windows.
  Incarnation Add(const std::string& numeric_class) {
    const Incarnation added = Join(numeric_class);
    Load(added);
    const std::string digest = DigestOf(static_cast<int64_t>(commits.size()) - 1);
    Synced(first, digest);
    Synced(added, digest);
    return added;
  }
  std::vector<LedgerEntry> Marks() const {
    std::vector<LedgerEntry> marks;
    for (const LedgerEntry& entry : ledger) {
      if (entry.kind == "mixed") marks.push_back(entry);
    }
    return marks;
  }
  Incarnation first;
};

JobConfig MixedAudits() {
  JobConfig config = AuditedJob();
  config.mixed_classes = true;
  return config;
}

// Workers of these classes that started together; audits are answered by hand.
struct ClassFleet : Harness {
  explicit ClassFleet(const std::vector<std::string>& classes, const JobConfig& config = MixedAudits()) {
    answer_audits = false;
    Submit(config);
    for (const std::string& numeric_class : classes) workers.push_back(Join(numeric_class));
    for (Incarnation worker : workers) Load(worker);
    AnswerProbe(workers[0]);
  }
  std::vector<Incarnation> workers;
};

// ---- who is let in ----

TEST(Classes, NotAllowed_IsRefusedWithBothClasses) {
  Job job(SmallJob());
  const Incarnation other = job.Join(kOther);
  EXPECT_THAT(job.Sent<AssignJob>(), IsEmpty());
  EXPECT_THAT(job.ledger.back(), AllOf(Field(&LedgerEntry::kind, "worker"), Field(&LedgerEntry::incarnation, other)));
  EXPECT_THAT(job.ledger.back().reason, AllOf(HasSubstr("cpu/avx512, the job is computed in cpu/avx2"),
                                              HasSubstr("equal bits need equal classes")));
  EXPECT_EQ(job.View().mixed, "");
}

TEST(Classes, Allowed_MarkedWhenItIsAMemberAndNotBefore) {
  Job job;
  const Incarnation other = job.Join(kOther);
  ASSERT_EQ(job.Sent<AssignJob>().count(other), 1u);
  job.Load(other);
  job.Synced(job.first, Harness::DigestOf(0));
  EXPECT_EQ(job.View().mixed, "");
  EXPECT_THAT(job.Marks(), IsEmpty());
  job.Synced(other, Harness::DigestOf(0));
  EXPECT_THAT(job.View().mixed, AllOf(HasSubstr("worker-2"), HasSubstr("cpu/avx512 joined at window 1"),
                                      HasSubstr("computed in cpu/avx2")));
  ASSERT_THAT(job.Marks(), SizeIs(1));
  EXPECT_THAT(job.Marks()[0].reason, HasSubstr(job.View().mixed));
}

// Durable before the epoch that it is a member of, and before anything is sent.
TEST(Classes, Allowed_MarkIsRecordedBeforeTheEpoch) {
  Job job;
  const Incarnation other = job.Join(kOther);
  job.Load(other);
  job.Synced(job.first, Harness::DigestOf(0));
  job.Synced(other, Harness::DigestOf(0));
  std::vector<std::string> order;
  for (const Effect& effect : job.effects()) {
    if (const auto* layout = std::get_if<PersistLayout>(&effect)) {
      EXPECT_EQ(layout->layout.numeric_class, kOne);
      EXPECT_EQ(layout->layout.mixed, job.View().mixed);
      order.push_back("layout");
    }
    if (std::holds_alternative<PersistEpoch>(effect)) order.push_back("epoch");
  }
  EXPECT_THAT(order, ElementsAre("layout", "epoch"));
}

TEST(Classes, AllowedAndAllOfOne_IsNotMarked) {
  Job job;
  job.Add(kOne);
  EXPECT_EQ(job.View().mixed, "");
  EXPECT_THAT(job.Marks(), IsEmpty());
}

TEST(Classes, MarkOutlivesTheWorker) {
  Job job;
  const Incarnation other = job.Add(kOther);
  const std::string mark = job.View().mixed;
  ASSERT_NE(mark, "");
  job.Gone(other);
  job.RunWindow({job.first}, 1);
  job.Add(kOther);
  EXPECT_EQ(job.View().mixed, mark);
  EXPECT_THAT(job.Marks(), SizeIs(1));
}

TEST(Classes, StartTogether_MarkedAtTheStart) {
  Harness harness;
  harness.Submit(MixedJob());
  const Incarnation first = harness.Join(kOne), second = harness.Join(kOther);
  harness.Load(second);
  harness.Load(first);
  EXPECT_THAT(harness.View().mixed, HasSubstr("cpu/avx512 joined at window 0, the job is computed in cpu/avx2"));
}

TEST(Classes, NothingCommittedAndAllGone_TheNextFixesTheClass) {
  Harness harness;
  harness.Submit(MixedJob());
  const Incarnation first = harness.Join(kOne), second = harness.Join(kOther);
  harness.Load(first);
  harness.Load(second);
  ASSERT_NE(harness.View().mixed, "");
  harness.Gone(first);
  harness.Gone(second);
  const Incarnation third = harness.Join(kOther);
  harness.Load(third);
  EXPECT_EQ(harness.View().mixed, "");
}

TEST(Classes, AnotherBackend_IsRefusedEvenThen) {
  Job job;
  job.Join("cuda/sm-9.0-132");
  EXPECT_THAT(job.Sent<AssignJob>(), IsEmpty());
  EXPECT_THAT(job.ledger.back().reason, HasSubstr("different backends do not reduce together"));
}

// ---- digests still vote ----

TEST(Classes, DigestsDiffer_MajorityCommits) {
  ClassFleet job({kOne, kOne, kOther}, MixedJob());
  for (Incarnation worker : job.workers) job.Compute(worker, 0);
  job.Step(job.workers[0], 0, "right");
  job.Step(job.workers[1], 0, "right");
  job.Step(job.workers[2], 0, "another");
  ASSERT_THAT(job.Effects<Expel>(), SizeIs(1));
  EXPECT_EQ(job.Effects<Expel>()[0].worker, job.workers[2]);
  ASSERT_THAT(job.commits, SizeIs(1));
  EXPECT_EQ(job.commits[0].digest, "right");
}

// ---- windows computed again ----

TEST(Classes, ComputedAgainByAnotherMix_GoesOnAndSaysWhatItWas) {
  Job job;
  job.Gone(job.first);
  const Incarnation other = job.Join(kOther);
  job.Load(other);
  job.AnswerProbe(other);
  job.Compute(other, 0);
  job.Step(other, 0, "another");
  EXPECT_EQ(job.View().state, JobState::kRunning) << job.View().reason;
  EXPECT_THAT(job.View().mixed, HasSubstr("joined at window 0"));
  EXPECT_THAT(job.ledger, Contains(AllOf(Field(&LedgerEntry::kind, "commit"),
                                         Field(&LedgerEntry::reason, HasSubstr("has digest another; it was digest-0")))));
}

TEST(Classes, ComputedAgainInTheSameClass_MustComeOutTheSame) {
  Job job;
  job.Gone(job.first);
  const Incarnation again = job.Join(kOne);
  job.Load(again);
  job.AnswerProbe(again);
  job.Compute(again, 0);
  job.Step(again, 0, "another");
  EXPECT_EQ(job.View().state, JobState::kFailed);
}

// Of a unit whose worker died: nobody is accused, and nothing is asked.
TEST(Classes, LostUnitDiffersInAnotherClass_IsNoAccusation) {
  ClassFleet job({kOne, kOther}, MixedJob());
  const int64_t unit = job.Held(job.workers[1], 0).at(0);
  UnitReport report = job.UnitOf(0, unit);
  ++report.bucket_checksums[0];
  job.ReportUnit(job.workers[1], 0, report);
  job.Gone(job.workers[1]);
  job.Compute(job.workers[0], 0);
  job.Step(job.workers[0], 0, Harness::DigestOf(0));
  EXPECT_THAT(job.commits, SizeIs(1));
  EXPECT_THAT(job.ledger, Not(Contains(Field(&LedgerEntry::kind, "differs"))));
}

// ---- audits ----

TEST(ClassesAudit, EachUnit_IsCheckedByAWorkerOfItsClass) {
  ClassFleet job({kOne, kOne, kOther, kOther});
  for (size_t i = 0; i < 4; ++i) {
    const std::vector<int64_t> held = job.Held(job.workers[i], 0);
    ASSERT_THAT(held, SizeIs(1));
    EXPECT_THAT(job.Audited(job.workers[i ^ 1], 0), ElementsAre(held[0])) << i;
  }
}

TEST(ClassesAudit, AloneInItsClass_IsNotCheckedAndTheLedgerSaysSoOnce) {
  ClassFleet job({kOne, kOne, kOther});
  for (int64_t window = 0; window < 3; ++window) {
    EXPECT_THAT(job.Audited(job.workers[2], window), IsEmpty());
    for (Incarnation worker : job.workers) job.ReportUnits(worker, window);
    for (Incarnation worker : job.workers) job.SendComputed(worker, window);
    for (Incarnation worker : job.workers) job.ReportAudits(worker, window);
    for (Incarnation worker : job.workers) job.Step(worker, window, Harness::DigestOf(window));
  }
  EXPECT_THAT(job.commits, SizeIs(3));
  int said = 0;
  for (const LedgerEntry& entry : job.ledger) said += entry.reason.find("no other worker is of its numeric class") != std::string::npos;
  EXPECT_EQ(said, 1);
}

// A worker that computed the unit and died had another result, which was of another class.
TEST(ClassesAudit, WordOfAnotherClass_DoesNotCount) {
  ClassFleet job({kOne, kOther, kOther});
  const int64_t unit = job.Held(job.workers[0], 0).at(0);
  for (int64_t held : job.Held(job.workers[0], 0)) {
    UnitReport report = job.UnitOf(0, held);
    ++report.bucket_checksums[0];
    job.ReportUnit(job.workers[0], 0, report);
  }
  job.Gone(job.workers[0]);
  const std::vector<Incarnation> left = {job.workers[1], job.workers[2]};
  for (Incarnation worker : left) job.ReportUnits(worker, 0);
  for (Incarnation worker : left) job.SendComputed(worker, 0);
  for (Incarnation worker : left) job.ReportAudits(worker, 0);
  for (Incarnation worker : left) job.Step(worker, 0, Harness::DigestOf(0));
  EXPECT_THAT(job.commits, SizeIs(1)) << "unit " << unit;
  for (const LedgerEntry& entry : job.ledger) {
    EXPECT_EQ(entry.reason.find("came out differently"), std::string::npos) << entry.reason;
  }
}

TEST(ClassesAudit, LieWithinAClass_IsFoundAsEver) {
  ClassFleet job({kOne, kOther, kOther, kOther});
  const Incarnation liar = job.workers[1];
  const int64_t unit = job.Held(liar, 0).at(0);
  UnitReport lie = job.UnitOf(0, unit);
  ++lie.bucket_checksums[0];
  job.lies[{liar.value(), 0, unit}] = {lie};
  for (int round = 0; round < 3; ++round) {
    for (Incarnation worker : job.workers) {
      if (worker == liar && round > 0) continue;
      job.ReportUnits(worker, 0);
      job.ReportAudits(worker, 0);
    }
  }
  EXPECT_THAT(job.ledger, Contains(Field(&LedgerEntry::reason, AllOf(HasSubstr("is quarantined"), HasSubstr("came out differently")))));
}

// ---- checkpoints, resumption and restart ----

TEST(Classes, Checkpoint_SaysOfWhatItsStateIs) {
  JobConfig config = MixedJob();
  config.checkpoint_every = 1;
  Job job(config);
  job.WriteShard(job.first);
  ASSERT_THAT(job.Effects<FinishCheckpoint>(), SizeIs(1));
  EXPECT_EQ(job.Effects<FinishCheckpoint>()[0].numeric_class, kOne);
  const Incarnation other = job.Add(kOther);
  EXPECT_EQ(job.Effects<FinishCheckpoint>().size(), 0u);
  job.VerifyCheckpoint(1);
  job.RunWindow({job.first, other}, 1);
  job.WriteShard(job.first);
  job.WriteShard(other);
  ASSERT_THAT(job.Effects<FinishCheckpoint>(), SizeIs(1));
  EXPECT_EQ(job.Effects<FinishCheckpoint>()[0].mixed, job.View().mixed);
}

StartPoint FromCheckpoint(const std::string& computed_in) {
  StartPoint start;
  start.checkpoint_directory = "checkpoint";
  start.window = Window(3);
  start.steps = 3;
  start.digest = "scratch";
  start.exponents = {1, 2};
  start.computed_in = computed_in;
  return start;
}

TEST(Classes, ResumedFromAnotherClass_IsMarked) {
  for (const bool same : {true, false}) {
    Harness harness;
    harness.Submit(SmallJob(), FromCheckpoint(same ? kOne : kOther));
    harness.Load(harness.Join(kOne));
    EXPECT_EQ(harness.View().state, JobState::kRunning);
    if (same) {
      EXPECT_EQ(harness.View().mixed, "");
    } else {
      EXPECT_THAT(harness.View().mixed,
                  HasSubstr("from window 3 on it is computed in numeric class cpu/avx2; before that it was cpu/avx512"));
    }
  }
}

TEST(Classes, ResumedFromAMixture_StaysMarked) {
  StartPoint start = FromCheckpoint(kOne);
  start.mixed = "a mixture";
  Harness harness;
  harness.Submit(SmallJob(), start);
  EXPECT_EQ(harness.View().mixed, "a mixture");
  harness.Load(harness.Join(kOne));
  EXPECT_EQ(harness.View().mixed, "a mixture");
  EXPECT_EQ(harness.Effects<PersistLayout>().at(0).layout.mixed, "a mixture");
}

TEST(Classes, RestartedJob_KeepsItsClass) {
  StartPoint start = FromCheckpoint(kOne);
  start.numeric_class = kOne;
  Harness harness;
  harness.Submit(SmallJob(), start);
  harness.Join(kOther);
  EXPECT_THAT(harness.Sent<AssignJob>(), IsEmpty());
  harness.Join(kOne);
  EXPECT_THAT(harness.Sent<AssignJob>(), SizeIs(1));
}

class ClassesRestore : public RestoreTest {};

TEST_F(ClassesRestore, MembersOfBothClasses_ComeBackAndTheMarkStays) {
  live_.members = {kA, kB};
  live_.layout.numeric_class = kOne;
  live_.layout.mixed = "a mixture";
  Submit(MixedJob());
  EXPECT_EQ(h.View().mixed, "a mixture");
  Resume(kA, kOne);
  Resume(kB, kOther);
  EXPECT_THAT(Expelled(), IsEmpty());
  h.Apply(Level(kA, {0}));
  h.Apply(Level(kB, {1}));
  EXPECT_EQ(h.View().state, JobState::kRunning);
  EXPECT_EQ(h.View().mixed, "a mixture");
}

TEST_F(ClassesRestore, NotAllowedAnyMore_IsRefused) {
  live_.members = {kA};
  live_.layout.numeric_class = kOne;
  Submit(SmallJob());
  Resume(kA, kOther);
  ASSERT_THAT(Expelled(), SizeIs(1));
  EXPECT_THAT(Expelled()[0].reason, AllOf(HasSubstr(kOne), HasSubstr(kOther)));
}

}  // namespace
}  // namespace accrue::core
