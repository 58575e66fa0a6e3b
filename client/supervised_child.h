// A child process that is started again when it ends, as RestartPolicy says. It cannot outlive its parent
// (client/child_process.h).
//
// Not thread-safe: one thread, which lives as long as the children should, starts and looks after them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/child_process.h"
#include "client/restart_policy.h"
#include "common/clock.h"

namespace accrue {

class SupervisedChild {
 public:
  enum class WhenDone {
    kRestart,  // it is to run until it is stopped
    kLeave,    // exit code 0 says that it was asked to end
  };

  SupervisedChild(std::string name, std::vector<std::string> argv, std::string log_path, WhenDone when_done,
                  const Clock& clock);

  // The first start. NOT_FOUND when there is no such program.
  absl::Status Start();
  // For the next start.
  void SetArguments(std::vector<std::string> argv) { argv_ = std::move(argv); }

  // Starts it again when it is time to. What has happened since the last look, in words for a person, or nothing.
  std::optional<std::string> LookAfter();

  // The newest process, running or not. Only after a Start that went well.
  ChildProcess& process() { return *process_; }
  // It is not started again: it has failed too often, or has left.
  bool over() const { return over_; }
  int64_t restarts() const { return restarts_; }

 private:
  absl::Status StartOnce();
  std::string Ended(const std::string& how);

  const std::string name_, log_path_;
  std::vector<std::string> argv_;
  const WhenDone when_done_;
  const Clock& clock_;
  std::unique_ptr<ChildProcess> process_;
  RestartPolicy policy_;
  std::optional<int64_t> start_at_ns_;  // while it does not run and will
  bool over_ = false;
  int64_t restarts_ = 0;
};

}  // namespace accrue
