#include "common/fault_points.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <iterator>

#include "absl/base/attributes.h"
#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "common/status.h"

namespace accrue {
namespace {

enum class Action { kKill, kStop, kExit, kHang, kError, kFlip };
constexpr const char* kActionNames[] = {"kill", "stop", "exit", "hang", "error", "flip"};

enum Actions { P, E, N, D, K, F };

struct PointInfo {
  const char* name;
  const char* scenario;
  Actions actions;
  bool has_window;
  const char* where;
};

#define ACCRUE_FAULT_POINT_INFO(id, name, scenario, actions, windowed, where) {name, scenario, actions, windowed, where},
constexpr PointInfo kPoints[] = {
    ACCRUE_WORKER_FAULT_POINTS(ACCRUE_FAULT_POINT_INFO) ACCRUE_COORDINATOR_FAULT_POINTS(ACCRUE_FAULT_POINT_INFO)};
#undef ACCRUE_FAULT_POINT_INFO

constexpr size_t kFirstCoordinatorPoint = static_cast<size_t>(FaultPoint::kCoordinatorTermRaised);

std::vector<Action> ActionsOf(const PointInfo& point) {
  switch (point.actions) {
    case P:
      return {Action::kKill, Action::kStop, Action::kExit, Action::kHang};
    case E:
      return {Action::kKill, Action::kStop, Action::kExit, Action::kHang, Action::kError};
    case N:
      return {Action::kKill, Action::kStop, Action::kExit};
    case D:
      return {Action::kKill, Action::kStop, Action::kExit, Action::kError};
    case K:
      return {Action::kKill};
    case F:
      return {Action::kFlip};
  }
  return {};
}

std::string ActionList(const PointInfo& point) {
  return absl::StrJoin(ActionsOf(point), ",", [](std::string* text, Action action) {
    absl::StrAppend(text, kActionNames[static_cast<int>(action)]);
  });
}

std::vector<size_t> PointsOf(FaultProcess process) {
  std::vector<size_t> points;
  for (size_t i = 0; i < std::size(kPoints); ++i) {
    if ((i >= kFirstCoordinatorPoint) == (process == FaultProcess::kCoordinator)) points.push_back(i);
  }
  return points;
}

struct Fault {
  std::string text;  // as given
  FaultPoint point{};
  Action action = Action::kKill;
  int64_t window = kNoFaultWindow;  // any
  int64_t passes_left = 1;
};

ABSL_CONST_INIT absl::Mutex mutex(absl::kConstInit);
std::vector<Fault>& Armed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
  static std::vector<Fault>& faults = *new std::vector<Fault>();
  return faults;
}

absl::Status Malformed(const std::string& text, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("fault \"", text, "\": ", problem,
                                                 "; expected NAME[@WINDOW][#N][=ACTION], such as "
                                                 "\"worker.unit_begun@3#2=kill\""));
}

// A number after `mark`, cut off the end of `name`. False when what is there is no number of at least `least`.
bool TakeNumber(char mark, int64_t least, absl::string_view& name, int64_t& number) {
  const size_t at = name.rfind(mark);
  if (at == absl::string_view::npos) return true;
  if (!absl::SimpleAtoi(name.substr(at + 1), &number) || number < least) return false;
  name = name.substr(0, at);
  return true;
}

absl::StatusOr<Fault> Parse(FaultProcess process, const std::string& text) {
  Fault fault{.text = text};
  const std::vector<absl::string_view> sides = absl::StrSplit(text, absl::MaxSplits('=', 1));
  absl::string_view name = sides[0];
  if (!TakeNumber('#', 1, name, fault.passes_left)) return Malformed(text, "after # a number of at least 1 is missing");
  if (!TakeNumber('@', 0, name, fault.window)) return Malformed(text, "after @ a window's number is missing");
  const PointInfo* info = nullptr;
  for (size_t i : PointsOf(process)) {
    if (name != kPoints[i].name) continue;
    info = &kPoints[i];
    fault.point = static_cast<FaultPoint>(i);
  }
  if (info == nullptr) {
    return Malformed(text, absl::StrCat("this program has no point \"", name, "\" (--list-fault-points lists them)"));
  }
  if (fault.window != kNoFaultWindow && !info->has_window) {
    return Malformed(text, absl::StrCat(name, " belongs to no window"));
  }
  const absl::string_view wanted = sides.size() == 2 ? sides[1] : info->actions == F ? "flip" : "";
  for (Action action : ActionsOf(*info)) {
    if (wanted != kActionNames[static_cast<int>(action)]) continue;
    fault.action = action;
    return fault;
  }
  return Malformed(text, absl::StrCat("the action \"", wanted, "\" is none of ", ActionList(*info)));
}

