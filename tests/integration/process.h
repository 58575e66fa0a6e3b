// A child process that cannot outlive its test: it is killed with this object, and by the kernel when the test dies.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace accrue::integration {

class Process {
 public:
  // Standard output and error go to log_path.
  Process(const std::vector<std::string>& arguments, const std::string& log_path);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void Signal(int number) const;
  // Waits until it stands still, as by SIGSTOP. Fails the test if it ends instead.
  void WaitUntilStopped() const;
  // Waits for the end; the exit code, or 128 + the signal that ended it. Kills it, and fails the test, after a long
  // time.
  int Wait();
  // What it wrote.
  std::string Log() const;
  // Waits until it has written `text`, `times` times over. Fails the test after a long time.
  void WaitForLog(const std::string& text, int times = 1) const;
  // Waits until it has written one of them: the first of these. Fails the test after a long time.
  std::string WaitForOneOf(const std::vector<std::string>& texts) const;

 private:
  template <typename Done>
  void WaitUntilLog(const Done& done, const std::string& what) const;

  pid_t pid_ = -1;  // -1 once reaped
  int exit_code_ = -1;
  std::string log_path_;
};

}  // namespace accrue::integration
