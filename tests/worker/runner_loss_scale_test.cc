// The loss scale of fp16 on a worker: from the coordinator's words to the engine and into the state.
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/worker/runner_testing.h"
#include "worker/collective/gloo_collective.h"
#include "worker/collective/testing/memory_rendezvous.h"

namespace accrue {
namespace {

using worker_testing::kUnits;
using worker_testing::MakeJob;
using worker_testing::Member;
using worker_testing::SealOf;
using worker_testing::TellSeal;

class RunnerLossScaleTest : public testing::Test {
 protected:
  RunnerLossScaleTest() : collectives_(*CreateGlooFactory({}, &store_)) {}

  std::unique_ptr<Member> Add(int64_t incarnation) {
    return std::make_unique<Member>(incarnation, *collectives_, MakeJob(/*holds_state=*/true));
  }

  // The exponents of the first window, as the probe gives them.
  static std::vector<int> Probe(Member& member, std::optional<int> loss_scale_exponent = std::nullopt) {
    v1::CoordinatorMessage message;
    *message.mutable_probe()->mutable_key() = member.Key(0);
    if (loss_scale_exponent) message.mutable_probe()->mutable_loss_scale()->set_exponent(*loss_scale_exponent);
    member.Tell(message);
    const v1::UnitReport report = member.link.Take().unit_reports().reports(0);
    return NextExponents(kUnits, {report.max_exponents().begin(), report.max_exponents().end()});
  }

  MemoryRendezvous store_;
  std::unique_ptr<CollectiveFactory> collectives_;
};

// The plan's in the first window, the seals' from there on; parameters are those of a job without one.
TEST_F(RunnerLossScaleTest, OfPlanAndSeals_IsUsedAndKept) {
  auto scaled = Add(1), plain = Add(2);
  const std::vector<int> exponents = Probe(*plain);
  EXPECT_EQ(Probe(*scaled, 9), exponents);
  EXPECT_EQ(scaled->engine().last_loss_scale, 9);
  const std::vector<int> next = {7, 8};
  for (int64_t window = 0; window < 2; ++window) {
    const std::vector<int> first = window == 0 ? exponents : std::vector<int>();
    const std::optional<LossScale> given = window == 0 ? std::make_optional(LossScale{9, 3}) : std::nullopt;
    plain->Plan(window, {{0, 6}}, first);
    scaled->Plan(window, {{0, 6}}, first, 0, 0, given);
    std::vector<v1::UnitReport> plain_reports, reports;
    plain->TakeComputed(&plain_reports);
    scaled->TakeComputed(&reports);
    EXPECT_EQ(scaled->engine().last_loss_scale, window == 0 ? 9 : 7);
    v1::Seal seal = SealOf(reports, {1}, "scaled"), plain_seal = SealOf(plain_reports, {2}, "plain");
    EXPECT_EQ(seal.SerializeAsString().size(), plain_seal.SerializeAsString().size() + 1);  // but for the name
    seal.mutable_next_loss_scale()->set_exponent(next[window]);
    seal.mutable_next_loss_scale()->set_good_windows(window);
    TellSeal(*scaled, seal, window);
    TellSeal(*plain, plain_seal, window);
    const v1::Stepped stepped = scaled->TakeStepped(), plain_stepped = plain->TakeStepped();
    EXPECT_EQ(stepped.parameter_hash(), plain_stepped.parameter_hash());
    EXPECT_EQ(stepped.gradient_norm(), plain_stepped.gradient_norm());
    EXPECT_NE(stepped.digest(), plain_stepped.digest());  // the scale is part of it
    scaled->Commit(window, stepped.digest());
    plain->Commit(window, plain_stepped.digest());
  }
  scaled->Release();
  EXPECT_EQ(scaled->job->state->loss_scale(), (LossScale{8, 1}));
}

TEST_F(RunnerLossScaleTest, WindowSkipped_IsTheSealsAllTheSame) {
  auto member = Add(1);
  const std::vector<int> exponents = Probe(*member);
  member->engine().odd_window = 0;
  member->engine().odd_factor = std::numeric_limits<float>::infinity();
  member->Plan(0, {{0, 6}}, exponents, 0, 0, LossScale{15, 0});
  std::vector<v1::UnitReport> reports;
  member->TakeComputed(&reports);
  v1::Seal seal = SealOf(reports, {1}, "solo");
  ASSERT_EQ(seal.verdict(), v1::VERDICT_SKIP);
  seal.mutable_next_exponents()->Assign(exponents.begin(), exponents.end());
  seal.mutable_next_loss_scale()->set_exponent(14);
  TellSeal(*member, seal, 0);
  member->Commit(0, member->TakeStepped().digest());
  member->Plan(1, {{0, 6}});
  reports.clear();
  member->TakeComputed(&reports);
  EXPECT_EQ(member->engine().last_loss_scale, 14);
}

TEST_F(RunnerLossScaleTest, Impossible_JobIsGivenUp) {
  auto member = Add(1);
  member->Plan(0, {{0, 6}}, Probe(*member), 0, 0, LossScale{200, 0});
  const v1::WorkerMessage message = member->link.Take();
  ASSERT_TRUE(message.has_job_failed()) << message.DebugString();
  EXPECT_NE(message.job_failed().reason().find("loss scale 2^200"), std::string::npos);
  member->Join();
}

}  // namespace
}  // namespace accrue
