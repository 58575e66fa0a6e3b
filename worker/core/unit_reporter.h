// Sends unit reports as units finish; when they finish fast, several in one message.
//
// Not thread-safe. The link and clock must outlive it.
#pragma once

#include <cstdint>
#include <utility>

#include "accrue/v1/worker.pb.h"
#include "common/clock.h"
#include "worker/core/link.h"

namespace accrue {

class UnitReporter {
 public:
  UnitReporter(CoordinatorLink& link, const Clock& clock) : link_(link), clock_(clock) {}

  void Add(const v1::Key& key, v1::UnitReport report) {
    *pending_.mutable_unit_reports()->mutable_key() = key;
    *pending_.mutable_unit_reports()->add_reports() = std::move(report);
    if (clock_.SteadyNowNs() - sent_at_ns_ >= kLeastIntervalNs) Flush();
  }

  void Flush() {
    if (pending_.unit_reports().reports_size() == 0) return;
    link_.Send(std::move(pending_));
    pending_.Clear();
    sent_at_ns_ = clock_.SteadyNowNs();
  }

  // Reports of an attempt that is void.
  void Discard() { pending_.Clear(); }

 private:
  static constexpr int64_t kLeastIntervalNs = 20'000'000;

  CoordinatorLink& link_;
  const Clock& clock_;
  v1::WorkerMessage pending_;
  int64_t sent_at_ns_ = 0;
};

}  // namespace accrue
