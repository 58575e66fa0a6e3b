// A newcomer's side of a copy of the state from a member (state_copy.h). Of the compute thread, which has nothing else to
// do; the guard stops it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "accrue/v1/worker.pb.h"
#include "worker/collective/collective.h"
#include "worker/core/collective_guard.h"
#include "worker/core/job.h"
#include "worker/core/state_copy.h"

namespace accrue {

class StateReceiver {
 public:
  // Called with the digest whenever job.state is the state of a window, whole.
  using OnLevel = std::function<void(int64_t window, const std::string& digest)>;

  // Called before each wait for the source; what it returns, unless OK, ends the copy.
  using BeforeWait = std::function<absl::Status()>;

  StateReceiver(std::unique_ptr<Communicator> communicator, CollectiveGuard& guard, const v1::CopyState& order, Job& job,
                BeforeWait before_wait, OnLevel on_level);

  // Never OK. ABORTED: stopped by the guard. DATA_LOSS: the state differs from the source's. INVALID_ARGUMENT: the source
  // has another layout, or sends what cannot be. Else as BeforeWait and the communicator say.
  absl::Status Receive();
  // Whether job.state is that of the last on_level.
  bool level() const { return level_; }

 private:
  absl::Status TakeBegin();
  absl::Status TakeNext();
  absl::Status CheckWindow(const CopyHeader& header, int64_t expected) const;
  absl::Status TakeRun();
  absl::Status TakeStep(const CopyHeader& header);
  absl::Status TakeProgress(const CopyHeader& header);
  absl::Status Level(const Hash128* expected);
  // In the guard, so that each wait can be stopped.
  absl::Status Guarded(const std::function<absl::Status()>& operation);
  absl::Status Take(void* data, size_t size_bytes);
  absl::Status TakeExponents(int64_t count, std::vector<int>& exponents);
  bool whole() const { return received_ == runs_.size(); }

  const std::unique_ptr<Communicator> communicator_;
  CollectiveGuard& guard_;
  const v1::CopyState& order_;
  Job& job_;
  const BeforeWait before_wait_;
  const OnLevel on_level_;
  const std::vector<StateRun> runs_;

  size_t received_ = 0;  // runs, which are of window_
  bool level_ = false;
  int64_t window_ = 0, steps_ = 0;
  std::vector<int> exponents_;
  std::optional<LossScale> loss_scale_;
  std::vector<float> values_;
  std::vector<int64_t> host_sums_;
  std::unique_ptr<DeviceBuffer> sums_;  // of one run
};

}  // namespace accrue
