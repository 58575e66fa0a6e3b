#include "tests/integration/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "common/check.h"

namespace accrue::integration {

constexpr int kLongestEndMs = 60'000;

Process::Process(const std::vector<std::string>& arguments, const std::string& log_path) : log_path_(log_path) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const int log = open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  ACCRUE_CHECK(log >= 0);
  const pid_t parent = getpid();
  pid_ = fork();
  ACCRUE_CHECK(pid_ >= 0);
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);  // it died in between
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(log);
}

Process::~Process() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Process::Signal(int number) const {
  ACCRUE_CHECK(pid_ > 0);
  kill(pid_, number);
}

void Process::WaitUntilStopped() const {
  ACCRUE_CHECK(pid_ > 0);
  siginfo_t info{};
  EXPECT_EQ(waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED | WEXITED | WNOWAIT), 0);
  EXPECT_EQ(info.si_code, CLD_STOPPED) << "the process ended; it wrote:\n" << Log();
}

int Process::Wait() {
  if (pid_ < 0) return exit_code_;
  const int descriptor = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  pollfd ended{descriptor, POLLIN, 0};
  if (descriptor >= 0 && poll(&ended, 1, kLongestEndMs) == 0) {
    ADD_FAILURE() << "the process did not end; it wrote:\n" << Log();
    kill(pid_, SIGKILL);
  }
  if (descriptor >= 0) close(descriptor);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return exit_code_;
}

template <typename Done>
void Process::WaitUntilLog(const Done& done, const std::string& what) const {
  const int watch = inotify_init1(IN_CLOEXEC);
  inotify_add_watch(watch, log_path_.c_str(), IN_MODIFY);
  while (!done(Log())) {
    pollfd changed{watch, POLLIN, 0};
    if (poll(&changed, 1, kLongestEndMs) != 1) {
      ADD_FAILURE() << "it never wrote " << what << ", but:\n" << Log();
      break;
    }
    char events[4096];
    if (read(watch, events, sizeof(events)) < 0) break;
  }
  close(watch);
}

void Process::WaitForLog(const std::string& text, int times) const {
  const auto done = [&](const std::string& log) {
    int found = 0;
    for (size_t at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) ++found;
    return found >= times;
  };
  WaitUntilLog(done, "\"" + text + "\" " + std::to_string(times) + " times");
}

std::string Process::WaitForOneOf(const std::vector<std::string>& texts) const {
  std::string seen;
  const auto done = [&](const std::string& log) {
    for (const std::string& text : texts) {
      if (seen.empty() && log.find(text) != std::string::npos) seen = text;
    }
    return !seen.empty();
  };
  WaitUntilLog(done, "any of \"" + texts.front() + "\" and others");
  return seen;
}

std::string Process::Log() const {
  std::ifstream file(log_path_);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace accrue::integration
