// Many workers on real connections whose computing is a timer: what the coordinator makes them wait.
//
//   accrue_bench_streams ADDRESS WORKERS MILLISECONDS [WINDOWS]
//
// ADDRESS is that of a running accrued with a job that waits for so many workers. Each worker has a connection and a
// stream of its own, and answers as accrue-worker does, but for digests that are functions of the window; its units of a
// window are done when so many milliseconds have passed. Prints the exposed wait: from the moment that a worker has told
// its last unit to the Seal, after which it could go on with the next window; over all workers and windows, and for each
// window's last worker alone, whose wait is the coordinator's own.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <queue>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "accrue/v1/worker.grpc.pb.h"
#include "common/clock.h"
#include "common/version.h"

namespace accrue {
namespace {

constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kHeartbeatNs = 250 * kMillisecond;
constexpr int64_t kWarmUpWindows = 3;

int64_t Now() { return Clock::Real().SteadyNowNs(); }

// What the whole fleet measures. Thread-safe.
class Waits {
 public:
  void Computed(int64_t window) {
    const std::lock_guard<std::mutex> lock(mutex_);
    last_computed_[window] = std::max(last_computed_[window], Now());
  }
  void Sealed(int64_t window, int64_t computed_ns) {
    const int64_t now_ns = Now();
    const std::lock_guard<std::mutex> lock(mutex_);
    if (window < kWarmUpWindows) return;
    all_ns_.push_back(now_ns - computed_ns);
    own_ns_.push_back(now_ns - last_computed_[window]);
    windows_ = std::max(windows_, window + 1);
  }
  int64_t windows() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return windows_;
  }
  void Print() {
    const std::lock_guard<std::mutex> lock(mutex_);
    PrintOne("exposed wait of a worker", all_ns_);
    PrintOne("exposed wait after the last worker's last unit", own_ns_);
  }

 private:
  static void PrintOne(const char* name, std::vector<int64_t>& values) {
    if (values.empty()) return;
    std::sort(values.begin(), values.end());
    const auto at = [&](double share) {
      return static_cast<double>(values[std::min(values.size() - 1, static_cast<size_t>(share * values.size()))]) * 1e-6;
    };
    std::printf("%s: p50 %.1f ms, p99 %.1f ms, worst %.1f ms, of %zu\n", name, at(0.5), at(0.99), at(1), values.size());
  }

