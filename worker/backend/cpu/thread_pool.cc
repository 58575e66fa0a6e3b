#include "worker/backend/cpu/thread_pool.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cfenv>
#include <chrono>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "common/check.h"

namespace accrue {
namespace {

// Operations follow each other within tens of microseconds; a futex wake-up costs about as much.
constexpr auto kSpin = std::chrono::microseconds(50);

thread_local int current_thread = 0;

void Pause() {
#if defined(__SSE2__)
  _mm_pause();
#endif
}

// Spins until the condition holds, for kSpin at most.
template <typename Condition>
bool SpinUntil(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (condition()) return true;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return condition();
}

int AllowedThreads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

void PrepareComputeThread() {
  std::fesetround(FE_TONEAREST);
#if defined(__SSE2__)
  constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  _mm_setcsr(_mm_getcsr() & ~(kFlushToZero | kDenormalsAreZero));
#endif
  omp_set_num_threads(1);
}

ThreadPool::ThreadPool(int threads) {
  ACCRUE_CHECK(threads >= 0);
  if (threads == 0) threads = AllowedThreads();
  workers_.reserve(threads - 1);
  for (int thread = 1; thread < threads; ++thread) {
    workers_.emplace_back([this, thread] { WorkerMain(thread); });
  }
}

ThreadPool::~ThreadPool() {
  ACCRUE_CHECK(!running_);
  stopping_.store(true);
  wake_.fetch_add(1);
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

int ThreadPool::CurrentThread() { return current_thread; }

void ThreadPool::ParallelFor(int64_t tasks, absl::FunctionRef<void(int64_t task)> body) {
  ACCRUE_CHECK(!running_ && current_thread == 0);
  if (tasks <= 0) return;
  PrepareComputeThread();
  if (workers_.empty() || tasks == 1) {
    running_ = true;
    for (int64_t task = 0; task < tasks; ++task) body(task);
    running_ = false;
    return;
  }
  running_ = true;
  body_ = &body;
  tasks_ = tasks;
  unfinished_.store(tasks, std::memory_order_relaxed);
  untaken_.store(tasks, std::memory_order_release);
  wake_.fetch_add(1, std::memory_order_release);
  if (tasks > static_cast<int64_t>(workers_.size())) {
    wake_.notify_all();
  } else {
    for (int64_t i = 1; i < tasks; ++i) wake_.notify_one();
  }
  TakeTasks();
  const auto done = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
  if (!SpinUntil(done)) {
    for (int64_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;) unfinished_.wait(left);
  }
  running_ = false;
}

void ThreadPool::TakeTasks() {
  int64_t untaken = untaken_.load(std::memory_order_acquire);
  while (untaken > 0) {
    if (!untaken_.compare_exchange_weak(untaken, untaken - 1, std::memory_order_acq_rel)) continue;
    // The operation cannot end before this task has: body_ and tasks_ hold still.
    (*body_)(tasks_ - untaken);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
    untaken = untaken_.load(std::memory_order_acquire);
  }
}

void ThreadPool::WorkerMain(int thread) {
  current_thread = thread;
  PrepareComputeThread();
  while (!stopping_.load()) {
    const uint32_t seen = wake_.load(std::memory_order_acquire);
    TakeTasks();
    if (stopping_.load()) return;
    if (!SpinUntil([&] { return wake_.load(std::memory_order_acquire) != seen; })) wake_.wait(seen);
  }
}

}  // namespace accrue
