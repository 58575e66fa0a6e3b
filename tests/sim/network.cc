#include "tests/sim/network.h"

#include <algorithm>
#include <utility>

#include "tests/sim/simulated_worker.h"
#include "tests/sim/simulator.h"

namespace accrue::core {
namespace {

constexpr int64_t kNoticeNs = 40'000'000;    // until a broken stream shows at either side, at most
constexpr int64_t kKeepaliveNs = 6'000'000'000;  // where nothing says so: by pings
constexpr int64_t kFirstPauseNs = 100'000'000, kLongestPauseNs = 500'000'000;
constexpr int64_t kLateNs = 5'000'000'000;
constexpr int64_t kRepeatNs = 50'000'000;
constexpr size_t kRecent = 6;
constexpr int64_t kMaxWaiting = 10'000;  // as coordinator/server/worker_service.cc

// Whether the event says of what term and window it is: the others come with the stream or not at all.
bool HasKey(const Event& event) {
  return std::visit([](const auto& one) { return requires { one.key; }; }, event);
}

// Of what is said of one attempt at a window, or of one seal; null for everything else.
const Key* VoidableKey(const Event& event) {
  if (const auto* reported = std::get_if<UnitsReported>(&event)) return reported->probe ? nullptr : &reported->key;
  if (const auto* computed = std::get_if<WindowComputed>(&event)) return &computed->key;
  if (const auto* returned = std::get_if<UnitsReturned>(&event)) return &returned->key;
  if (const auto* failed = std::get_if<ReduceFailed>(&event)) return &failed->key;
  return nullptr;
}

}  // namespace

int64_t SimulatedNetwork::Delay() {
  const SimulationConfig& config = simulator_.config();
  return config.delay_ns +
         static_cast<int64_t>(simulator_.Uniform() * static_cast<double>(config.delay_spread_ns));
}

void SimulatedNetwork::Connect(SimulatedWorker& worker) {
  worker.stream = streams_.size();
  worker.connected = true;
  Stream& stream = streams_.emplace_back();
  stream.worker = worker.incarnation();
  stream.term = simulator_.term();
}

template <typename Deliver>
void SimulatedNetwork::Send(SimulatedWorker& worker, Deliver deliver) {
  const size_t number = worker.stream;
  if (++streams_[number].to_waiting > kMaxWaiting) simulator_.Violation("too many messages wait for one worker");
  worker.last_to_ns = std::max({worker.last_to_ns + 1, simulator_.now_ns() + Delay(), worker.cut_to_until_ns});
  simulator_.AtWorker(worker.last_to_ns, worker.incarnation(),
                      [this, number, &worker, place = streams_[number].to_sent++, deliver = std::move(deliver)] {
                        if (place != streams_[number].to_came++) simulator_.Violation("a stream is out of order");
                        --streams_[number].to_waiting;
                        const bool there = worker.connected && worker.stream == number;
                        if (there && simulator_.now_ns() <= streams_[number].to_end_ns) deliver();
                      });
}

void SimulatedNetwork::ToWorker(Incarnation to, WorkerMessage message) {
  SimulatedWorker* worker = simulator_.Find(to);
  if (worker == nullptr || !worker->connected) return;
  if (const auto* assign = std::get_if<AssignJob>(&message)) RepeatVoid(*worker, assign->key);
  if (const auto* plan = std::get_if<Plan>(&message)) RepeatVoid(*worker, plan->key);
  if (const auto* replay = std::get_if<Replay>(&message)) RepeatVoid(*worker, replay->key);
  if (const auto* seal = std::get_if<Seal>(&message)) RepeatVoid(*worker, seal->key);
  Send(*worker, [worker, message = std::move(message)] { worker->Receive(message); });
}

// What it said of a timeline, an attempt or a seal that this key voids may come once more, on a stream that lives on; and what it
// would say if the word of the void had not reached it in time: that it stepped.
void SimulatedNetwork::RepeatVoid(SimulatedWorker& worker, const Key& key) {
  for (const Event& event : streams_[worker.stream].recent) {
    const Key* const said = VoidableKey(event);
    if (said == nullptr) continue;
    if (said->timeline < key.timeline) Repeat(worker, event, "message of a timeline that was left");
    if (said->window != key.window || said->timeline != key.timeline) continue;
    const auto* const failed = std::get_if<ReduceFailed>(&event);
    const bool of_old_seal = failed != nullptr && said->attempt == key.attempt && said->epoch < key.epoch;
    if (said->attempt >= key.attempt && !of_old_seal) continue;
    Repeat(worker, event, "message of a void attempt or seal");
    if (failed == nullptr) continue;
    WorkerStepped stepped;
    stepped.from = failed->from;
    stepped.key = failed->key;
    stepped.digest = stepped.parameter_hash = "of a seal that was given up";
    Repeat(worker, stepped, "step that followed a void seal");
  }
}

void SimulatedNetwork::Repeat(SimulatedWorker& worker, const Event& event, const char* what) {
  const double repeats = simulator_.config().faults.repeats;
  if (repeats <= 0 || simulator_.Uniform() >= repeats) return;
  const auto late_ns = static_cast<int64_t>(simulator_.Uniform() * static_cast<double>(kRepeatNs));
  simulator_.At(simulator_.now_ns() + late_ns, [this, number = worker.stream, event, what] {
    const Stream& stream = streams_[number];
    if (!simulator_.up() || stream.term != simulator_.term() || stream.over) return;
    simulator_.Cover(what);
    simulator_.Apply(event);
  });
}

void SimulatedNetwork::Welcome(SimulatedWorker& worker, Term term) {
  Send(worker, [&worker, term] { worker.Resumed(term); });
}

void SimulatedNetwork::Refuse(Incarnation incarnation) {
  SimulatedWorker* worker = simulator_.Find(incarnation);
  if (worker == nullptr || !worker->connected) return;
  Send(*worker, [this, worker] { simulator_.NewLife(*worker, "refused"); });
}

void SimulatedNetwork::FromWorker(SimulatedWorker& worker, Event event) {
  if (!worker.connected) return;
  worker.last_from_ns = std::max({worker.last_from_ns + 1, simulator_.now_ns() + Delay(), worker.cut_from_until_ns});
  simulator_.At(worker.last_from_ns, [this, number = worker.stream, event = std::move(event)] { Arrive(number, event); });
}

void SimulatedNetwork::Arrive(size_t number, const Event& event) {
  Stream& stream = streams_[number];
  if (!simulator_.up() || stream.term != simulator_.term()) return;  // that coordinator is no more
  if (HasKey(event)) {
    stream.recent.push_back(event);
    if (stream.recent.size() > kRecent) stream.recent.pop_front();
  }
  if (simulator_.now_ns() > stream.from_end_ns || stream.over) {
    simulator_.Cover("message lost with its stream");
    return;
  }
  simulator_.Apply(event);
}

void SimulatedNetwork::EndAtCoordinator(size_t number) {
  if (!simulator_.up() || streams_[number].term != simulator_.term() || streams_[number].over) return;
  streams_[number].over = true;
  simulator_.Apply(WorkerGone{streams_[number].worker, "its stream ended"});
  for (const Event& event : std::exchange(streams_[number].recent, {})) {
    if (simulator_.Uniform() >= simulator_.config().faults.repeats) continue;
    const auto late_ns = static_cast<int64_t>(simulator_.Uniform() * static_cast<double>(kLateNs));
    simulator_.At(simulator_.now_ns() + late_ns, [this, term = streams_[number].term, event] {
      if (!simulator_.up() || term != simulator_.term()) return;
      simulator_.Cover("message of an ended stream");
      simulator_.Apply(event);
    });
  }
}

void SimulatedNetwork::Drop(SimulatedWorker& worker) {
  if (!worker.connected) return;
  const int64_t now_ns = simulator_.now_ns();
  const auto within = [&](int64_t limit_ns) {
    return now_ns + static_cast<int64_t>(simulator_.Uniform() * static_cast<double>(limit_ns));
  };
  Stream& stream = streams_[worker.stream];
  stream.to_end_ns = within(simulator_.config().delay_spread_ns * 2);
  stream.from_end_ns = within(simulator_.config().delay_spread_ns * 2);
  LoseAtWorker(worker, within(simulator_.Uniform() < 0.2 ? kKeepaliveNs : kNoticeNs));
  simulator_.At(within(simulator_.Uniform() < 0.2 ? kKeepaliveNs : kNoticeNs),
                [this, number = worker.stream] { EndAtCoordinator(number); });
}

void SimulatedNetwork::WorkerDied(SimulatedWorker& worker, bool told) {
  const bool connected = std::exchange(worker.connected, false);
  if (!connected || !told) return;
  worker.last_from_ns = std::max({worker.last_from_ns + 1, simulator_.now_ns() + Delay(), worker.cut_from_until_ns});
  simulator_.At(worker.last_from_ns, [this, number = worker.stream] { EndAtCoordinator(number); });
}

void SimulatedNetwork::CoordinatorDied() {
  for (Incarnation incarnation : simulator_.Living()) {
    SimulatedWorker& worker = *simulator_.Find(incarnation);
    if (!worker.connected) continue;
    const int64_t now_ns = simulator_.now_ns();
    const double share = simulator_.Uniform();
    streams_[worker.stream].to_end_ns =
        now_ns + static_cast<int64_t>(share * static_cast<double>(simulator_.config().delay_spread_ns));
    const auto notice_ns = static_cast<int64_t>(simulator_.Uniform() * static_cast<double>(kNoticeNs));
    LoseAtWorker(worker, std::max(now_ns + notice_ns, worker.cut_to_until_ns));
  }
}

void SimulatedNetwork::LoseAtWorker(SimulatedWorker& worker, int64_t at_ns) {
  simulator_.AtWorker(at_ns, worker.incarnation(), [this, &worker, number = worker.stream] {
    if (!worker.connected || worker.stream != number) return;
    worker.connected = false;
    Reconnect(worker, kFirstPauseNs);
  });
}

void SimulatedNetwork::Reconnect(SimulatedWorker& worker, int64_t pause_ns) {
  const auto jittered_ns = static_cast<int64_t>(static_cast<double>(pause_ns) * (0.5 + simulator_.Uniform()));
  simulator_.AtWorker(simulator_.now_ns() + jittered_ns, worker.incarnation(), [this, &worker, pause_ns] {
    const int64_t now_ns = simulator_.now_ns();
    const bool cut = now_ns < worker.cut_to_until_ns || now_ns < worker.cut_from_until_ns;
    if (cut || !simulator_.up()) return Reconnect(worker, std::min(2 * pause_ns, kLongestPauseNs));
    Hello(worker);
  });
}

// As coordinator/server/coordinator.cc, Join.
void SimulatedNetwork::Hello(SimulatedWorker& worker) {
  if (worker.idle()) return simulator_.NewLife(worker, "has nothing to keep");
  if (!simulator_.Awaits(worker.incarnation())) return simulator_.NewLife(worker, "must rejoin");
  Connect(worker);
  Welcome(worker, Term(simulator_.term()));
  simulator_.Join(worker, /*resumed=*/true);
}

void SimulatedNetwork::Cut(SimulatedWorker& worker, int64_t to_until_ns, int64_t from_until_ns) {
  worker.cut_to_until_ns = std::max(worker.cut_to_until_ns, to_until_ns);
  worker.cut_from_until_ns = std::max(worker.cut_from_until_ns, from_until_ns);
}

}  // namespace accrue::core
