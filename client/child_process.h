// A child process that cannot outlive its parent: the kernel kills it when the thread that started it ends.
//
// Not thread-safe; start children from a thread that lives as long as they should.
#pragma once

#include <sys/types.h>
#include <sys/wait.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace accrue {

class ChildProcess {
 public:
  // Runs argv[0] with standard input from /dev/null and both outputs appended to the log. The child has a
  // process group of its own, so that Ctrl-C at the terminal reaches the parent alone. NOT_FOUND when there
  // is no such program.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const std::string& name,
                                                             const std::vector<std::string>& argv,
                                                             const std::string& log_path);
  // Kills it if it still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  const std::string& name() const { return name_; }
  const std::string& log_path() const { return log_path_; }
  pid_t process_id() const { return process_id_; }

  bool Running();
  // Of one that runs no more: with exit code 0.
  bool ExitedWell() const { return WIFEXITED(wait_status_) && WEXITSTATUS(wait_status_) == 0; }
  // "exited with code 1", "was killed by signal 9 (Killed)"; of one that runs no more.
  std::string HowItEnded() const;
  void Signal(int signal_number);
  // False when it still runs after the time.
  bool WaitUntilEnded(int64_t timeout_ms);
  // The last lines of its log, indented.
  std::string LogTail(int lines) const;

 private:
  ChildProcess(std::string name, std::string log_path, pid_t process_id);

  const std::string name_, log_path_;
  const pid_t process_id_;
  bool running_ = true;
  int wait_status_ = 0;
};

}  // namespace accrue
