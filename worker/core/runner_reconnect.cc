// A WindowRunner whose coordinator went away, and one that came instead. docs/recovery.md, "The coordinator dies".
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "worker/core/window_runner.h"

namespace accrue {

// Work goes on: the units that are leased, and a reduce, which is among the members alone.
std::optional<RunEnd> WindowRunner::OnLinkLost(const LinkLost& lost) {
  connected_ = false;
  PassFaultPoint(FaultPoint::kWorkerLinkLost, job_.state->window());
  if (leaving_) return RunEnd{.kind = RunEnd::Kind::kLeft, .reason = *leaving_};
  LogWarning("the coordinator is away; what is leased is finished, and kept for it",
             {{"job", assigned_.job_id()}, {"window", job_.state->window()}, {"reason", lost.reason}});
  return std::nullopt;
}

std::optional<RunEnd> WindowRunner::OnDrainRequested(const DrainRequested& drain) {
  leaving_ = drain.reason;
  // Nobody is there who would say when the window is committed.
  if (!connected_) return RunEnd{.kind = RunEnd::Kind::kLeft, .reason = *leaving_};
  SendLeaving();
  PassFaultPoint(FaultPoint::kWorkerDraining);
  return std::nullopt;
}

std::optional<RunEnd> WindowRunner::OnJoined(Joined& joined) {
  if (!joined.resumed) {
    return RunEnd{.kind = RunEnd::Kind::kSuperseded,
                  .reason = "the coordinator knows nothing of this incarnation",
                  .event = std::move(joined)};
  }
  connected_ = true;
  reporter_.Flush();  // to be remembered: nobody receives reports of the term before
  assigned_.set_term(joined.term);
  // What the coordinator before had planned, sealed and had copied is void; this one begins with what it is told now.
  StopSending();
  held_seal_.reset();
  shares_.erase(shares_.upper_bound(job_.state->window()), shares_.end());
  if (WindowShare* share = CurrentShare()) share->AwaitPlan(joined.term);
  ExpectUnits();
  SendHolding();
  if (leaving_) SendLeaving();
  return std::nullopt;
}

void WindowRunner::SendHolding() {
  const int64_t window = job_.state->window();
  v1::WorkerMessage message;
  v1::Holding& holding = *message.mutable_holding();
  *holding.mutable_key() = OwnKey();
  if (job_.holds_state) {
    const std::string stepped_to = memory_.DigestOf(window);
    holding.set_digest(stepped_to.empty() ? job_.state->Digest().Hex() : stepped_to);
    holding.set_parameter_hash(ParameterHash());
  }
  if (const WindowShare* share = CurrentShare()) {
    holding.mutable_key()->set_epoch(share->key.epoch());
    holding.mutable_key()->set_attempt(share->key.attempt());
    if (share->begun) {
      memory_.RecallUnits(window, share->key.attempt(), job_.accumulator->units(), holding);
      holding.set_final_buckets(job_.accumulator->final_buckets());
    }
  }
  memory_.RecallEvaluations(window, holding);
  if (awaits_commit_) memory_.RecallStep(window, holding);
  LogInfo("the coordinator is told what is held",
          {{"job", assigned_.job_id()}, {"term", assigned_.term()}, {"window", window}, {"digest", holding.digest()},
           {"units", holding.reports_size()}, {"final_buckets", holding.final_buckets()},
           {"uncommitted", holding.has_stepped()}});
  context_.link.Send(std::move(message));
  PassFaultPoint(FaultPoint::kWorkerHoldingSent, window);
}

void WindowRunner::SendLeaving() {
  v1::WorkerMessage message;
  message.mutable_leaving()->set_reason(*leaving_);
  context_.link.Send(std::move(message));
}

}  // namespace accrue
