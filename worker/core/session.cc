#include "worker/core/session.h"

#include <algorithm>
#include <utility>

#include "absl/numeric/bits.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/check.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "worker/core/keys.h"
#include "worker/core/resident_memory.h"

namespace accrue {
namespace {

constexpr int64_t kShortestHeartbeatMs = 10;
// Of attempts without a coordinator that are logged: the 1st, 2nd, 4th and so on, and then every 64th (half a minute).
constexpr int64_t kLongestSilence = 64;
// Beyond what a link takes to close.
constexpr absl::Duration kLongestClose = absl::Seconds(5);

bool IsTold(int64_t attempt) { return attempt % kLongestSilence == 0 || absl::has_single_bit(static_cast<uint64_t>(attempt)); }

v1::WorkerMessage HeartbeatMessage() {
  v1::WorkerMessage message;
  message.mutable_heartbeat()->set_memory_bytes(ResidentMemoryBytes());
  return message;
}

}  // namespace

Session::Session(const SessionOptions& options, LinkFactory& links, Inbox& inbox, const Clock& clock,
                 AbortDeadline* abort_deadline, Preparer* preparer)
    : options_(options),
      links_(links),
      inbox_(inbox),
      clock_(clock),
      abort_deadline_(abort_deadline),
      preparer_(preparer) {}

Session::~Session() {
  Close();
  if (thread_.joinable()) thread_.join();
}

void Session::Start() {
  absl::MutexLock lock(&mutex_);
  ACCRUE_CHECK(!thread_.joinable());
  if (stopping_) return;
  ended_ = false;
  thread_ = std::thread([this] { Run(); });
}

void Session::Send(v1::WorkerMessage message) {
  absl::MutexLock lock(&mutex_);
  if (state_ != State::kUp || link_ == nullptr) return;
  const v1::Key* const key = KeyOf(message);
  if (key != nullptr && (key->term() != term_ || key->incarnation() != incarnation_)) return;
  link_->Send(std::move(message));
}

void Session::Close() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  mutex_.AwaitWithTimeout(absl::Condition(&ended_), kLongestClose);
}

void Session::HoldJob(bool holds) {
  absl::MutexLock lock(&mutex_);
  holds_job_ = holds;
}

void Session::Rejoin(const std::string& reason) {
  absl::MutexLock lock(&mutex_);
  incarnation_ = 0;
  EndStream(reason);
}

void Session::Run() {
  int64_t pause_ms = options_.first_pause_ms, attempts = 0;
  while (true) {
    LiveThroughStream();
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_ || refused_for_good_) break;
      if (state_ == State::kUp) {
        down_since_ns_ = clock_.SteadyNowNs();
        pause_ms = options_.first_pause_ms;
        attempts = 0;
      }
      state_ = State::kDown;
      const int64_t away_ms = (clock_.SteadyNowNs() - down_since_ns_) / 1'000'000;
      if (incarnation_ != 0 && holds_job_ && away_ms >= options_.keep_ms) {
        EndLife(absl::StrCat("no coordinator for ", away_ms / 1000, " s: what is held is given up"), false);
      }
      if (IsTold(++attempts)) {
        LogWarning("no coordinator; trying again",
                   {{"reason", *over_}, {"attempts", attempts}, {"pause_ms", pause_ms}});
      }
    }
    PassFaultPoint(FaultPoint::kWorkerReconnecting);
    if (!PauseUnlessStopped(pause_ms)) break;
    pause_ms = std::min(2 * pause_ms, options_.longest_pause_ms);
  }
  inbox_.Push(LinkLost{"the session is closed"});
  absl::MutexLock lock(&mutex_);
  ended_ = true;
}

bool Session::PauseUnlessStopped(int64_t pause_ms) {
  absl::MutexLock lock(&mutex_);
  return !mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::Milliseconds(pause_ms));
}

