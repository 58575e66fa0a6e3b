// Threads that share the tasks of one operation at a time.
//
// Thread-safety: one thread at a time calls ParallelFor; a body never does. Ownership: the pool joins its threads
// when it is destroyed.
//
// Invariants:
//  1. Which thread runs a task is left open; operations cut their tasks by shape alone, so results cannot depend
//     on it (docs/numerics.md, section 2).
//  2. Every thread that runs a task, the caller too, computes in the environment of docs/numerics.md, section 1.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace accrue {

// Gives this thread the environment of docs/numerics.md, section 1: rounding to nearest even, denormals honoured,
// one OpenMP thread. ParallelFor calls it; whoever computes without a pool calls it first.
void PrepareComputeThread();

class ThreadPool {
 public:
  // threads counts the caller; 0: as many as the process may run on.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(task) once for every task in [0, tasks); returns when all are done. Tasks start in ascending order.
  void ParallelFor(int64_t tasks, absl::FunctionRef<void(int64_t task)> body);

  // Of the calling thread within a body: 0 for the caller of ParallelFor, else 1 to threads() - 1. For scratch
  // memory only: results must not depend on it.
  static int CurrentThread();

 private:
  void WorkerMain(int thread);
  // Runs tasks until none is left to take.
  void TakeTasks();

  // Of the operation under way. Written while untaken_ is 0, read by those that took a task of it.
  const absl::FunctionRef<void(int64_t)>* body_ = nullptr;
  int64_t tasks_ = 0;

  alignas(64) std::atomic<int64_t> untaken_{0};
  alignas(64) std::atomic<int64_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> wake_{0};  // raised when there are tasks, or when the pool ends
  std::atomic<bool> stopping_{false};
  bool running_ = false;  // the caller's thread only

  std::vector<std::thread> workers_;
};

}  // namespace accrue
