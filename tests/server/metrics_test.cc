#include "coordinator/server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/file_system.h"

namespace accrue {
namespace {

using testing::HasSubstr;
using testing::Not;

core::WindowRecord MakeWindow() {
  core::WindowRecord window;
  window.loss = 2.5;
  window.gradient_norm = 0.75;
  window.learning_rate = 0.001;
  window.loss_scale = LossScale{12, 0};
  window.tokens = 1000;
  window.sequences = 8;
  window.duration_ns = 500'000'000;
  core::WorkerWindow worker;
  worker.incarnation = Incarnation(1);
  worker.name = "w1";
  worker.units = 4;
  worker.phases.reduce_ns = 250'000'000;
  worker.memory_bytes = 4096;
  window.workers = {worker};
  return window;
}

// Something in every series.
void Fill(Metrics& metrics) {
  metrics.WindowCommitted("headers-1", MakeWindow());
  metrics.EvaluationDone("headers-1", 2.25);
  metrics.CheckpointVerified("headers-1", 500);
  v1::JobStatus status;
  status.set_job_id("headers-1");
  status.set_state(v1::JOB_STATE_RUNNING);
  status.set_window(3);
  status.set_restarts_of_windows(2);
  metrics.JobChanged(status);
  metrics.WorkerHeard("w1", 0.5, 8192);
  metrics.EventApplied("tick", 1e-5);
  metrics.MessageDropped("attempt is old", 3);
  metrics.QueueLength(2);
  metrics.JournalTransaction(1e-3, true);
  metrics.JournalTransaction(1e-3, false);
}

TEST(MetricsTest, Text_AfterACommit_HoldsTheWindow) {
  Metrics metrics;
  Fill(metrics);
  const std::string text = metrics.Text();
  for (const char* line :
       {"accrue_windows_committed_total{accrue_job=\"headers-1\"} 1", "accrue_tokens_total{accrue_job=\"headers-1\"} 1000",
        "accrue_loss_nats{accrue_job=\"headers-1\"} 2.5", "accrue_validation_loss_nats{accrue_job=\"headers-1\"} 2.25",
        "accrue_gradient_norm{accrue_job=\"headers-1\"} 0.75", "accrue_loss_scale{accrue_job=\"headers-1\"} 4096",
        "accrue_window_replays_total{accrue_job=\"headers-1\"} 2",
        "accrue_window_seconds_sum{accrue_job=\"headers-1\"} 0.5", "accrue_worker_units_total{worker=\"w1\"} 4",
        "accrue_worker_phase_seconds_total{phase=\"reduce\",worker=\"w1\"} 0.25",
        "accrue_worker_memory_bytes{worker=\"w1\"} 8192", "accrue_worker_heartbeat_age_seconds{worker=\"w1\"} 0.5",
        "accrue_job_state{accrue_job=\"headers-1\",state=\"running\"} 1",
        "accrue_job_state{accrue_job=\"headers-1\",state=\"failed\"} 0",
        "accrue_coordinator_events_total{kind=\"tick\"} 1", "accrue_coordinator_queue_events 2",
        "accrue_journal_transactions_failed_total 1", "accrue_journal_transaction_seconds_count 2"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("{job=")));
  EXPECT_THAT(text, Not(HasSubstr(",job=")));
}

TEST(MetricsTest, WorkerGone_ItsSeriesGo) {
  Metrics metrics;
  Fill(metrics);
  metrics.WorkerGone("w1");
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("w1")));
  metrics.WindowCommitted("headers-1", MakeWindow());
  EXPECT_THAT(metrics.Text(), HasSubstr("accrue_worker_units_total{worker=\"w1\"} 4"));
}

TEST(MetricsTest, JobChanged_ManyEndedJobs_TheOldestGo) {
  Metrics metrics;
  for (int job = 0; job < 100; ++job) {
    v1::JobStatus status;
    status.set_job_id(absl::StrCat("job-", job));
    status.set_state(v1::JOB_STATE_SUCCEEDED);
    metrics.JobChanged(status);
    metrics.JobChanged(status);
  }
  const std::string text = metrics.Text();
  EXPECT_THAT(text, Not(HasSubstr("\"job-0\"")));
  EXPECT_THAT(text, HasSubstr("\"job-99\""));
}

TEST(MetricsTest, Text_Promtool_FindsNothingToComplainOf) {
  if (std::system("command -v promtool >/dev/null 2>&1") != 0) GTEST_SKIP() << "promtool is not on the PATH; deploy/promtool gets it";
  Metrics metrics;
  Fill(metrics);
  const std::string path = testing::TempDir() + "/accrue_metrics.txt", answer = path + ".answer";
  ASSERT_TRUE(FileSystem::Real().WriteAtomically(path, metrics.Text()).ok());
  const int code = std::system(absl::StrCat("promtool check metrics < ", path, " > ", answer, " 2>&1").c_str());
  EXPECT_EQ(code, 0) << FileSystem::Real().ReadAll(answer, 1 << 20).value_or("");
}

TEST(MetricsTest, EverySeries_IsDocumented) {
  Metrics metrics;
  Fill(metrics);
  const auto documentation = FileSystem::Real().ReadAll("docs/metrics.md", 1 << 20);
  ASSERT_TRUE(documentation.ok()) << documentation.status();
  const std::string text = metrics.Text();
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() < 4 || words[1] != "TYPE") continue;
    EXPECT_THAT(*documentation, HasSubstr(absl::StrCat("`", words[2], "`")));
  }
}

}  // namespace
}  // namespace accrue
