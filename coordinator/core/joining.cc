// From a loaded worker to a member: at the job's start, and while it runs.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

constexpr int kMaxFailedSyncs = 3;
constexpr int kMaxGatherings = 10;

}  // namespace

// Two workers share a job only if they agree on what the parameters are, and on the state that they loaded.
std::string Machine::WhyUnfit(const Job& job, const JobLoaded& event) const {
  if (!job.tensor_elements.empty() &&
      (event.tensor_elements != job.tensor_elements || event.buckets != job.buckets)) {
    return absl::StrCat("its layout differs: ", event.tensor_elements.size(), " tensors [",
                        absl::StrJoin(event.tensor_elements, " "), "] in ", event.buckets,
                        " buckets, the job has ", job.tensor_elements.size(), " [",
                        absl::StrJoin(job.tensor_elements, " "), "] in ", job.buckets);
  }
  if (event.tensor_elements.empty() || event.buckets < 1) return "it names no tensors or no buckets";
  if (event.digest.empty()) {
    return job.members.empty() && !job.going_back ? "it holds no state, and there is no member to copy from"
                                                  : "";
  }
  const bool current = event.key.window.value() == job.committed && event.digest == job.digest;
  if (current && !job.parameter_hash.empty() && !event.parameter_hash.empty() &&
      event.parameter_hash != job.parameter_hash) {
    return absl::StrCat("its parameters have hash ", event.parameter_hash, ", the job's ", job.parameter_hash);
  }
  const StartPoint& origin = job.origin;
  if (event.key.window != origin.window) return "";  // of an older start: it will be synced
  if (!origin.digest.empty() && event.digest != origin.digest) {
    return absl::StrCat("it starts from digest ", event.digest, ", the job from ", origin.digest);
  }
  if (job.config.exact && !origin.exponents.empty() && !event.exponents.empty() &&
      event.exponents != origin.exponents) {
    return "the exponents that it loaded differ from the job's";
  }
  return "";
}

void Machine::OnJobLoaded(const JobLoaded& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  Job& job = *sender->job;
  Worker& worker = *sender->worker;
  if (worker.role != Role::kLoading) return Drop("loaded twice");
  const std::string unfit = WhyUnfit(job, event);
  if (!unfit.empty()) return ReleaseWorker(job, event.from, unfit, true);

  if (job.tensor_elements.empty()) {
    job.tensors = event.tensors;
    job.tensor_elements = event.tensor_elements;
    job.buckets = event.buckets;
    job.parameters = 0;
    for (int64_t elements : event.tensor_elements) job.parameters += elements;
  }
  if (job.origin.digest.empty() && !event.digest.empty()) {
    job.origin.digest = event.digest;
    if (job.committed == job.origin.window.value()) job.digest = event.digest;
  }
  if (job.members.empty() && job.config.exact && job.exponents.empty() && !event.exponents.empty()) {
    if (event.exponents.size() != job.tensor_elements.size()) {
      return ReleaseWorker(job, event.from, "it loaded exponents for another number of tensors", true);
    }
    job.exponents = job.origin.exponents = event.exponents;
  }
  if (job.members.empty() && job.parameter_hash.empty() && event.digest == job.digest) {
    job.parameter_hash = event.parameter_hash;
  }
  worker.held_digest = event.digest;
  worker.held_window = event.key.window.value();
  SetRole(job, worker, Role::kReady);
  job.last_arrival_ns = now_ns_;
}

