// Streams between simulated workers and the coordinator: in order and whole until they break, then with an end that each
// side sees in its own time. What is on the way when one breaks arrives up to a point, or not at all.
//
// After a stream has ended, messages of it may still turn up, and once more; while it lives, such of an attempt or a seal
// that is void: the core must not listen.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "coordinator/core/effects.h"
#include "coordinator/core/events.h"

namespace accrue::core {

class SimulatedWorker;
class Simulator;

class SimulatedNetwork {
 public:
  explicit SimulatedNetwork(Simulator& simulator) : simulator_(simulator) {}

  // A new stream; the one before must have ended.
  void Connect(SimulatedWorker& worker);
  // Dropped where there is no stream.
  void ToWorker(Incarnation to, WorkerMessage message);
  void Welcome(SimulatedWorker& worker, Term term);
  void Refuse(Incarnation worker);
  void FromWorker(SimulatedWorker& worker, Event event);

  // Breaks it although both sides live.
  void Drop(SimulatedWorker& worker);
  // The worker's process has ended. told: its machine lives, and ends the stream.
  void WorkerDied(SimulatedWorker& worker, bool told);
  void CoordinatorDied();
  // Nothing passes until then.
  void Cut(SimulatedWorker& worker, int64_t to_until_ns, int64_t from_until_ns);

 private:
  struct Stream {
    Incarnation worker;
    int64_t term = 0;
    int64_t to_end_ns = INT64_MAX, from_end_ns = INT64_MAX;  // what arrives later does not
    int64_t to_waiting = 0;                                  // messages on the way
    int64_t to_sent = 0, to_came = 0;                        // messages, lost ones too
    bool over = false;                                       // the coordinator knows
    std::deque<Event> recent;                                // that came, or were lost
  };

  int64_t Delay();
  void RepeatVoid(SimulatedWorker& worker, const Key& key);
  void Repeat(SimulatedWorker& worker, const Event& event, const char* what);
  template <typename Deliver>
  void Send(SimulatedWorker& worker, Deliver deliver);
  void Arrive(size_t stream, const Event& event);
  void EndAtCoordinator(size_t stream);
  void LoseAtWorker(SimulatedWorker& worker, int64_t at_ns);
  // Until a coordinator answers.
  void Reconnect(SimulatedWorker& worker, int64_t pause_ns);
  void Hello(SimulatedWorker& worker);

  Simulator& simulator_;
  std::vector<Stream> streams_;
};

}  // namespace accrue::core