std::string& OnceFolder() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
  static std::string& folder = *new std::string();
  return folder;
}

// Whether no other process has made this fault; from now on this one has.
bool IsFirst(const Fault& fault) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
  if (OnceFolder().empty()) return true;
  const std::string mark = absl::StrCat(OnceFolder(), "/", fault.text);
  const int made = open(mark.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (made < 0) return false;
  close(made);
  return true;
}

// Takes the fault that fires at this passing off the list.
bool TakeFiring(FaultPoint point, int64_t window, Fault& fired) {
  absl::MutexLock lock(&mutex);
  std::vector<Fault>& armed = Armed();
  for (auto fault = armed.begin(); fault != armed.end(); ++fault) {
    if (fault->point != point || (fault->window != kNoFaultWindow && fault->window != window)) continue;
    if (--fault->passes_left > 0) continue;
    fired = *fault;
    armed.erase(fault);
    fault_internal::any_armed.store(!armed.empty(), std::memory_order_relaxed);
    return IsFirst(fired);
  }
  return false;
}

// Straight to the descriptor: nothing may be lost in a buffer.
void Announce(const Fault& fault, int64_t window) {
  const std::string line = absl::StrCat("fault injected: ", fault.text, " at window ", window, "\n");
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) return;  // nobody reads it
}

[[noreturn]] void WaitForever() {
  while (true) pause();
}

}  // namespace

namespace fault_internal {

std::atomic<bool> any_armed{false};

absl::Status Pass(FaultPoint point, int64_t window) {
  Fault fault;
  if (!TakeFiring(point, window, fault)) return absl::OkStatus();
  Announce(fault, window);
  switch (fault.action) {
    case Action::kKill:
      DieOfFault();
    case Action::kStop:
      kill(getpid(), SIGSTOP);
      return absl::OkStatus();
    case Action::kExit:
      std::_Exit(kFaultExitCode);
    case Action::kHang:
      WaitForever();
    case Action::kError:
      return absl::InternalError(absl::StrCat("fault injected: ", fault.text));
    case Action::kFlip:
      break;
  }
  return absl::OkStatus();
}

bool Fires(FaultPoint point, int64_t window) {
  Fault fault;
  if (!TakeFiring(point, window, fault)) return false;
  Announce(fault, window);
  return true;
}

}  // namespace fault_internal

void DieOfFault() {
  kill(getpid(), SIGKILL);
  WaitForever();
}

absl::Status ArmFaults(FaultProcess process, const std::vector<std::string>& faults,
                       const std::string& once_folder) {
  std::vector<Fault> parsed;
  for (const std::string& text : faults) {
    ACCRUE_ASSIGN_OR_RETURN(Fault fault, Parse(process, text));
    parsed.push_back(std::move(fault));
  }
  absl::MutexLock lock(&mutex);
  Armed() = std::move(parsed);
  OnceFolder() = once_folder;
  fault_internal::any_armed.store(!Armed().empty(), std::memory_order_relaxed);
  return absl::OkStatus();
}

std::string ListFaultPoints(FaultProcess process) {
  std::string text;
  for (size_t i : PointsOf(process)) {
    const PointInfo& point = kPoints[i];
    absl::StrAppend(&text, point.name, "\t", point.scenario, "\t", ActionList(point), "\t",
                    point.has_window ? "windowed" : "-", "\t", point.where, "\n");
  }
  return text;
}

}  // namespace accrue
