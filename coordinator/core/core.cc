#include "coordinator/core/core.h"

#include <algorithm>

#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

const char* StateName(const Worker& worker) {
  if (worker.leaving) return "leaving";
  switch (worker.role) {
    case Role::kIdle:
      return "idle";
    case Role::kLoading:
      return "loading";
    case Role::kReady:
      return "ready";
    case Role::kCopying:
    case Role::kSyncing:
    case Role::kSynced:
      return "syncing";
    case Role::kMember:
      return "member";
    case Role::kDraining:
      return "leaving";
    case Role::kResumed:
      return "resuming";
  }
  return "";
}

}  // namespace

struct Core::State {
  explicit State(const CoreOptions& options) : machine(options) {}
  Machine machine;
};

JobView Machine::View(const Job& job) const {
  JobView view;
  view.id = job.config.id;
  view.name = job.config.name;
  view.state = job.state;
  view.reason = job.reason;
  // What is recorded stays shown while it is computed again.
  const int64_t recorded = job.recorded.empty() ? 0 : job.recorded.rbegin()->first + 1;
  view.window = Window(std::max(job.committed, recorded));
  view.total_windows = job.config.total_windows;
  view.loss = job.loss;
  view.validation_loss = job.validation_loss;
  view.digest = job.digest;
  view.workers = static_cast<int64_t>(job.attached.size());
  view.epoch = job.epoch;
  view.timeline = job.timeline;
  view.replays = job.replays;
  view.windows_skipped = job.windows_skipped;
  view.mixed = job.mixed;
  if (!job.origin.checkpoint_directory.empty()) view.checkpoint = job.origin.window;
  return view;
}

WorkerView Machine::View(const Worker& worker) const {
  const WorkerJoined& identity = worker.identity;
  return {identity.incarnation, identity.name,         identity.host,       identity.backend,
          identity.device,      identity.process_id,   identity.threads,    StateName(worker),
          worker.job,           worker.unit_ns * 1e-9, worker.memory_bytes, worker.windows};
}

Core::Core(const CoreOptions& options) : state_(std::make_unique<State>(options)) {}
Core::~Core() = default;

std::vector<Effect> Core::Apply(const Event& event, int64_t now_ns) {
  return state_->machine.Apply(event, now_ns);
}

std::string Core::WhyNotAwaited(Incarnation incarnation) const { return state_->machine.WhyNotAwaited(incarnation); }

Incarnation Core::NextIncarnation() { return state_->machine.NextIncarnation(); }

std::vector<JobView> Core::Jobs() const {
  std::vector<JobView> views;
  for (const auto& job : state_->machine.jobs()) views.push_back(state_->machine.View(*job));
  return views;
}

std::optional<JobView> Core::FindJob(const JobId& id) const {
  const Job* job = state_->machine.FindJob(id);
  return job == nullptr ? std::nullopt : std::optional<JobView>(state_->machine.View(*job));
}

std::vector<WorkerView> Core::Workers() const {
  std::vector<WorkerView> views;
  for (const auto& [incarnation, worker] : state_->machine.workers()) {
    views.push_back(state_->machine.View(worker));
  }
  return views;
}

const std::map<std::string, int64_t>& Core::Dropped() const { return state_->machine.dropped(); }

}  // namespace accrue::core