void Session::LiveThroughStream() {
  std::unique_ptr<CoordinatorLink> link;
  bool was_up = false;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    over_.reset();
    state_ = State::kGreeting;
    if (!holds_job_) incarnation_ = 0;  // nothing to keep
    v1::WorkerMessage hello;
    *hello.mutable_hello() = options_.hello;
    hello.mutable_hello()->set_incarnation(incarnation_);
    link_ = links_.Connect(this);
    link_->Send(std::move(hello));
    PassFaultPoint(FaultPoint::kWorkerHelloSent);

    auto answered = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return StreamIsOver() || state_ == State::kUp; };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&answered), absl::Milliseconds(options_.welcome_timeout_ms))) {
      EndStream(absl::StrCat("no answer within ", options_.welcome_timeout_ms, " ms"));
    }
    auto over = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return StreamIsOver(); };
    while (!mutex_.AwaitWithTimeout(absl::Condition(&over), absl::Milliseconds(heartbeat_interval_ms_))) {
      link_->Send(HeartbeatMessage());
    }
    was_up = state_ == State::kUp;
    link = std::move(link_);
  }
  if (was_up) link->Close();
  link.reset();  // without the lock: it waits for the last call of this receiver
}

void Session::OnMessage(v1::CoordinatorMessage message) {
  std::shared_ptr<CollectiveGuard> guard;
  {
    absl::MutexLock lock(&mutex_);
    if (StreamIsOver()) return;
    if (state_ == State::kGreeting) return OnAnswer(message);
    if (message.has_refused()) {
      return EndLife(absl::StrCat("refused: ", message.refused().reason()), !message.refused().rejoin());
    }
    guard = guard_;
  }
  // Without the lock, since an abort may take its time.
  guard->Observe(message);
  if (message.has_prepare()) {  // nothing that the compute thread need know of, or that may wait for it
    if (preparer_ != nullptr) preparer_->Prepare(message.prepare());
    return;
  }
  if (inbox_.Push(std::move(message))) return;
  absl::MutexLock lock(&mutex_);
  EndLife("the coordinator sent more messages than the inbox takes", false);
}

void Session::OnLost(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (StreamIsOver()) return;
  if (state_ == State::kUp) inbox_.Push(LinkLost{std::string(status.message())});
  EndStream(std::string(status.message()));
}

void Session::OnAnswer(const v1::CoordinatorMessage& answer) {
  if (answer.has_welcome()) return OnWelcome(answer.welcome());
  if (answer.has_refused()) {
    return EndLife(absl::StrCat("refused: ", answer.refused().reason()), !answer.refused().rejoin());
  }
  EndStream("the coordinator's first message is neither Welcome nor Refused");
}

void Session::OnWelcome(const v1::Welcome& welcome) {
  const bool resumed = welcome.resumed() && incarnation_ != 0 && welcome.incarnation() == incarnation_;
  if (resumed) {
    guard_->ForgetUnseen();
  } else {
    if (guard_ != nullptr) guard_->StopAll("a new incarnation has begun");
    guard_ = std::make_shared<CollectiveGuard>(abort_deadline_);
  }
  term_ = welcome.term();
  incarnation_ = welcome.incarnation();
  heartbeat_interval_ms_ = std::max(welcome.heartbeat_interval_ms(), kShortestHeartbeatMs);
  inbox_.StartAnew(Joined{term_, incarnation_, resumed, guard_});
  state_ = State::kUp;
}

void Session::EndLife(const std::string& reason, bool for_good) {
  const bool lived = incarnation_ != 0;
  incarnation_ = 0;
  refused_for_good_ |= for_good;
  if (guard_ != nullptr) guard_->StopAll(reason);
  if (lived || for_good) inbox_.Push(LifeOver{reason, for_good});
  EndStream(reason);
}

void Session::EndStream(const std::string& reason) {
  if (!over_) over_ = reason;
}

}  // namespace accrue
