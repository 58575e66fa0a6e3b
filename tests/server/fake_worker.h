// A worker without an engine, for tests of the coordinator: it speaks the whole protocol on a real stream, and invents
// losses, digests and checkpoint shards as functions of (window, unit) alone.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "accrue/v1/worker.pb.h"

namespace accrue {

// What a worker that outlived its stream still has.
struct FakeWorkerLife {
  int64_t incarnation = 0;  // 0: none
  int64_t tokens_per_unit = 1;
  v1::Holding holding;
};

struct FakeWorkerOptions {
  std::string address;
  std::string name = "fake";
  std::string version;  // empty: ours
  std::string numeric_class = "fake";
  FakeWorkerLife resume;  // go on with it, if the coordinator lets it
  // Called with every message of the coordinator before it is answered; false: do not answer it.
  std::function<bool(const v1::CoordinatorMessage&)> filter;
};

class FakeWorker {
 public:
  explicit FakeWorker(FakeWorkerOptions options);
  ~FakeWorker();  // closes the stream

  // Blocks until a message of that kind came (or one that came before), for at most some seconds; false without one.
  bool WaitFor(v1::CoordinatorMessage::MessageCase kind);
  // Blocks until the stream has ended.
  bool WaitForEnd();
  // Writes a message of its own.
  void Send(const v1::WorkerMessage& message);
  // As a killed process does.
  void Kill();
  // Ends the stream, if it has not ended, but not the life: another FakeWorker may go on with it.
  FakeWorkerLife Outlive();

  // The messages so far, in order.
  std::vector<v1::CoordinatorMessage> Messages() const;

  // What it reports.
  static double UnitLoss(int64_t window, int64_t unit);
  static std::string DigestAfter(int64_t window);  // windows applied

 private:
  struct Stream;
  void Read();
  void Answer(const v1::CoordinatorMessage& message);
  void OnAssign(const v1::AssignJob& assign);
  void OnPlan(const v1::Plan& plan);
  void OnWelcome(const v1::Welcome& welcome);
  v1::Holding Holds() const;
  v1::UnitReport ReportOf(int64_t window, int64_t unit) const;
  void OnSeal(const v1::Seal& seal);
  void WriteShard(const v1::Key& key, const v1::CheckpointOrder& order, int64_t window);

  const FakeWorkerOptions options_;
  std::unique_ptr<Stream> stream_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::CoordinatorMessage> messages_;
  bool ended_ = false;
  int64_t incarnation_ = 0;
  int64_t units_per_window_ = 1, tokens_per_unit_ = 1;
  v1::Key key_;                       // of the newest plan
  std::optional<v1::Holding> step_;   // the part of Holding about a step whose Commit has not come
  v1::WindowComputed computed_;
  std::vector<v1::UnitRange> units_;  // of the window on the way
  v1::Plan waiting_plan_;             // of the window after
  bool has_waiting_plan_ = false;
  int64_t committed_ = 0, attempt_ = 0;
  std::thread reader_;
};

}  // namespace accrue
