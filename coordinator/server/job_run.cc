#include "coordinator/server/job_run.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "common/synthetic.h"
#include "coordinator/server/translate.h"

namespace accrue {

void JobRun::SetLayout(const core::Layout& layout) {
  tensors = layout.tensors;
  mixed = layout.mixed;
  parameters = 0;
  for (int64_t elements : layout.tensor_elements) parameters += elements;
}

v1::JobStatus StatusOf(const JobRun& run, const core::JobView* view) {
  v1::JobStatus status;
  status.set_job_id(run.record.id);
  status.set_name(run.record.name);
  status.set_submitted_unix_ns(run.record.submitted_unix_ns);
  status.set_output_directory(run.record.output_directory);
  status.set_total_windows(run.record.until_window);
  status.set_parameters(run.parameters);
  const bool fast = run.resolved->spec().accumulation().mode() == "fast";
  const std::string& mixed = view == nullptr ? run.mixed : view->mixed;
  status.set_reproducible(!fast && mixed.empty());
  status.set_irreproducible_reason(fast ? "accumulation.mode is fast" : mixed);
  status.set_synthetic(!run.tensors.empty() && absl::StartsWith(run.tensors.front(), kSyntheticPrefix));
  status.set_state(JobStateToProto(view == nullptr ? run.record.state : view->state));
  status.set_reason(view == nullptr ? run.record.reason : view->reason);
  status.set_timeline(run.record.timeline.value());
  if (run.last_commit.has_value()) {
    status.set_window(run.last_commit->window.window.value() + 1);
    status.set_loss(run.last_commit->window.loss);
    status.set_digest(run.last_commit->window.digest);
    status.set_epoch(run.last_commit->window.epoch.value());
  } else {
    status.set_loss(run.before.loss);
    status.set_digest(run.before.digest);
  }
  if (run.validation_loss.has_value()) status.set_validation_loss(*run.validation_loss);
  status.set_tokens_per_second(run.pace.TokensPerSecond());
  if (view != nullptr) {
    status.set_window(std::max(status.window(), view->window.value()));
    status.set_epoch(view->epoch.value());
    status.set_timeline(view->timeline.value());
    status.set_workers(view->workers);
    status.set_restarts_of_windows(view->replays);
    status.set_windows_skipped(view->windows_skipped);
    if (!IsTerminal(view->state)) {
      status.set_eta_seconds(run.pace.SecondsFor(run.record.until_window - status.window()));
    }
  }
  if (!run.failure.empty()) {
    status.set_state(v1::JOB_STATE_FAILED);
    status.set_reason(run.failure);
  }
  return status;
}

}  // namespace accrue
