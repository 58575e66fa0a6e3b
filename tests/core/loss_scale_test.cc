// The loss scale of fp16: halved by skips, doubled by windows that step, and what a restart, a rollback and a replay
// make of it. docs/numerics.md, section 12.
#include "common/loss_scale.h"

#include <set>

#include "tests/core/restore_fixture.h"

namespace accrue::core {
namespace {

using testing::Contains;
using testing::Field;
using testing::HasSubstr;

constexpr LossScaleConfig kConfig{.initial_exponent = 5, .growth_windows = 3};

JobConfig Fp16Job() {
  JobConfig config = SmallJob();
  config.precision = Precision::kFp16;
  config.loss_scale = kConfig;
  return config;
}

TEST(NextLossScale, NonFinite_HalvedDownToOne) {
  EXPECT_EQ(NextLossScale(kConfig, {5, 2}, WindowEnd::kNonFinite), (LossScale{4, 0}));
  EXPECT_EQ(NextLossScale(kConfig, {1, 0}, WindowEnd::kNonFinite), (LossScale{0, 0}));
  EXPECT_EQ(NextLossScale(kConfig, {0, 2}, WindowEnd::kNonFinite), (LossScale{0, 0}));
  EXPECT_EQ(NextLossScale(kConfig, {24, 0}, WindowEnd::kNonFinite), (LossScale{23, 0}));
}

TEST(NextLossScale, Stepped_DoubledAfterSoManyInARowUpTo2To15) {
  EXPECT_EQ(NextLossScale(kConfig, {5, 0}, WindowEnd::kStepped), (LossScale{5, 1}));
  EXPECT_EQ(NextLossScale(kConfig, {5, 1}, WindowEnd::kStepped), (LossScale{5, 2}));
  EXPECT_EQ(NextLossScale(kConfig, {5, 2}, WindowEnd::kStepped), (LossScale{6, 0}));
  EXPECT_EQ(NextLossScale(kConfig, {14, 2}, WindowEnd::kStepped), (LossScale{15, 0}));
  EXPECT_EQ(NextLossScale(kConfig, {15, 2}, WindowEnd::kStepped), (LossScale{15, 3}));
  EXPECT_EQ(NextLossScale(kConfig, {15, 3}, WindowEnd::kStepped), (LossScale{15, 3}));  // no number without end
  EXPECT_EQ(NextLossScale(kConfig, {20, 2}, WindowEnd::kStepped), (LossScale{20, 3}));
}

TEST(NextLossScale, NoToken_StaysAsItIs) {
  EXPECT_EQ(NextLossScale(kConfig, {5, 2}, WindowEnd::kEmpty), (LossScale{5, 2}));
}

class LossScaleTest : public testing::Test {
 protected:
  // A unit's gradient is not finite, or all have no token, in this window.
  void NonFinite(Harness& h, int64_t window) {
    UnitReport report = h.UnitOf(window, 1);
    report.non_finite = true;
    h.special[{window, 1}] = report;
  }
  void Empty(Harness& h, int64_t window) {
    for (int64_t unit = 0; unit < 4; ++unit) {
      UnitReport report = h.UnitOf(window, unit);
      report.valid_tokens = 0;
      h.special[{window, unit}] = report;
    }
  }
};

TEST_F(LossScaleTest, OtherPrecision_NowhereToBeSeen) {
  Harness h;
  h.Submit(SmallJob());
  const auto workers = h.Start(1);
  EXPECT_EQ(h.Last<ProbeOrder>(workers[0]).loss_scale, std::nullopt);
  EXPECT_EQ(h.Last<Plan>(workers[0]).loss_scale, std::nullopt);
  h.Compute(workers[0], 0);
  EXPECT_EQ(h.Last<Seal>(workers[0]).next_loss_scale, std::nullopt);
  h.Step(workers[0], 0, "d0");
  EXPECT_EQ(h.Effects<PersistPosition>().at(0).loss_scale, std::nullopt);
  EXPECT_EQ(h.commits.at(0).loss_scale, std::nullopt);
}

TEST_F(LossScaleTest, Start_ProbeAndFirstPlanHaveTheFirst) {
  Harness h;
  h.Submit(Fp16Job());
  const auto workers = h.Start(2);
  EXPECT_EQ(h.Last<ProbeOrder>(workers[0]).loss_scale, (LossScale{5, 0}));
  for (Incarnation worker : workers) EXPECT_EQ(h.Last<Plan>(worker).loss_scale, (LossScale{5, 0}));
}

TEST_F(LossScaleTest, Windows_SealDecidesCommitRecordsPositionHolds) {
  Harness h;
  h.Submit(Fp16Job());
  const auto workers = h.Start(2);
  NonFinite(h, 0);
  Empty(h, 2);
  const std::vector<LossScale> next = {{4, 0}, {4, 1}, {4, 1}, {4, 2}, {5, 0}, {5, 1}};
  for (size_t window = 0; window < next.size(); ++window) {
    const auto number = static_cast<int64_t>(window);
    for (Incarnation worker : workers) h.Compute(worker, number);
    for (Incarnation worker : workers) EXPECT_EQ(h.Last<Seal>(worker).next_loss_scale, next[window]) << window;
    for (Incarnation worker : workers) h.Step(worker, number, Harness::DigestOf(number));
    EXPECT_EQ(h.Effects<PersistPosition>().at(0).loss_scale, next[window]) << window;
    EXPECT_EQ(h.commits.at(window).loss_scale, window == 0 ? (LossScale{5, 0}) : next[window - 1]) << window;
  }
  EXPECT_EQ(h.View().windows_skipped, 2);
  EXPECT_THAT(h.ledger, Contains(Field(&LedgerEntry::reason, "halved to 16")));
  EXPECT_THAT(h.ledger, Contains(Field(&LedgerEntry::reason, "doubled to 32: 3 windows stepped in a row")));
  EXPECT_THAT(h.ledger, Contains(Field(&LedgerEntry::reason,
                                       "a gradient is not finite with loss scale 32, which is too high: as fp16 has it "
                                       "at times")));
}

TEST_F(LossScaleTest, NonFiniteAtTheLeast_LedgerSaysWhatToDo) {
  Harness h;
  JobConfig config = Fp16Job();
  config.loss_scale->initial_exponent = 0;
  h.Submit(config);
  const auto workers = h.Start(1);
  NonFinite(h, 0);
  h.RunWindow(workers, 0);
  EXPECT_EQ(h.Last<Seal>(workers[0]).next_loss_scale, (LossScale{0, 0}));
  EXPECT_THAT(h.Last<Seal>(workers[0]).reason, HasSubstr("with loss scale 1, the least"));
  EXPECT_THAT(h.Last<Seal>(workers[0]).reason, HasSubstr("compute in bf16 or fp32"));
}

TEST_F(LossScaleTest, Replay_SameScaleAgain) {
  Harness h;
  h.Submit(Fp16Job());
  const auto workers = h.Start(1);
  UnitReport large = h.UnitOf(0, 3);
  large.max_exponents = {40, -3};
  h.special[{0, 3}] = large;
  h.Compute(workers[0], 0);
  ASSERT_EQ(h.View().replays, 1);
  EXPECT_EQ(h.Last<Plan>(workers[0]).loss_scale, (LossScale{5, 0}));
  h.Compute(workers[0], 0);
  EXPECT_EQ(h.Last<Seal>(workers[0]).next_loss_scale, (LossScale{5, 1}));
}

TEST_F(LossScaleTest, Joiner_IsPlannedWithTheScaleOfTheWindow) {
  Harness h;
  h.Submit(Fp16Job());
  auto workers = h.Start(1);
  NonFinite(h, 0);
  h.RunWindow(workers, 0);
  const Incarnation late = h.Join();
  h.Load(late);
  h.Synced(workers[0], Harness::DigestOf(0));
  h.Synced(late, Harness::DigestOf(0));
  EXPECT_EQ(h.Last<Plan>(late).loss_scale, (LossScale{4, 0}));
}

TEST_F(LossScaleTest, HoldersGone_GoesOnWithTheCheckpoints) {
  Harness h;
  JobConfig config = Fp16Job();
  config.checkpoint_every = 1;
  h.Submit(config);
  auto workers = h.Start(1);
  NonFinite(h, 0);
  h.RunWindow(workers, 0);  // 2^4 from here on, and in the checkpoint
  h.WriteShard(workers[0]);
  EXPECT_EQ(h.Effects<FinishCheckpoint>().at(0).loss_scale, (LossScale{4, 0}));
  h.VerifyCheckpoint(1);
  NonFinite(h, 1);
  h.RunWindow(workers, 1);
  h.Gone(workers[0]);
  workers = {h.Join()};
  h.Load(workers[0], Harness::DigestOf(0));
  EXPECT_EQ(h.Last<Plan>(workers[0]).loss_scale, (LossScale{4, 0}));
  h.Compute(workers[0], 1);
  EXPECT_EQ(h.Last<Seal>(workers[0]).next_loss_scale, (LossScale{3, 0}));
}

TEST_F(LossScaleTest, HoldersGoneBeforeACheckpoint_GoesBackToTheFirst) {
  Harness h;
  h.Submit(Fp16Job());
  auto workers = h.Start(1);
  NonFinite(h, 0);
  h.RunWindow(workers, 0);
  h.Gone(workers[0]);
  workers = {h.Join()};
  h.Load(workers[0]);
  h.AnswerProbe(workers[0]);
  EXPECT_EQ(h.Last<Plan>(workers[0]).loss_scale, (LossScale{5, 0}));
}

TEST_F(LossScaleTest, Resumed_FromWhatTheCheckpointSays) {
  Harness h;
  StartPoint start;
  start.checkpoint_directory = "window-3";
  start.window = Window(3);
  start.steps = 3;
  start.digest = "d";
  start.exponents = NextExponents(4, std::vector<int>{0, -3});
  start.loss_scale = LossScale{2, 1};
  h.Submit(Fp16Job(), start);
  const Incarnation worker = h.Join();
  JobLoaded loaded;
  loaded.from = worker;
  loaded.key = h.Last<AssignJob>(worker).key;
  loaded.digest = "d";
  loaded.tensor_elements = {60, 40};
  loaded.buckets = 1;
  h.Apply(loaded);
  EXPECT_EQ(h.Last<Plan>(worker).loss_scale, (LossScale{2, 1}));
}

class LossScaleRestoreTest : public RestoreTest {
 protected:
  LossScaleRestoreTest() { live_.layout.numeric_class = "cpu fp16"; }
  void ResumeFp16(const WorkerHolds& holds) {
    WorkerJoined joined;
    joined.incarnation = holds.from;
    joined.name = "worker-" + std::to_string(holds.from.value());
    joined.fp16_numeric_class = "cpu fp16";
    joined.resumed = true;
    h.Apply(joined);
    h.Apply(holds);
  }
};

TEST_F(LossScaleRestoreTest, CoordinatorDied_WindowGoesOnWithItsScale) {
  live_.loss_scale = LossScale{7, 2};
  Submit(Fp16Job());
  for (Incarnation worker : {kA, kB, kC}) {
    ResumeFp16(Level(worker, worker == kA ? std::vector<int64_t>{0} : std::vector<int64_t>{}));
  }
  std::set<Incarnation> told;  // with the first plan; the next ones bring units
  for (const Send& send : h.Effects<Send>()) {
    const auto* plan = std::get_if<Plan>(&send.message);
    if (plan == nullptr || !plan->loss_scale) continue;
    EXPECT_EQ(plan->loss_scale, (LossScale{7, 2}));
    told.insert(send.to);
  }
  EXPECT_THAT(told, testing::ElementsAre(kA, kB, kC));
  for (Incarnation worker : {kA, kB, kC}) Compute(worker, kCommitted);
  EXPECT_EQ(h.Last<Seal>(kA).next_loss_scale, (LossScale{8, 0}));
}

TEST_F(LossScaleRestoreTest, CoordinatorDiedAfterTheStep_GoesOnWithTheSealsScale) {
  live_.loss_scale = LossScale{7, 2};
  Submit(Fp16Job());
  for (Incarnation worker : {kA, kB, kC}) {
    WorkerHolds holds = Ahead(worker, worker == kA ? std::vector<UnitRange>{{0, 4}} : std::vector<UnitRange>{});
    holds.step->next_loss_scale = LossScale{8, 0};
    ResumeFp16(holds);
  }
  ASSERT_EQ(h.commits.size(), 1u);
  EXPECT_EQ(h.commits[0].loss_scale, (LossScale{7, 2}));
  for (Incarnation worker : {kA, kB, kC}) EXPECT_EQ(h.Last<Plan>(worker).loss_scale, (LossScale{8, 0}));
}

TEST_F(LossScaleRestoreTest, StepWithoutAScaleOrWithAnImpossibleOne_IsNotBelieved) {
  live_.loss_scale = LossScale{7, 2};
  Submit(Fp16Job());
  for (Incarnation worker : {kA, kB}) {
    WorkerHolds holds = Ahead(worker, {{0, 4}});
    if (worker == kB) holds.step->next_loss_scale = LossScale{99, 0};
    ResumeFp16(holds);
    ASSERT_EQ(Expelled().size(), 1u);
    EXPECT_THAT(Expelled()[0].reason, HasSubstr(worker == kA ? "gave no loss scale" : "gave loss scale 2^99"));
  }
}

TEST_F(LossScaleRestoreTest, StepsOfSealsThatDisagree_MajorityCounts) {
  live_.loss_scale = LossScale{7, 2};
  Submit(Fp16Job());
  std::vector<Incarnation> expelled;
  for (Incarnation worker : {kA, kB, kC}) {
    WorkerHolds holds = Ahead(worker, worker == kA ? std::vector<UnitRange>{{0, 4}} : std::vector<UnitRange>{});
    holds.step->next_loss_scale = LossScale{worker == kC ? 6 : 8, 0};
    ResumeFp16(holds);
    for (const Expel& expel : Expelled()) expelled.push_back(expel.worker);
  }
  EXPECT_THAT(expelled, testing::ElementsAre(kC));
}

}  // namespace
}  // namespace accrue::core
