#include "worker/core/recollection.h"

#include <gtest/gtest.h>

#include "tests/worker/runner_testing.h"

namespace accrue {
namespace {

v1::WorkerMessage Report(int64_t window, int64_t unit, double loss) {
  v1::WorkerMessage message;
  message.mutable_unit_reports()->mutable_key()->set_window(window);
  message.mutable_unit_reports()->add_reports()->set_unit(unit);
  message.mutable_unit_reports()->mutable_reports(0)->set_loss_sum(loss);
  return message;
}

TEST(RecollectionTest, Send_EverythingPassedOn_OnlyAccumulatedUnitsRemembered) {
  worker_testing::FakeLink link;
  Recollection memory(link);
  memory.Send(Report(3, 5, 1));
  v1::WorkerMessage audit = Report(3, 5, 2), probe = Report(3, 5, 3);
  audit.mutable_unit_reports()->set_audit(true);
  probe.mutable_unit_reports()->set_probe(true);
  memory.Send(audit);
  memory.Send(probe);
  EXPECT_EQ(link.waiting(), 3u);
  v1::Holding holding;
  memory.RecallUnits(3, 0, {5}, holding);
  ASSERT_EQ(holding.reports_size(), 1);
  EXPECT_EQ(holding.reports(0).loss_sum(), 1);
}

TEST(RecollectionTest, Stepped_DigestOfTheStateReachedAlone) {
  worker_testing::FakeLink link;
  Recollection memory(link);
  EXPECT_EQ(memory.DigestOf(1), "");
  v1::WorkerMessage message;
  message.mutable_stepped()->mutable_key()->set_window(4);
  message.mutable_stepped()->set_digest("d");
  memory.Send(message);
  EXPECT_EQ(memory.DigestOf(5), "d");
  EXPECT_EQ(memory.DigestOf(4), "");
  memory.Forget();  // the state comes from another member
  EXPECT_EQ(memory.DigestOf(5), "");
}

}  // namespace
}  // namespace accrue
