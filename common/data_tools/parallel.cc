#include "common/data_tools/parallel.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "common/check.h"

namespace accrue {

int DefaultThreads() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

absl::Status ParallelFor(size_t count, int threads, const std::function<absl::Status(size_t)>& work) {
  ACCRUE_CHECK(threads >= 1);
  std::atomic<size_t> next{0};
  std::mutex mutex;
  size_t failed = count;  // guarded by mutex, as is status
  absl::Status status;
  const auto loop = [&] {
    for (size_t i = next++; i < count; i = next++) {
      absl::Status result = work(i);
      if (result.ok()) continue;
      const std::lock_guard<std::mutex> lock(mutex);
      if (i < failed) failed = i, status = std::move(result);
      next = count;  // lower indices have all begun, so the lowest error is still found
    }
  };
  std::vector<std::thread> pool;
  for (size_t i = 1; i < std::min(count, static_cast<size_t>(threads)); ++i) pool.emplace_back(loop);
  loop();
  for (std::thread& thread : pool) thread.join();
  return status;
}

}  // namespace accrue
