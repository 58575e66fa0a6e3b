// Collectives among threads of one process, in lock step, that fail where a test says: every outcome, such as which
// members saw an operation complete before it broke, is the test's choice and not the network's.
//
// Thread-safe. Members of a communicator find each other by its name.
#pragma once

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
#include "worker/collective/collective.h"

namespace accrue::worker_testing {

// One member's part in one operation.
struct MemoryOperation {
  std::string communicator;
  int rank = 0;
  int index = 0;  // of the communicator's operations
  int root = -1;  // of a broadcast; -1: an all-reduce
};

class MemoryCollectives : public CollectiveFactory {
 public:
  // Set before the members run. `before`: not OK, the member leaves with that before it takes part; the others fail.
  // `after`: not OK, the operation is complete, but this member is told so; the others fail at the next one. May be
  // called by several threads at once.
  using Hook = std::function<absl::Status(const MemoryOperation&)>;
  Hook before, after;
  // What a member has received, on its way there.
  std::function<void(const MemoryOperation&, void* data, size_t size_bytes)> tamper;

  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string& name, int rank, int size,
                                                       int64_t deadline_ms) override {
    absl::MutexLock lock(&mutex_);
    std::shared_ptr<Room>& room = rooms_[name];
    if (room == nullptr) room = std::make_shared<Room>(size);
    return std::make_unique<Member>(*this, room, name, rank);
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string& name, int rank, int size,
                                                            int64_t deadline_ms) override {
    return Create(name, rank, size, deadline_ms);
  }

  // The operations that were completed, such as "all-reduce" and "broadcast from 1".
  std::vector<std::string> Operations(const std::string& communicator) {
    absl::MutexLock lock(&mutex_);
    return rooms_.count(communicator) == 0 ? std::vector<std::string>() : rooms_[communicator]->Log();
  }

 private:
  struct Part {
    const void* in = nullptr;
    void* out = nullptr;
  };

  // Where the members of one communicator meet, operation by operation.
  class Room {
   public:
    explicit Room(int size) : parts_(size), aborted_(size) {}

    int size() const { return static_cast<int>(parts_.size()); }

    // combine(parts) is called once, when all are there.
    template <typename Combine>
    absl::Status Enter(int rank, int index, Part part, const std::string& what, Combine combine) {
      absl::MutexLock lock(&mutex_);
      if (!broken_.ok()) return aborted_[rank] ? absl::AbortedError("aborted") : broken_;
      parts_[rank] = part;
      if (++arrived_ == size()) {
        combine(parts_);
        log_.push_back(what);
        arrived_ = 0;
        done_ = index + 1;
      }
      auto is_over = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return done_ > index || !broken_.ok(); };
      mutex_.Await(absl::Condition(&is_over));
      if (done_ > index) return absl::OkStatus();
      return aborted_[rank] ? absl::AbortedError("aborted") : broken_;
    }

    void Break(int rank) {
      absl::MutexLock lock(&mutex_);
      if (!broken_.ok()) return;
      broken_ = absl::UnavailableError(absl::StrCat("rank ", rank, " is gone"));
      SetUnreachableRanks({rank}, broken_);
    }
    void Abort(int rank) {
      {
        absl::MutexLock lock(&mutex_);
        aborted_[rank] = true;
      }
      Break(rank);
    }
    std::vector<std::string> Log() {
      absl::MutexLock lock(&mutex_);
      return log_;
    }

   private:
    absl::Mutex mutex_;
    std::vector<Part> parts_ ABSL_GUARDED_BY(mutex_);
    std::vector<bool> aborted_ ABSL_GUARDED_BY(mutex_);
    std::vector<std::string> log_ ABSL_GUARDED_BY(mutex_);
    int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
    int done_ ABSL_GUARDED_BY(mutex_) = 0;
    absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  };

  class Member : public Communicator {
   public:
    Member(MemoryCollectives& owner, std::shared_ptr<Room> room, std::string name, int rank)
        : owner_(owner), room_(std::move(room)), name_(std::move(name)), rank_(rank) {}
    ~Member() override { room_->Break(rank_); }

    int rank() const override { return rank_; }
    int size() const override { return room_->size(); }
    absl::Status Meet() override { return absl::OkStatus(); }
    void Abort() override { room_->Abort(rank_); }

    absl::Status AllReduce(const int64_t* in, int64_t* out, int64_t elements) override {
      return AllReduceOf<int64_t, uint64_t>(in, out, elements);
    }
    absl::Status AllReduce(const float* in, float* out, int64_t elements) override {
      return AllReduceOf<float, float>(in, out, elements);
    }
    absl::Status Broadcast(void* data, size_t size_bytes, int root) override {
      return Run(root, {nullptr, data}, size_bytes, [&](const std::vector<Part>& parts) {
        for (const Part& part : parts) {
          if (part.out != parts[root].out) std::memcpy(part.out, parts[root].out, size_bytes);
        }
      });
    }

   private:
    template <typename T, typename Word>
    absl::Status AllReduceOf(const T* in, T* out, int64_t elements) {
      return Run(-1, {in, out}, elements * sizeof(T), [&](const std::vector<Part>& parts) {
        for (int64_t i = 0; i < elements; ++i) {
          Word sum = 0;
          for (const Part& part : parts) sum += static_cast<Word>(static_cast<const T*>(part.in)[i]);
          for (const Part& part : parts) static_cast<T*>(part.out)[i] = static_cast<T>(sum);
        }
      });
    }

    template <typename Combine>
    absl::Status Run(int root, Part part, size_t size_bytes, Combine combine) {
      const MemoryOperation operation{name_, rank_, next_++, root};
      if (owner_.before) {
        if (absl::Status status = owner_.before(operation); !status.ok()) return room_->Break(rank_), status;
      }
      const std::string what = root < 0 ? "all-reduce" : absl::StrCat("broadcast from ", root);
      if (absl::Status status = room_->Enter(rank_, operation.index, part, what, combine); !status.ok()) return status;
      if (owner_.tamper && root != rank_) owner_.tamper(operation, part.out, size_bytes);
      if (!owner_.after) return absl::OkStatus();
      absl::Status status = owner_.after(operation);
      if (!status.ok()) room_->Break(rank_);
      return status;
    }

    MemoryCollectives& owner_;
    const std::shared_ptr<Room> room_;
    const std::string name_;
    const int rank_;
    int next_ = 0;
  };

  absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<Room>> rooms_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace accrue::worker_testing
