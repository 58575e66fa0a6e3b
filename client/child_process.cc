#include "client/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/terminal.h"

namespace accrue {
namespace {

constexpr int kPollMs = 5;
constexpr std::streamoff kTailBytes = 16384;

// Between fork and exec: only what is safe in a signal handler. Never returns.
[[noreturn]] void RunChild(pid_t parent, char* const* argv, int log, int null) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // it died before the line above
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  dup2(null, 0);
  dup2(log, 1);
  dup2(log, 2);
  execv(argv[0], argv);
  _exit(127);
}

}  // namespace

ChildProcess::ChildProcess(std::string name, std::string log_path, pid_t process_id)
    : name_(std::move(name)), log_path_(std::move(log_path)), process_id_(process_id) {}

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(const std::string& name,
                                                                  const std::vector<std::string>& argv,
                                                                  const std::string& log_path) {
  if (access(argv[0].c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("expected the program ", argv[0],
                                            ", found none that can be run (", std::strerror(errno),
                                            "): build or install it beside accrue"));
  }
  std::vector<std::string> arguments = argv;
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  const int log = open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) return absl::InternalError(absl::StrCat(log_path, ": ", std::strerror(errno)));
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t parent = getpid();
  const pid_t child = fork();
  const int fork_error = errno;
  if (child == 0) RunChild(parent, pointers.data(), log, null);
  close(log);
  close(null);
  if (child < 0)
    return absl::InternalError(absl::StrCat("cannot start ", argv[0], ": ", std::strerror(fork_error)));
  return std::unique_ptr<ChildProcess>(new ChildProcess(name, log_path, child));
}

ChildProcess::~ChildProcess() {
  if (!Running()) return;
  Signal(SIGKILL);
  waitpid(process_id_, &wait_status_, 0);
}

bool ChildProcess::Running() {
  if (running_ && waitpid(process_id_, &wait_status_, WNOHANG) == process_id_) running_ = false;
  return running_;
}

std::string ChildProcess::HowItEnded() const {
  if (WIFSIGNALED(wait_status_)) {
    const int number = WTERMSIG(wait_status_);
    return absl::StrCat("was killed by signal ", number, " (", strsignal(number), ")");
  }
  return absl::StrCat("exited with code ", WEXITSTATUS(wait_status_));
}

void ChildProcess::Signal(int signal_number) {
  if (running_) kill(process_id_, signal_number);
}

bool ChildProcess::WaitUntilEnded(int64_t timeout_ms) {
  for (int64_t waited_ms = 0; Running(); waited_ms += kPollMs) {
    if (waited_ms >= timeout_ms) return false;
    poll(nullptr, 0, kPollMs);
  }
  return true;
}

std::string ChildProcess::LogTail(int lines) const {
  std::ifstream file(log_path_, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : 0;
  std::string text(static_cast<size_t>(std::min(size, kTailBytes)), '\0');
  file.seekg(size - static_cast<std::streamoff>(text.size()));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  std::vector<std::string> all = absl::StrSplit(text, '\n', absl::SkipEmpty());
  std::string tail;
  for (size_t i = all.size() > static_cast<size_t>(lines) ? all.size() - lines : 0; i < all.size(); ++i) {
    absl::StrAppend(&tail, i > 0 && !tail.empty() ? "\n" : "", "  ", Printable(all[i]));
  }
  return tail;
}

}  // namespace accrue