// Without members: waits for workers.min, gathers more for a moment, begins.
bool Machine::StartRunning(Job& job) {
  const JobConfig& config = job.config;
  const auto attached = static_cast<int64_t>(job.attached.size());
  const std::string refusal = job.last_refusal.empty() ? "" : absl::StrCat("; refused: ", job.last_refusal);
  if (job.ready < config.min_workers) job.min_loaded_at_ns = -1;
  if (attached < config.min_workers) {
    SetState(job, JobState::kWaiting,
             absl::StrCat("waits for workers: ", attached, " of at least ", config.min_workers, refusal));
    return false;
  }
  if (job.ready < config.min_workers) {
    SetState(job, JobState::kStarting,
             absl::StrCat(Counted(attached, "worker"), attached == 1 ? " loads" : " load", " data and parameters", refusal));
    return false;
  }
  if (job.min_loaded_at_ns < 0) job.min_loaded_at_ns = now_ns_;
  const bool waited = now_ns_ >= job.last_arrival_ns + options_.gather_ns;
  const bool waited_long = now_ns_ >= job.min_loaded_at_ns + kMaxGatherings * options_.gather_ns;
  const bool full = job.ready >= config.max_workers;
  if (!full && !waited_long && !(waited && job.loading == 0)) return false;

  std::vector<Incarnation> members;
  for (Incarnation incarnation : job.attached) {
    if (workers_.at(incarnation).role == Role::kReady) members.push_back(incarnation);
  }
  for (Incarnation member : members) SetRole(job, workers_.at(member), Role::kMember);
  job.min_loaded_at_ns = -1;
  PersistLayoutOf(job);
  PersistPositionOf(job);
  SetMembers(job, members, absl::StrCat("start at window ", job.committed));
  SetState(job, JobState::kRunning, "");
  return true;
}

// With members, between a commit and the next seal: who holds the state is a member, who does not gets it: beside the
// work if that can be, else while the seal waits.
bool Machine::AdmitJoiners(Job& job) {
  if (job.sync) return false;
  if (AdmitCopied(job)) return true;
  if (job.ready == 0) return false;
  std::vector<Incarnation> current;
  for (Incarnation incarnation : job.attached) {
    const Worker& worker = workers_.at(incarnation);
    if (worker.role != Role::kReady) continue;
    if (!worker.held_digest.empty() && worker.held_window == job.committed &&
        worker.held_digest == job.digest) {
      current.push_back(incarnation);
    }
  }
  if (!current.empty()) {
    AdmitMembers(job, current, "loaded the state that the members hold");
    return true;
  }
  if (StartCopies(job)) return true;
  for (Incarnation incarnation : job.attached) {
    const Worker& worker = workers_.at(incarnation);
    if (worker.role == Role::kReady && !MayCopy(job, worker)) return StartSync(job);
  }
  return false;
}

bool Machine::StartSync(Job& job) {
  Sync sync;
  for (Incarnation incarnation : job.attached) {
    if (workers_.at(incarnation).role == Role::kReady) sync.receivers.push_back(incarnation);
  }
  // The source is disturbed; take the member with the least to do, one that stays if there is one.
  std::pair<bool, int64_t> best;
  for (Incarnation member : job.members) {
    const Leases::Share share = job.current ? job.current->leases.ShareOf(member) : Leases::Share();
    const std::pair<bool, int64_t> cost = {workers_.at(member).leaving, share.leased - share.done};
    if (sync.source == Incarnation() || cost < best) {
      sync.source = member;
      best = cost;
    }
  }
  RaiseEpoch(job);
  const Attempt attempt = job.current ? job.current->attempt : Attempt();
  sync.epoch = job.epoch;
  sync.waiting = static_cast<int64_t>(sync.receivers.size()) + 1;
  sync.communicator = absl::StrCat(job.config.id, "/", job.timeline.value(), "/", job.epoch.value(), "/sync");
  sync.deadline_ns = now_ns_ + options_.sync_timeout_ns;
  Record(job, "sync",
         absl::StrCat(NameOf(sync.source), " sends the state of window ", job.committed, " to ",
                      Counted(sync.receivers.size(), "worker")));

  std::vector<Incarnation> ranks = {sync.source};
  ranks.insert(ranks.end(), sync.receivers.begin(), sync.receivers.end());
  for (Incarnation incarnation : ranks) {
    SendTo(incarnation, StateSync{KeyFor(job, incarnation, job.committed, attempt), ranks, sync.communicator,
                                  sync.source});
  }
  for (Incarnation receiver : sync.receivers) SetRole(job, workers_.at(receiver), Role::kSyncing);
  job.sync = std::move(sync);
  return true;
}

