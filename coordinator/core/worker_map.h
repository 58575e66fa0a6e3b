// What is kept of each of many workers: in the order of their incarnations, and found at once, as each message of a
// worker's does several times.
//
// As std::map, as far as it goes; references last as there. Moved, not copied.
#pragma once

#include <cstddef>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/check.h"
#include "common/ids.h"

namespace accrue::core {

template <typename T>
class WorkerMap {
 public:
  using Map = std::map<Incarnation, T>;
  using value_type = typename Map::value_type;
  using iterator = typename Map::iterator;
  using const_iterator = typename Map::const_iterator;

  WorkerMap() = default;
  WorkerMap(WorkerMap&&) = default;
  WorkerMap& operator=(WorkerMap&&) = default;

  iterator begin() { return map_.begin(); }
  iterator end() { return map_.end(); }
  const_iterator begin() const { return map_.begin(); }
  const_iterator end() const { return map_.end(); }
  size_t size() const { return map_.size(); }

  iterator find(Incarnation worker) {
    const auto found = places_.find(worker);
    return found == places_.end() ? map_.end() : found->second;
  }
  const_iterator find(Incarnation worker) const {
    const auto found = places_.find(worker);
    return found == places_.end() ? map_.end() : const_iterator(found->second);
  }
  size_t count(Incarnation worker) const { return places_.count(worker); }
  // Ends the program for one that is not there.
  T& at(Incarnation worker) {
    const auto found = places_.find(worker);
    ACCRUE_CHECK(found != places_.end());
    return found->second->second;
  }
  const T& at(Incarnation worker) const { return const_cast<WorkerMap*>(this)->at(worker); }
  T& operator[](Incarnation worker) {
    const auto found = places_.find(worker);
    if (found != places_.end()) return found->second->second;
    const iterator made = map_.try_emplace(worker).first;
    places_[worker] = made;
    return made->second;
  }
  void erase(iterator entry) {
    places_.erase(entry->first);
    map_.erase(entry);
  }
  size_t erase(Incarnation worker) {
    const iterator entry = find(worker);
    if (entry == map_.end()) return 0;
    erase(entry);
    return 1;
  }

 private:
  Map map_;
  absl::flat_hash_map<Incarnation, iterator> places_;
};

}  // namespace accrue::core
