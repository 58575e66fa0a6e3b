// What a member says that it holds, and the journal contradicts.
#include <functional>

#include "tests/core/restore_fixture.h"

namespace accrue::core {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

struct BadHolding {
  const char* name;
  const char* reason;
  std::function<void(WorkerHolds&)> spoil;
};

std::ostream& operator<<(std::ostream& out, const BadHolding& bad) { return out << bad.name; }

class Refused : public RestoreTest, public testing::WithParamInterface<BadHolding> {};

TEST_P(Refused, Holding_IsRefusedWithTheReason_TheOthersGoOn) {
  live_.attempt = Attempt(1);
  Submit();
  WorkerHolds bad = Ahead(kA, {{0, 2}}, {1});
  GetParam().spoil(bad);
  Resume(kA);
  h.Apply(bad);
  ASSERT_THAT(Expelled(), SizeIs(1));
  EXPECT_EQ(Expelled()[0].worker, kA);
  EXPECT_TRUE(Expelled()[0].rejoin);
  EXPECT_THAT(Expelled()[0].reason, HasSubstr(GetParam().reason));
  Back(Level(kB, {0, 1}));
  Back(Level(kC, {2}));
  EXPECT_THAT(h.commits, IsEmpty());
  EXPECT_EQ(h.View().workers, 2);
  EXPECT_EQ(h.View().state, JobState::kRunning);
}

// The same of one that did not step.
void ToLevel(WorkerHolds& holds) {
  holds.key.window = Window(kCommitted);
  holds.key.attempt = Attempt(1);
  holds.digest = Harness::DigestOf(kCommitted - 1);
  holds.step.reset();
}

INSTANTIATE_TEST_SUITE_P(
    Holdings, Refused,
    testing::Values(
        BadHolding{"AnotherJob", "of job \"other\"", [](WorkerHolds& h) { h.key.job = "other"; }},
        BadHolding{"AnotherIncarnation", "another incarnation's",
                   [](WorkerHolds& h) { h.key.incarnation = kB; }},
        BadHolding{"NewerTerm", "of term 9", [](WorkerHolds& h) { h.key.term = Term(9); }},
        BadHolding{"OldTimeline", "of timeline 1", [](WorkerHolds& h) { h.key.timeline = Timeline(1); }},
        BadHolding{"NoState", "holds no state", [](WorkerHolds& h) { h.digest.clear(); }},
        BadHolding{"TooOld", "2 windows applied", [](WorkerHolds& h) { h.key.window = Window(2); }},
        BadHolding{"TooNew", "5 windows applied", [](WorkerHolds& h) { h.key.window = Window(5); }},
        BadHolding{"OtherDigest", "committed was digest-2",
                   [](WorkerHolds& h) {
                     ToLevel(h);
                     h.digest = "x";
                   }},
        BadHolding{"ParametersChangedSinceTheCommit", "its parameters have hash other",
                   [](WorkerHolds& h) {
                     ToLevel(h);
                     h.parameter_hash = "other";
                   }},
        BadHolding{"ParametersChangedSinceTheStep", "its parameters have hash other",
                   [](WorkerHolds& h) { h.parameter_hash = "other"; }},
        BadHolding{"AheadWithoutAStep", "how it came", [](WorkerHolds& h) { h.step.reset(); }},
        BadHolding{"StepOfAnother", "not given",
                   [](WorkerHolds& h) { h.step->stepped.key.incarnation = kB; }},
        BadHolding{"StepOfANewerEpoch", "not given",
                   [](WorkerHolds& h) { h.step->stepped.key.epoch = Epoch(8); }},
        BadHolding{"StepOfAnotherWindow", "not the one into",
                   [](WorkerHolds& h) { h.step->stepped.key.window = Window(2); }},
        BadHolding{"StepWithAnotherDigest", "not the one into",
                   [](WorkerHolds& h) { h.step->stepped.digest = "x"; }},
        BadHolding{"StepOfAVoidAttempt", "void: the last is 1",
                   [](WorkerHolds& h) { h.step->stepped.key.attempt = Attempt(0); }},
        BadHolding{"StepWithUnitsBeyondTheWindow", "units from 3, 2 of them; the window has 4",
                   [](WorkerHolds& h) {
                     h.step->computed.buckets[0].units = {{3, 2}};
                   }},
        BadHolding{"StepWithAUnitTwice", "held unit 1 twice",
                   [](WorkerHolds& h) {
                     h.step->computed.buckets[0].units = {{0, 2}, {1, 1}};
                   }},
        BadHolding{"AttemptNeverMade", "never made",
                   [](WorkerHolds& h) {
                     ToLevel(h);
                     h.key.attempt = Attempt(2);
                   }},
        BadHolding{"AttemptOfTheNextWindow", "never made",
                   [](WorkerHolds& h) { h.key.attempt = Attempt(1); }},
        BadHolding{"FinalBucketsBeyond", "2 buckets final",
                   [](WorkerHolds& h) {
                     ToLevel(h);
                     h.final_buckets = 2;
                   }},
        BadHolding{"FinalBucketsBeforeAnySeal", "1 buckets final",
                   [](WorkerHolds& h) { h.final_buckets = 1; }},
        BadHolding{"UnitBeyondTheWindow", "unit 4", [](WorkerHolds& h) { h.reports[0].unit = 4; }},
        BadHolding{"UnitTwice", "unit 1 twice", [](WorkerHolds& h) { h.reports.push_back(h.reports[0]); }},
        BadHolding{"OtherLayout", "exponents", [](WorkerHolds& h) { h.reports[0].max_exponents = {1}; }},
        BadHolding{"EvaluationUnitBeyond", "evaluation unit 0",
                   [](WorkerHolds& h) {
                     h.evaluations = {{0, 1, 1}};
                   }}),
    [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace accrue::core