void Machine::OnStateSynced(const StateSynced& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  Job& job = *sender->job;
  Worker& worker = *sender->worker;
  if (!job.sync || event.key.epoch != job.sync->epoch) return Drop("sync is over");
  const bool is_source = event.from == job.sync->source;
  if (is_source ? job.sync->source_done : worker.role != Role::kSyncing) return Drop("synced twice");
  if (event.digest != job.digest) {
    ExpelWorker(event.from,
                absl::StrCat(is_source ? "it sent" : "it received", " a state of digest ", event.digest,
                             ", the members hold ", job.digest),
                true);
    return;
  }
  if (is_source) {
    job.sync->source_done = true;
  } else {
    SetRole(job, worker, Role::kSynced);
  }
  if (--job.sync->waiting > 0) return;
  const std::vector<Incarnation> joiners = std::exchange(job.sync, std::nullopt)->receivers;
  AdmitMembers(job, joiners, "hold the state");
}

// Whoever is still in it is told to stop, and the receivers go back to waiting; Advance tries again with
// whoever is there. A seal to come must not be taken for what the aborts called off: it has a higher epoch.
void Machine::CancelSync(Job& job, const std::string& reason) {
  if (!job.sync) return;
  const Sync sync = *std::exchange(job.sync, std::nullopt);
  effects_.push_back(GiveUpCommunicator{sync.communicator});
  Record(job, "sync", absl::StrCat("given up: ", reason));
  std::vector<Incarnation> participants = sync.receivers;
  participants.push_back(sync.source);
  for (Incarnation participant : participants) {
    Abort abort{KeyFor(job, participant, job.committed, job.current ? job.current->attempt : Attempt()),
                reason};
    abort.key.epoch = sync.epoch;
    SendTo(participant, std::move(abort));
  }
  RaiseEpoch(job);
  for (Incarnation receiver : sync.receivers) {
    Worker& worker = workers_.at(receiver);
    worker.held_digest.clear();
    SetRole(job, worker, Role::kReady);
  }
}

// A transfer broke without anybody being gone. Who keeps failing is sent away.
void Machine::OnSyncFailed(Job& job, const ReduceFailed& event) {
  const Sync sync = *job.sync;
  CancelSync(job, absl::StrCat(NameOf(event.from), ": ", event.reason));
  for (Incarnation receiver : sync.receivers) {
    if (event.from != sync.source && event.from != receiver) continue;
    if (++workers_.at(receiver).failed_syncs < kMaxFailedSyncs) continue;
    ExpelWorker(receiver,
                absl::StrCat("it failed ", kMaxFailedSyncs, " times to receive the state: ", event.reason),
                true);
  }
}

void Machine::AdmitMembers(Job& job, const std::vector<Incarnation>& joiners, const std::string& reason) {
  std::vector<Incarnation> members = job.members;
  std::vector<std::string> names;
  for (Incarnation joiner : joiners) {
    members.push_back(joiner);
    names.push_back(NameOf(joiner));
    Worker& worker = workers_.at(joiner);
    worker.sealed_window = kNeverSealed;
    worker.failed_syncs = worker.failed_copies = 0;
    worker.sync_at_once = false;
    SetRole(job, worker, Role::kMember);
  }
  std::sort(members.begin(), members.end());
  const std::string prepared = TakePrepared(job, members);
  SetMembers(job, std::move(members), absl::StrCat(absl::StrJoin(names, ", "), ": ", reason), prepared);
  for (Incarnation joiner : joiners) SendEntryPlans(job, joiner);
}

}  // namespace accrue::core
