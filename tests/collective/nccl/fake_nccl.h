// NCCL and a GPU's stream among threads of one process: what each call answers, and when an operation is done, is the
// test's to say. Memory is the host's.
//
// A World is thread-safe; a FakeCalls is one rank's, as nccl::Calls.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "worker/collective/nccl/nccl_calls.h"

namespace accrue::nccl {

class World {
 public:
  struct Part {
    const void* in = nullptr;
    void* out = nullptr;
  };

  // Rank's part in the index-th operation of the communicator of this id; combine(parts) is called when all are there.
  void Post(const UniqueId& id, int size, int index, int rank, Part part,
            const std::function<void(const std::vector<Part>&)>& combine) {
    absl::MutexLock lock(&mutex_);
    Operation& operation = operations_[{id, index}];
    operation.parts.resize(size);
    operation.parts[rank] = part;
    if (++operation.posted == size) {
      combine(operation.parts);
      operation.is_done = true;
    }
  }
  bool IsDone(const UniqueId& id, int index) {
    absl::MutexLock lock(&mutex_);
    return operations_[{id, index}].is_done;
  }
  void Join(const UniqueId& id) {
    absl::MutexLock lock(&mutex_);
    ++joined_[id];
  }
  int Joined(const UniqueId& id) {
    absl::MutexLock lock(&mutex_);
    return joined_[id];
  }
  int NextId() { return next_id_++; }

 private:
  struct Operation {
    std::vector<Part> parts;
    int posted = 0;
    bool is_done = false;
  };

  std::atomic<int> next_id_{1};
  absl::Mutex mutex_;
  std::map<std::pair<UniqueId, int>, Operation> operations_ ABSL_GUARDED_BY(mutex_);
  std::map<UniqueId, int> joined_ ABSL_GUARDED_BY(mutex_);
};

class FakeCalls : public Calls {
 public:
  explicit FakeCalls(World& world) : world_(world) {}

  // Set by a test, before the call that they change.
  std::atomic<int> async_error{kSuccess};  // of every communicator, unless it is in progress
  int init_result = kInProgress, queue_result = kInProgress, finalize_result = kSuccess;
  bool init_gives_nothing = false;
  std::function<void()> while_idle_is_asked, while_init_is_asked;  // called at every look

  // What was called.
  int finalized = 0, destroyed = 0, aborted = 0, followed = 0;
  bool always_followed = true;

  int GetUniqueId(UniqueId& id) override {
    id.fill(0);
    const int number = world_.NextId();
    std::memcpy(id.data(), &number, sizeof(number));
    return kSuccess;
  }
  int InitRank(Handle& handle, int size, const UniqueId& id, int rank) override {
    if (init_gives_nothing) return 5;
    comms_.push_back(std::make_unique<Comm>());
    *comms_.back() = {.id = id, .size = size, .rank = rank};
    handle = comms_.back().get();
    world_.Join(id);
    return init_result;
  }
  int AsyncError(Handle handle, int& state) override {
    const Comm& comm = *static_cast<Comm*>(handle);
    if (comm.is_gone) return 4;
    state = async_error;
    if (state != kSuccess) return kSuccess;
    if (world_.Joined(comm.id) < comm.size) {
      if (while_init_is_asked) while_init_is_asked();
      state = kInProgress;
    }
    return kSuccess;
  }
  int Finalize(Handle) override { return ++finalized, finalize_result; }
  int Destroy(Handle handle) override { return ++destroyed, Leave(handle); }
  int Abort(Handle handle) override { return ++aborted, Leave(handle); }

  int AllReduce(const void* in, void* out, size_t count, Element element, Handle handle) override {
    return Queue(handle, {in, out}, [=](const std::vector<World::Part>& parts) {
      if (element == Element::kInt64) Sum<uint64_t>(parts, count);
      if (element == Element::kFloat32) Sum<float>(parts, count);
    });
  }
  int Broadcast(void* data, size_t size_bytes, int root, Handle handle) override {
    return Queue(handle, {data, data}, [=](const std::vector<World::Part>& parts) {
      for (const World::Part& part : parts) {
        if (part.out != parts[root].in) std::memcpy(part.out, parts[root].in, size_bytes);
      }
    });
  }
  std::string ResultText(int result, Handle) override { return absl::StrCat("fake result ", result); }

  void FollowCompute() override {
    ++followed;
    follows_ = true;
  }
  bool IsIdle() override {
    if (while_idle_is_asked) while_idle_is_asked();
    return queued_ == nullptr || queued_->is_gone || world_.IsDone(queued_->id, queued_->operations - 1);
  }
  void* bounce() override { return bounce_.data(); }
  size_t bounce_bytes() const override { return sizeof(bounce_); }
  void CopyToDevice(void* device, const void* host, size_t size_bytes) override {
    std::memcpy(device, host, size_bytes);
  }
  void CopyToHost(void* host, const void* device, size_t size_bytes) override { std::memcpy(host, device, size_bytes); }
  void Copy(void* to, const void* from, size_t size_bytes) override { std::memcpy(to, from, size_bytes); }

 private:
  struct Comm {
    UniqueId id{};
    int size = 0, rank = 0, operations = 0;
    bool is_gone = false;
  };

  static int Leave(Handle handle) {
    static_cast<Comm*>(handle)->is_gone = true;
    return kSuccess;
  }

  template <typename T>
  static void Sum(const std::vector<World::Part>& parts, size_t count) {
    std::vector<T> sums(count);
    for (const World::Part& part : parts) {
      for (size_t i = 0; i < count; ++i) sums[i] += static_cast<const T*>(part.in)[i];
    }
    for (const World::Part& part : parts) std::memcpy(part.out, sums.data(), count * sizeof(T));
  }

  int Queue(Handle handle, World::Part part, const std::function<void(const std::vector<World::Part>&)>& combine) {
    if (queue_result != kSuccess && queue_result != kInProgress) return queue_result;
    // What is queued without having followed the computation would read what is not there yet.
    always_followed = always_followed && std::exchange(follows_, false);
    queued_ = static_cast<Comm*>(handle);
    world_.Post(queued_->id, queued_->size, queued_->operations++, queued_->rank, part, combine);
    return queue_result;
  }

  World& world_;
  std::vector<std::unique_ptr<Comm>> comms_;
  Comm* queued_ = nullptr;  // of the last operation
  bool follows_ = false;
  std::array<int64_t, 8> bounce_{};
};

}  // namespace accrue::nccl
