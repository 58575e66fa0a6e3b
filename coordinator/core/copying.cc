// A newcomer that copies the state beside the members' work: from one member, which then sends it what each window adds,
// so that it is level with the members sooner or later. Nothing waits for it: between two windows, whoever is level
// becomes a member.
#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

// Copies of one newcomer that broke, until it copies while the seal waits.
constexpr int kMaxFailedCopies = 2;
// States that a newcomer may hold too late, because windows are shorter than its lag, until one seal waits for it.
constexpr int kPatience = 8;

}  // namespace

// Sums of fast accumulation are not worth to be sent: nothing proves what arrives.
bool Machine::MayCopy(const Job& job, const Worker& worker) const {
  return options_.copy_beside && job.config.exact && !worker.sync_at_once && worker.failed_copies < kMaxFailedCopies;
}

// Who finds no source waits for one: the copies on the way end. Members that leave are sources if there are no others: the
// window on the way may wait for a worker that stays.
bool Machine::StartCopies(Job& job) {
  const bool all_leave = job.leaving_members == static_cast<int64_t>(job.members.size());
  std::set<Incarnation> sources;
  for (Incarnation member : job.members) {
    if (all_leave || !workers_.at(member).leaving) sources.insert(member);
  }
  for (const auto& [receiver, copy] : job.copies) sources.erase(copy.source);
  bool started = false;
  for (Incarnation receiver : job.attached) {
    const Worker& worker = workers_.at(receiver);
    if (sources.empty()) break;
    if (worker.role != Role::kReady || !MayCopy(job, worker)) continue;
    // After a copy that broke, from another one.
    const auto source = std::next(sources.begin(), worker.failed_copies % static_cast<int>(sources.size()));
    StartCopy(job, sources.extract(source).value(), receiver);
    started = true;
  }
  return started;
}

void Machine::StartCopy(Job& job, Incarnation source, Incarnation receiver) {
  Worker& worker = workers_.at(receiver);
  worker.held_digest.clear();
  SetRole(job, worker, Role::kCopying);
  const Copy copy{source, absl::StrCat(job.config.id, "/", job.timeline.value(), "/", job.epoch.value(), "/copy/",
                                       ++job.copies_begun)};
  job.copies[receiver] = copy;
  Record(job, "sync", absl::StrCat(NameOf(receiver), " copies the state of window ", job.committed, " and later from ",
                                   NameOf(source), " while the members go on"),
         receiver);
  const Attempt attempt = job.current ? job.current->attempt : Attempt();
  for (Incarnation worker : {source, receiver}) {
    SendTo(worker, CopyState{KeyFor(job, worker, job.committed, attempt), copy.communicator, source, receiver});
  }
}

void Machine::OnStateCopied(const StateCopied& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  Job& job = *sender->job;
  for (auto& [receiver, copy] : job.copies) {
    if (copy.communicator != event.communicator || (event.from != receiver && event.from != copy.source)) continue;
    Worker& worker = workers_.at(receiver);
    if (!event.error.empty()) {
      ++worker.failed_copies;
      return CancelCopy(job, Incarnation(receiver), absl::StrCat(NameOf(event.from), ": ", event.error));
    }
    if (event.from != receiver) return Drop("a source does not copy");
    worker.held_window = event.key.window.value();
    worker.held_digest = event.digest;
    // Nobody is late while its communicator is being formed.
    const bool forming = job.preparation && !job.preparation->waiting.empty();
    if (!forming && ++copy.reports == kPatience) copy.awaited_until_ns = now_ns_ + options_.abort_timeout_ns;
    return;
  }
  Drop("copy is over");
}

// Between a commit and the next seal: the state of the last commit, with its digest, makes a member, once a communicator
// with it is formed. The state of a window that has not committed yet, or of an older one, says nothing yet.
bool Machine::AdmitCopied(Job& job) {
  std::vector<Incarnation> level, garbled;
  for (const auto& [receiver, copy] : job.copies) {
    const Worker& worker = workers_.at(receiver);
    if (worker.held_digest.empty() || worker.held_window != job.committed) continue;
    (worker.held_digest == job.digest ? level : garbled).push_back(receiver);
  }
  if (level.empty() && garbled.empty()) return false;
  // Either side may be wrong: a sync has both say what they hold.
  for (Incarnation receiver : garbled) {
    Worker& worker = workers_.at(receiver);
    worker.sync_at_once = true;
    CancelCopy(job, receiver, absl::StrCat("it copied a state of digest ", std::string(worker.held_digest),
                                           ", the members hold ", job.digest));
  }
  const std::vector<Incarnation> entering = MayEnter(job, level);
  for (Incarnation receiver : entering) {
    const Copy copy = job.copies.extract(receiver).mapped();
    SendEnd(job, receiver, copy, "the receiver holds the state");
  }
  if (!entering.empty()) AdmitMembers(job, entering, "copied the state beside the members' work");
  return !entering.empty() || !garbled.empty();
}

// It is at most the members' last window behind: the seal waits for as long as it takes to step that.
bool Machine::AwaitsCopy(const Job& job) const {
  return std::any_of(job.copies.begin(), job.copies.end(),
                     [](const auto& entry) { return entry.second.awaited_until_ns > 0; });
}

void Machine::GiveUpLateCopies(Job& job) {
  for (const auto& [receiver, copy] : std::map(job.copies)) {
    if (copy.awaited_until_ns == 0 || now_ns_ <= copy.awaited_until_ns) continue;
    workers_.at(receiver).failed_copies = kMaxFailedCopies;
    CancelCopy(job, receiver, "it was awaited, and did not get level");
  }
}

void Machine::SendEnd(Job& job, Incarnation receiver, const Copy& copy, const std::string& reason) {
  effects_.push_back(GiveUpCommunicator{copy.communicator});
  const Attempt attempt = job.current ? job.current->attempt : Attempt();
  for (Incarnation worker : {copy.source, receiver}) {
    SendTo(worker,
           CopyState{KeyFor(job, worker, job.committed, attempt), copy.communicator, copy.source, receiver, true, reason});
  }
}

// The receiver goes back to waiting; Advance tries again with whoever is there.
void Machine::CancelCopy(Job& job, Incarnation receiver, const std::string& reason) {
  const auto node = job.copies.extract(receiver);
  if (node.empty()) return;
  CancelPreparation(job);
  Record(job, "sync", absl::StrCat("the copy from ", NameOf(node.mapped().source), " to ", NameOf(receiver),
                                   " is given up: ", reason),
         receiver);
  SendEnd(job, receiver, node.mapped(), reason);
  Worker& worker = workers_.at(receiver);
  worker.held_digest.clear();
  SetRole(job, worker, Role::kReady);
}

void Machine::CancelCopiesOf(Job& job, Incarnation source, const std::string& reason) {
  for (const auto& [receiver, copy] : std::map(job.copies)) {
    if (copy.source == source) CancelCopy(job, receiver, reason);
  }
}

void Machine::CancelCopies(Job& job, const std::string& reason) {
  for (const auto& [receiver, copy] : std::map(job.copies)) CancelCopy(job, receiver, reason);
}

// All that hold the state leave: they wait until somebody else has it.
bool Machine::HandOver(Job& job) {
  if (AdmitCopied(job)) return true;
  CancelCopies(job, "all members leave, and hand the state over at once");
  for (Incarnation incarnation : job.attached) {
    Worker& worker = workers_.at(incarnation);
    if (worker.role == Role::kReady) worker.sync_at_once = true;
  }
  return AdmitJoiners(job);
}

}  // namespace accrue::core
