#include "coordinator/server/rendezvous_store.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace accrue {
namespace {

// The values of all names, or nothing while one is missing.
std::optional<std::vector<std::string>> Collect(const absl::flat_hash_map<std::string, std::string>& values,
                                                const std::vector<std::string>& names) {
  std::vector<std::string> found;
  for (const std::string& name : names) {
    const auto it = values.find(name);
    if (it == values.end()) return std::nullopt;
    found.push_back(it->second);
  }
  return found;
}

absl::Status GivenUp(const std::string& communicator) {
  return absl::CancelledError(absl::StrCat("communicator ", communicator, " was given up"));
}

}  // namespace

absl::StatusOr<RendezvousStore::Communicator*> RendezvousStore::Find(const std::string& name) {
  if (shut_down_) return absl::UnavailableError("the coordinator is shutting down");
  if (name.empty() || name.size() > 1024) {
    return absl::InvalidArgumentError("a communicator's name has 1 to 1024 bytes");
  }
  if (given_up_.contains(name)) return GivenUp(name);
  if (!communicators_.contains(name) && communicators_.size() >= limits_.communicators) {
    return absl::ResourceExhaustedError(absl::StrCat("more than ", limits_.communicators, " communicators at once"));
  }
  return &communicators_[name];
}

absl::Status RendezvousStore::Set(const std::string& communicator, const std::string& name, std::string value) {
  Ready ready;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ACCRUE_ASSIGN_OR_RETURN(Communicator * const found, Find(communicator));
    const auto it = found->values.find(name);
    const size_t grown = found->size_bytes + name.size() + value.size() -
                         (it == found->values.end() ? 0 : name.size() + it->second.size());
    const size_t keys = found->values.size() + (it == found->values.end() ? 1 : 0);
    if (grown > limits_.bytes_per_communicator || keys > limits_.keys_per_communicator) {
      return absl::ResourceExhaustedError(absl::StrCat("communicator ", communicator, " would hold ", keys, " keys of ",
                                                       grown, " bytes; at most ", limits_.keys_per_communicator,
                                                       " and ", limits_.bytes_per_communicator));
    }
    found->size_bytes = grown;
    found->values[name] = std::move(value);
    std::vector<Waiter> still;
    for (Waiter& waiter : found->waiters) {
      if (auto values = Collect(found->values, waiter.names)) {
        ready.emplace_back(std::move(waiter.answer), *std::move(values));
        --waiters_;
      } else {
        still.push_back(std::move(waiter));
      }
    }
    found->waiters = std::move(still);
  }
  Run(std::move(ready));
  return absl::OkStatus();
}

void RendezvousStore::Get(const std::string& communicator, std::vector<std::string> names, int64_t deadline_ns,
                          Answer answer) {
  const auto now_or_later = [&]() -> std::optional<absl::StatusOr<std::vector<std::string>>> {
    const std::lock_guard<std::mutex> lock(mutex_);
    const absl::StatusOr<Communicator*> found = Find(communicator);
    if (!found.ok()) return found.status();
    if (auto values = Collect((*found)->values, names)) return *std::move(values);
    if (waiters_ >= limits_.waiters) {
      return absl::ResourceExhaustedError(absl::StrCat("more than ", limits_.waiters, " waiting for keys"));
    }
    ++waiters_;
    (*found)->waiters.push_back({std::move(names), deadline_ns, std::move(answer)});
    return std::nullopt;
  }();
  if (now_or_later.has_value()) answer(*now_or_later);
}

void RendezvousStore::GiveUp(const std::string& communicator) {
  Ready ready;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (given_up_.insert(communicator).second) given_up_order_.push_back(communicator);
    if (given_up_order_.size() > limits_.communicators) {
      given_up_.erase(given_up_order_.front());
      given_up_order_.pop_front();
    }
    const auto it = communicators_.find(communicator);
    if (it == communicators_.end()) return;
    for (Waiter& waiter : it->second.waiters) ready.emplace_back(std::move(waiter.answer), GivenUp(communicator));
    waiters_ -= it->second.waiters.size();
    communicators_.erase(it);
  }
  Run(std::move(ready));
}

void RendezvousStore::Expire(int64_t now_ns) {
  Ready ready;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [name, communicator] : communicators_) {
      std::vector<Waiter> still;
      for (Waiter& waiter : communicator.waiters) {
        if (waiter.deadline_ns > now_ns) {
          still.push_back(std::move(waiter));
          continue;
        }
        std::string missing;
        for (const std::string& key : waiter.names) {
          if (missing.empty() && !communicator.values.contains(key)) missing = key;
        }
        ready.emplace_back(std::move(waiter.answer),
                           absl::DeadlineExceededError(absl::StrCat("communicator ", name, ": nobody set ", missing)));
        --waiters_;
      }
      communicator.waiters = std::move(still);
    }
  }
  Run(std::move(ready));
}

void RendezvousStore::ShutDown() {
  Ready ready;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    shut_down_ = true;
    for (auto& [name, communicator] : communicators_) {
      for (Waiter& waiter : communicator.waiters) {
        ready.emplace_back(std::move(waiter.answer), absl::UnavailableError("the coordinator is shutting down"));
      }
    }
    communicators_.clear();
    waiters_ = 0;
  }
  Run(std::move(ready));
}

void RendezvousStore::Run(Ready ready) {
  for (auto& [answer, result] : ready) answer(std::move(result));
}

}  // namespace accrue
