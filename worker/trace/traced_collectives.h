// Collectives whose operations show in a trace: a span each, within the reduce that they belong to.
//
// As thread-safe as what it wraps, but for the tracer, which is of the compute thread; so what other
// threads do is not traced: neither communicators of CreateForHost nor the meeting of those made ahead.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "common/status.h"
#include "worker/collective/collective.h"
#include "worker/trace/tracer.h"

namespace accrue {

class TracedCommunicator : public Communicator {
 public:
  TracedCommunicator(std::unique_ptr<Communicator> inner, Tracer& tracer, bool traces_meeting)
      : inner_(std::move(inner)), tracer_(tracer), traces_meeting_(traces_meeting) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  void Abort() override { inner_->Abort(); }
  absl::Status Meet() override {
    const TraceSpan span(traces_meeting_ ? &tracer_ : nullptr, Span::kMeet);
    return inner_->Meet();
  }
  absl::Status AllReduce(const int64_t* in, int64_t* out, int64_t elements) override {
    const TraceSpan span(&tracer_, Span::kAllReduce, tracer_.NextOperation());
    return inner_->AllReduce(in, out, elements);
  }
  absl::Status AllReduce(const float* in, float* out, int64_t elements) override {
    const TraceSpan span(&tracer_, Span::kAllReduce, tracer_.NextOperation());
    return inner_->AllReduce(in, out, elements);
  }
  absl::Status Broadcast(void* data, size_t size_bytes, int root) override {
    const TraceSpan span(&tracer_, Span::kBroadcast, tracer_.NextOperation());
    return inner_->Broadcast(data, size_bytes, root);
  }
  absl::Status BroadcastHost(void* data, size_t size_bytes, int root) override {
    const TraceSpan span(&tracer_, Span::kBroadcast, tracer_.NextOperation());
    return inner_->BroadcastHost(data, size_bytes, root);
  }

 private:
  const std::unique_ptr<Communicator> inner_;
  Tracer& tracer_;
  const bool traces_meeting_;
};

class TracedCollectives : public CollectiveFactory {
 public:
  TracedCollectives(CollectiveFactory& inner, Tracer& tracer) : inner_(inner), tracer_(tracer) {}

  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string& name, int rank, int size,
                                                       int64_t deadline_ms) override {
    return Traced(inner_.Create(name, rank, size, deadline_ms), /*traces_meeting=*/true);
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string& name, int rank, int size,
                                                            int64_t deadline_ms) override {
    return Traced(inner_.CreateAhead(name, rank, size, deadline_ms), /*traces_meeting=*/false);
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateForHost(const std::string& name, int rank, int size,
                                                              int64_t deadline_ms) override {
    return inner_.CreateForHost(name, rank, size, deadline_ms);
  }

 private:
  absl::StatusOr<std::unique_ptr<Communicator>> Traced(absl::StatusOr<std::unique_ptr<Communicator>> communicator,
                                                       bool traces_meeting) {
    if (!communicator.ok()) return communicator;
    return std::make_unique<TracedCommunicator>(*std::move(communicator), tracer_, traces_meeting);
  }

  CollectiveFactory& inner_;
  Tracer& tracer_;
};

}  // namespace accrue
