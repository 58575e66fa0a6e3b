// A rendezvous store in this process's memory. Thread-safe.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/collective/collective.h"

namespace accrue {

class MemoryRendezvous : public RendezvousStore {
 public:
  absl::Status Set(const std::string& communicator, const std::string& name, const std::string& value) override {
    absl::MutexLock lock(&mutex_);
    values_[{communicator, name}] = value;
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> Get(const std::string& communicator, const std::vector<std::string>& names,
                                               int64_t timeout_ms) override {
    absl::MutexLock lock(&mutex_);
    auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      if (given_up_.count(communicator) > 0) return true;
      for (const std::string& name : names) {
        if (values_.count({communicator, name}) == 0) return false;
      }
      return true;
    };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&ready), absl::Milliseconds(timeout_ms))) {
      return absl::DeadlineExceededError(absl::StrCat("keys of \"", communicator, "\" are missing"));
    }
    if (given_up_.count(communicator) > 0) {
      return absl::CancelledError(absl::StrCat("communicator \"", communicator, "\" was given up"));
    }
    std::vector<std::string> values;
    for (const std::string& name : names) values.push_back(values_[{communicator, name}]);
    return values;
  }

  void GiveUp(const std::string& communicator) {
    absl::MutexLock lock(&mutex_);
    given_up_.insert(communicator);
  }

 private:
  absl::Mutex mutex_;
  std::map<std::pair<std::string, std::string>, std::string> values_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> given_up_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace accrue
