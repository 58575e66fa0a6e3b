// The communicator of a membership to come. Forming one takes longer than a reduce: members that formed it at
// their first seal with a newcomer would pay for it with a part of their window. So who has copied the state
// beside the members' work is no member before a communicator with it is formed, beside the work too: every
// one of them has said so.
//
// Who cannot, or is late, keeps nobody out: the newcomers are members then without it, and their first seal
// forms one. Whatever changes the membership meanwhile gives it up, and the next look at who is level begins
// another.
#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/core/counted.h"
#include "coordinator/core/machine.h"

namespace accrue::core {

// Of the newcomers that hold the committed state, those that are members now; begins to prepare for the
// others.
std::vector<Incarnation> Machine::MayEnter(Job& job, const std::vector<Incarnation>& level) {
  // The last holders wait for somebody to take the state over.
  if (job.leaving_members == static_cast<int64_t>(job.members.size())) return level;
  if (!job.preparation) {
    std::vector<Incarnation> unprepared;
    for (Incarnation newcomer : level) {
      if (job.copies.at(newcomer).unprepared) unprepared.push_back(newcomer);
    }
    // A worker keeps one: the last must have been used.
    if (unprepared.empty() && !level.empty() && !job.formed_ahead) BeginPreparation(job, level);
    return unprepared;
  }
  const Preparation& preparation = *job.preparation;
  if (!preparation.waiting.empty()) return {};
  std::vector<Incarnation> joiners;
  std::set_difference(preparation.members.begin(), preparation.members.end(), job.members.begin(),
                      job.members.end(), std::back_inserter(joiners));
  // One of them may be a window behind.
  const bool all_level = std::includes(level.begin(), level.end(), joiners.begin(), joiners.end());
  return all_level ? joiners : std::vector<Incarnation>();
}

void Machine::BeginPreparation(Job& job, const std::vector<Incarnation>& joiners) {
  Preparation preparation;
  preparation.communicator = absl::StrCat(job.config.id, "/", job.timeline.value(), "/", job.epoch.value(),
                                          "/ahead/", ++job.preparations_begun);
  preparation.members = job.members;
  preparation.members.insert(preparation.members.end(), joiners.begin(), joiners.end());
  std::sort(preparation.members.begin(), preparation.members.end());
  preparation.waiting = {preparation.members.begin(), preparation.members.end()};
  preparation.deadline_ns = now_ns_ + options_.prepare_timeout_ns;
  Note(job, "epoch",
       absl::StrCat("a communicator of ", Counted(preparation.members.size(), "member"),
                    " is formed beside the work"));
  const Attempt attempt = job.current ? job.current->attempt : Attempt();
  for (Incarnation worker : preparation.members) {
    SendTo(worker, Prepare{KeyFor(job, worker, job.committed, attempt), preparation.communicator,
                           preparation.members});
  }
  job.preparation = std::move(preparation);
}

void Machine::OnCommunicatorPrepared(const CommunicatorPrepared& event) {
  const std::optional<Sender> sender = Accept(event.from, event.key);
  if (!sender) return;
  Job& job = *sender->job;
  if (!job.preparation || job.preparation->communicator != event.communicator)
    return Drop("preparation is over");
  if (!event.error.empty())
    return PreparationFailed(job, absl::StrCat(NameOf(event.from), ": ", event.error));
  job.preparation->waiting.erase(event.from);
}

void Machine::PreparationFailed(Job& job, const std::string& reason) {
  for (auto& [receiver, copy] : job.copies) {
    const std::vector<Incarnation>& members = job.preparation->members;
    if (std::binary_search(members.begin(), members.end(), Incarnation(receiver))) copy.unprepared = true;
  }
  Record(job, "epoch",
         absl::StrCat("no communicator was formed beside the work, the next seal forms it: ", reason));
  CancelPreparation(job);
}

void Machine::CancelPreparation(Job& job) {
  if (!job.preparation) return;
  effects_.push_back(GiveUpCommunicator{job.preparation->communicator});
  job.preparation.reset();
}

void Machine::GiveUpLatePreparation(Job& job) {
  if (!job.preparation || job.preparation->waiting.empty() || now_ns_ <= job.preparation->deadline_ns) return;
  const Incarnation late = *job.preparation->waiting.begin();
  PreparationFailed(job, absl::StrCat(NameOf(late), " was not done in time"));
}

// The communicator that was formed for exactly these; empty if there is none.
std::string Machine::TakePrepared(Job& job, const std::vector<Incarnation>& members) {
  if (!job.preparation || !job.preparation->waiting.empty() || job.preparation->members != members) return "";
  std::string communicator = std::move(job.preparation->communicator);
  job.preparation.reset();
  return communicator;
}

}  // namespace accrue::core