  mutable std::mutex mutex_;
  std::map<int64_t, int64_t> last_computed_;
  std::vector<int64_t> all_ns_, own_ns_;
  int64_t windows_ = 0;
};

// Calls what is due; one thread for the fleet.
class Timers {
 public:
  Timers() : thread_([this] { Run(); }) {}
  ~Timers() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void At(int64_t due_ns, std::function<void()> call) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      calls_.emplace(due_ns, std::move(call));
    }
    changed_.notify_all();
  }

 private:
  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!stopping_) {
      if (calls_.empty()) {
        changed_.wait(lock);
      } else if (const int64_t left_ns = calls_.begin()->first - Now(); left_ns > 0) {
        changed_.wait_for(lock, std::chrono::nanoseconds(left_ns));
      } else {
        const std::function<void()> call = std::move(calls_.begin()->second);
        calls_.erase(calls_.begin());
        lock.unlock();
        call();
        lock.lock();
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<int64_t, std::function<void()>> calls_;
  bool stopping_ = false;
  std::thread thread_;
};

class StreamWorker : public grpc::ClientBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage> {
 public:
  StreamWorker(const std::string& address, int index, int64_t unit_ns, Waits& waits, Timers& timers)
      : unit_ns_(unit_ns), waits_(waits), timers_(timers) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // else all would share one connection
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);            // as accrue-worker
    stub_ = v1::WorkerService::NewStub(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
    stub_->async()->Session(&context_, this);
    AddHold();
    StartRead(&incoming_);
    StartCall();
    v1::WorkerMessage message;
    v1::Hello& hello = *message.mutable_hello();
    hello.set_version(kVersion);
    hello.set_name(absl::StrCat("stream-", index));
    hello.set_numeric_class("stream");
    hello.set_backend("synthetic");
    hello.set_threads(1);
    Send(std::move(message));
    Beat();
  }

  void Cancel() { context_.TryCancel(); }
  void WaitForEnd() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
  }
  const std::string& reason() const { return reason_; }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        finished_ = true;
      }
      RemoveHold();
      return;
    }
    Handle(incoming_);
    incoming_.Clear();
    StartRead(&incoming_);
  }
  void OnWriteDone(bool ok) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    writing_ = false;
    if (ok) WriteNext();
  }
  void OnDone(const grpc::Status& status) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (reason_.empty()) reason_ = status.error_message();
    done_ = true;
    changed_.notify_all();
  }

  void Send(v1::WorkerMessage message) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (finished_) return;
    queue_.push_back(std::move(message));
    WriteNext();
  }
  void WriteNext() {
    if (writing_ || finished_ || queue_.empty()) return;
    outgoing_ = std::move(queue_.front());
    queue_.pop_front();
    writing_ = true;
    StartWrite(&outgoing_);
  }

  void Beat() {
    v1::WorkerMessage message;
    message.mutable_heartbeat()->set_memory_bytes(1 << 20);
    Send(std::move(message));
    timers_.At(Now() + kHeartbeatNs, [this] { Beat(); });
  }

  static std::string DigestAfter(int64_t window) { return absl::StrCat("state-", window); }

  void Handle(const v1::CoordinatorMessage& message) {
    using M = v1::CoordinatorMessage;
    v1::WorkerMessage reply;
    switch (message.message_case()) {
      case M::kAssignJob: {
        const v1::BatchSpec& batch = message.assign_job().job().spec().batch();
        tokens_per_unit_ = batch.micro_batch() * batch.sequence_length();
        window_ = message.assign_job().key().window();
        v1::JobLoaded& loaded = *reply.mutable_job_loaded();
        *loaded.mutable_key() = message.assign_job().key();
        loaded.add_tensors("synthetic.weight");
        loaded.add_tensor_elements(10);
        loaded.set_buckets(1);
        loaded.set_digest(DigestAfter(window_));
        loaded.set_parameter_hash(absl::StrCat("parameters-", window_));
        return Send(std::move(reply));
      }
      case M::kProbe: {
        v1::UnitReports& reports = *reply.mutable_unit_reports();
        *reports.mutable_key() = message.probe().key();
        reports.set_probe(true);
        v1::UnitReport& report = *reports.add_reports();
        report.add_max_exponents(-3);
        report.add_bucket_checksums(0);
        return Send(std::move(reply));
      }
      case M::kPlan:
        plans_.push_back(message.plan());
        return StartPlans();
      case M::kSeal: {
        waits_.Sealed(window_, computed_ns_);
        window_ = message.seal().key().window() + 1;
        units_.clear();
        v1::Stepped& stepped = *reply.mutable_stepped();
        *stepped.mutable_key() = message.seal().key();
        stepped.set_digest(DigestAfter(window_));
        stepped.set_parameter_hash(absl::StrCat("parameters-", window_));
        stepped.set_gradient_norm(1);
        stepped.set_clip_coefficient(1);
        Send(std::move(reply));
        return StartPlans();
      }
      case M::kRefused:
        reason_ = message.refused().reason();
        return;
      case M::kRelease:
        reason_ = message.release().reason();
        return;
      default:
        return;
    }
  }

  // Units of this window's plans are done after their time.
  void StartPlans() {
    while (!plans_.empty() && plans_.front().key().window() == window_) {
      const v1::Plan plan = std::move(plans_.front());
      plans_.pop_front();
      int64_t units = 0;
      for (const v1::UnitRange& range : plan.units()) units += range.count();
      timers_.At(Now() + units * unit_ns_, [this, plan] { Report(plan); });
    }
  }

  // On the timers' thread. Nothing else touches units_ between a plan and its seal.
  void Report(const v1::Plan& plan) {
    v1::WorkerMessage reply;
    v1::UnitReports& reports = *reply.mutable_unit_reports();
    *reports.mutable_key() = plan.key();
    for (const v1::UnitRange& range : plan.units()) {
      units_.push_back(range);
      for (int64_t unit = range.first(); unit < range.first() + range.count(); ++unit) {
        v1::UnitReport& report = *reports.add_reports();
        report.set_unit(unit);
        report.set_loss_sum(static_cast<double>(tokens_per_unit_));
        report.set_valid_tokens(tokens_per_unit_);
        report.add_max_exponents(-3);
        report.add_bucket_checksums(static_cast<uint64_t>(unit + 1));
        report.set_compute_ns(unit_ns_);
      }
    }
    if (reports.reports_size() > 0) Send(std::move(reply));
    reply.Clear();
    v1::WindowComputed& computed = *reply.mutable_window_computed();
    *computed.mutable_key() = plan.key();
    computed.set_parameter_hash(absl::StrCat("parameters-", plan.key().window()));
    v1::BucketManifest& bucket = *computed.add_buckets();
    for (const v1::UnitRange& range : units_) *bucket.add_units() = range;
    computed_ns_ = Now();
    waits_.Computed(plan.key().window());
    Send(std::move(reply));
  }

  const int64_t unit_ns_;
  Waits& waits_;
  Timers& timers_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  grpc::ClientContext context_;
  v1::CoordinatorMessage incoming_;

  std::mutex mutex_;
  std::condition_variable changed_;
  v1::WorkerMessage outgoing_;
  std::deque<v1::WorkerMessage> queue_;
  bool writing_ = false, finished_ = false, done_ = false;
  std::string reason_;

  // Of the protocol: handled in the order of the stream.
  int64_t tokens_per_unit_ = 1, window_ = 0;
  std::deque<v1::Plan> plans_;
  std::vector<v1::UnitRange> units_;
  std::atomic<int64_t> computed_ns_{0};
};

int Run(const std::string& address, int workers, int64_t unit_ns, int64_t windows) {
  Waits waits;
  std::vector<std::unique_ptr<StreamWorker>> fleet;
  {
    Timers timers;
    for (int i = 0; i < workers; ++i) {
      fleet.push_back(std::make_unique<StreamWorker>(address, i, unit_ns, waits, timers));
    }
    fleet.front()->WaitForEnd();  // the coordinator ends, or lets go of a job that is over
    for (const auto& worker : fleet) worker->Cancel();
    for (const auto& worker : fleet) worker->WaitForEnd();
  }
  std::printf("%d streams, %ld windows; the first worker's stream ended: %s\n", workers,
              static_cast<long>(waits.windows()), fleet.front()->reason().c_str());
  waits.Print();
  return waits.windows() >= windows ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace accrue

int main(int argc, char** argv) {
  const int workers = argc >= 4 ? std::atoi(argv[2]) : 0;
  const double milliseconds = argc >= 4 ? std::atof(argv[3]) : 0;
  if (workers < 1 || milliseconds <= 0) {
    std::fprintf(stderr, "usage: %s ADDRESS WORKERS MILLISECONDS [WINDOWS]\n", argv[0]);
    return 2;
  }
  // The fleet is not what is measured, and shares the coordinator's cores: as little as can be of its own.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return accrue::Run(argv[1], workers, static_cast<int64_t>(milliseconds * 1e6), argc > 4 ? std::atoll(argv[4]) : 1);
}
