#include "client/supervised_child.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace accrue {
namespace {

constexpr int kLogLines = 12;

}  // namespace

SupervisedChild::SupervisedChild(std::string name, std::vector<std::string> argv, std::string log_path,
                                 WhenDone when_done, const Clock& clock)
    : name_(std::move(name)),
      log_path_(std::move(log_path)),
      argv_(std::move(argv)),
      when_done_(when_done),
      clock_(clock) {}

absl::Status SupervisedChild::Start() { return StartOnce(); }

absl::Status SupervisedChild::StartOnce() {
  absl::StatusOr<std::unique_ptr<ChildProcess>> started = ChildProcess::Start(name_, argv_, log_path_);
  policy_.OnStarted(clock_.SteadyNowNs());
  if (!started.ok()) return started.status();
  process_ = *std::move(started);
  return absl::OkStatus();
}

std::optional<std::string> SupervisedChild::LookAfter() {
  if (over_) return std::nullopt;
  if (!start_at_ns_) {
    if (process_->Running()) return std::nullopt;
    if (when_done_ == WhenDone::kLeave && process_->ExitedWell()) {
      over_ = true;
      return absl::StrCat(name_, " has left");
    }
    const std::string tail = process_->LogTail(kLogLines);
    std::string news = Ended(absl::StrCat(name_, " ", process_->HowItEnded()));
    absl::StrAppend(&news, ". The end of ", log_path_, ":\n", tail.empty() ? "  (nothing)" : tail);
    if (!start_at_ns_ || *start_at_ns_ > clock_.SteadyNowNs()) return news;
    if (const std::optional<std::string> failed = LookAfter()) absl::StrAppend(&news, "\n", *failed);
    return news;
  }
  if (clock_.SteadyNowNs() < *start_at_ns_) return std::nullopt;
  start_at_ns_.reset();
  ++restarts_;
  if (const absl::Status status = StartOnce(); !status.ok()) {
    return Ended(absl::StrCat(name_, " cannot be started: ", status.message()));
  }
  return std::nullopt;
}

// `how` and what follows of it.
std::string SupervisedChild::Ended(const std::string& how) {
  const int64_t now_ns = clock_.SteadyNowNs();
  start_at_ns_ = policy_.OnEnded(now_ns);
  if (!start_at_ns_) {
    over_ = true;
    return absl::StrCat(how, "; it has failed ", RestartPolicy::kMostInARow + 1, " times in a row and is given up");
  }
  if (*start_at_ns_ <= now_ns) return absl::StrCat(how, "; it is started again");
  return absl::StrCat(how, "; it is started again in ", (*start_at_ns_ - now_ns) / 1'000'000'000, " s");
}

}  // namespace accrue
