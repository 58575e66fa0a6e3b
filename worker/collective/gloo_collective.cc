#include "worker/collective/gloo_collective.h"

#include <gloo/allreduce.h>
#include <gloo/broadcast.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"

namespace accrue {
namespace {

// Gloo's default of 1 MiB costs more than half of the bandwidth from three members on.
constexpr size_t kMaxSegmentBytes = 8 << 20;
// No collective uses this slot: Gloo puts a small prefix into the topmost byte.
constexpr uint64_t kAbortSlot = uint64_t{0xFF} << 56;

// Carries a status through Gloo's frames; never leaves this file.
struct StatusException : std::exception {
  explicit StatusException(absl::Status the_status) : status(std::move(the_status)) {}
  absl::Status status;
};

// Gloo has no exception of its own for it.
bool IsTimeOut(const std::exception& error) {
  return absl::StrContains(error.what(), "Timed out") || absl::StrContains(error.what(), "timed out");
}

// Gloo's view of the rendezvous store for one communicator. Fetches all members' addresses in one call.
class StoreAdapter : public gloo::rendezvous::Store {
 public:
  StoreAdapter(RendezvousStore* store, std::string communicator, int size, int64_t deadline_ms)
      : store_(store), communicator_(std::move(communicator)), deadline_ms_(deadline_ms) {
    for (int rank = 0; rank < size; ++rank) ranks_.push_back(absl::StrCat(rank));
  }

  // Before this member waits for anyone, so that those who do not come can be told from those who wait.
  void SayPresent(int rank) { set(PresenceKey(ranks_[rank]), {'1'}); }

  void set(const std::string& key, const std::vector<char>& data) override {
    if (absl::Status status = store_->Set(communicator_, key, std::string(data.begin(), data.end())); !status.ok()) {
      throw StatusException(status);
    }
  }

  std::vector<char> get(const std::string& key) override {
    wait({key});
    const std::string& value = values_.at(key);
    return std::vector<char>(value.begin(), value.end());
  }

  void wait(const std::vector<std::string>& keys) override { wait(keys, std::chrono::milliseconds(deadline_ms_)); }

  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) override {
    for (const std::string& key : keys) {
      if (values_.contains(key)) continue;
      // Addresses stand under the bare rank, and are asked for after this member's own is set; the host names,
      // which Gloo exchanges first and rank by rank, under other keys.
      const bool is_address = std::find(ranks_.begin(), ranks_.end(), key) != ranks_.end();
      Fetch(is_address ? ranks_ : std::vector<std::string>{key}, timeout.count());
    }
  }

 private:
  void Fetch(const std::vector<std::string>& names, int64_t timeout_ms) {
    absl::StatusOr<std::vector<std::string>> values = store_->Get(communicator_, names, timeout_ms);
    if (!values.ok()) {
      throw StatusException(absl::IsDeadlineExceeded(values.status()) ? WhoIsMissing() : values.status());
    }
    if (values->size() != names.size()) {
      throw StatusException(absl::InternalError(absl::StrCat("the rendezvous store answered with ", values->size(),
                                                             " values; expected ", names.size())));
    }
    for (size_t i = 0; i < names.size(); ++i) values_[names[i]] = std::move((*values)[i]);
  }

  static std::string PresenceKey(const std::string& rank) { return absl::StrCat("present_", rank); }

  absl::Status WhoIsMissing() {
    std::vector<std::string> missing;
    for (const std::string& rank : ranks_) {
      if (!store_->Get(communicator_, {PresenceKey(rank)}, 0).ok()) missing.push_back(rank);
    }
    return absl::DeadlineExceededError(absl::StrCat("communicator \"", communicator_, "\": rank ",
                                                    absl::StrJoin(missing, ", "), " of ", ranks_.size(),
                                                    " did not come within ", deadline_ms_, " ms"));
  }

  RendezvousStore* store_;
  std::string communicator_;
  int64_t deadline_ms_;
  std::vector<std::string> ranks_;
  absl::flat_hash_map<std::string, std::string> values_;
};

// Sums as integers do that wrap; signed overflow would be undefined.
template <typename T>
void Add(void* out, const void* a, const void* b, size_t elements) {
  using Word = std::conditional_t<std::is_same_v<T, int64_t>, uint64_t, T>;
  auto* sum = static_cast<Word*>(out);
  const auto* left = static_cast<const Word*>(a);
  const auto* right = static_cast<const Word*>(b);
  for (size_t i = 0; i < elements; ++i) sum[i] = left[i] + right[i];
}

class GlooCommunicator : public Communicator {
 public:
  GlooCommunicator(std::string name, int rank, int size, std::shared_ptr<gloo::rendezvous::Context> context)
      : name_(std::move(name)), rank_(rank), size_(size), context_(std::move(context)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status AllReduce(const int64_t* in, int64_t* out, int64_t elements) override {
    return AllReduceOf(in, out, elements);
  }
  absl::Status AllReduce(const float* in, float* out, int64_t elements) override {
    return AllReduceOf(in, out, elements);
  }

  absl::Status Broadcast(void* data, size_t size_bytes, int root) override {
    ACCRUE_CHECK(root >= 0 && root < size_);
    return Run("broadcast", [&] {
      if (size_ == 1 || size_bytes == 0) return;
      gloo::BroadcastOptions options(context_);
      options.setOutput(static_cast<char*>(data), size_bytes);
      options.setRoot(root);
      options.setTag(next_tag_++);
      gloo::broadcast(options);
    });
  }

  void Abort() override {
    if (!aborted_.exchange(true)) FailPairs();
  }

 private:
  template <typename T>
  absl::Status AllReduceOf(const T* in, T* out, int64_t elements) {
    ACCRUE_CHECK(elements >= 0);
    return Run("all-reduce", [&] {
      if (elements == 0) return;
      if (size_ == 1) {
        std::memcpy(out, in, elements * sizeof(T));
        return;
      }
      gloo::AllreduceOptions options(context_);
      options.setInput(const_cast<T*>(in), elements);  // Gloo only reads it
      options.setOutput(out, elements);
      options.setReduceFunction(&Add<T>);
      options.setMaxSegmentSize(kMaxSegmentBytes);
      options.setTag(next_tag_++);
      gloo::allreduce(options);
    });
  }

  // Gloo reports by exceptions; they end here.
  template <typename Operation>
  absl::Status Run(const char* what, Operation operation) {
    if (aborted_) return absl::AbortedError(absl::StrCat("communicator \"", name_, "\" was aborted"));
    if (!failure_.ok()) return failure_;
    try {
      operation();
      return absl::OkStatus();
    } catch (const std::exception& error) {
      const std::string message = absl::StrCat("communicator \"", name_, "\", rank ", rank_, " of ", size_, ": ", what,
                                               ": ", error.what());
      if (aborted_) {
        failure_ = absl::AbortedError(message);
      } else if (IsTimeOut(error)) {
        failure_ = absl::DeadlineExceededError(message);
      } else {
        failure_ = absl::UnavailableError(message);
      }
    }
    FailPairs();  // so that members who wait for this one, not for the one that is gone, learn of it at once
    return failure_;
  }

  // Makes every pair fail, here and at the peers. Closing the connections would leave this side's call blocked; a
  // receive that times out on any pair fails all of them.
  void FailPairs() {
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) continue;
      try {
        char nothing = 0;
        auto buffer = context_->createUnboundBuffer(&nothing, 1);
        buffer->recv(peer, kAbortSlot);
        buffer->waitRecv(nullptr, std::chrono::milliseconds(1));
      } catch (const std::exception&) {
        // Wanted; or this pair had failed before, then the next one is tried.
      }
    }
  }

  const std::string name_;
  const int rank_;
  const int size_;
  const std::shared_ptr<gloo::rendezvous::Context> context_;  // null for size 1
  std::atomic<bool> aborted_{false};
  // Of the operating thread.
  absl::Status failure_;
  uint32_t next_tag_ = 0;
};

class GlooFactory : public CollectiveFactory {
 public:
  GlooFactory(std::shared_ptr<gloo::transport::Device> device, RendezvousStore* store)
      : device_(std::move(device)), store_(store) {}

  absl::StatusOr<std::unique_ptr<Communicator>> Form(const std::string& name, int rank, int size,
                                                     int64_t deadline_ms) override {
    ACCRUE_CHECK(rank >= 0 && rank < size);
    if (size == 1) return std::make_unique<GlooCommunicator>(name, rank, size, nullptr);
    try {
      StoreAdapter store(store_, name, size, deadline_ms);
      store.SayPresent(rank);
      auto context = std::make_shared<gloo::rendezvous::Context>(rank, size);
      context->setTimeout(std::chrono::milliseconds(deadline_ms));
      std::shared_ptr<gloo::transport::Device> device = device_;  // Gloo takes it by reference
      context->connectFullMesh(store, device);
      auto communicator = std::make_unique<GlooCommunicator>(name, rank, size, std::move(context));
      // A member that left before another one had accepted its connection would leave that one waiting: so nobody
      // returns before all are connected.
      const int64_t here = 1;
      int64_t members = 0;
      if (absl::Status status = communicator->AllReduce(&here, &members, 1); !status.ok()) return status;
      return communicator;
    } catch (const StatusException& error) {
      return error.status;
    } catch (const std::exception& error) {
      const std::string message =
          absl::StrCat("communicator \"", name, "\", rank ", rank, " of ", size, ": ", error.what());
      return IsTimeOut(error) ? absl::DeadlineExceededError(message) : absl::UnavailableError(message);
    }
  }

 private:
  const std::shared_ptr<gloo::transport::Device> device_;
  RendezvousStore* const store_;
};

// Whether a socket here can be bound to the address. Gloo would find out too, but leaks what it had resolved.
bool CanBind(const std::string& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.c_str(), nullptr, &hints, &found) != 0) return false;
  bool bound = false;
  for (const addrinfo* entry = found; entry != nullptr && !bound; entry = entry->ai_next) {
    const int descriptor = socket(entry->ai_family, entry->ai_socktype | SOCK_CLOEXEC, entry->ai_protocol);
    if (descriptor < 0) continue;
    bound = bind(descriptor, entry->ai_addr, entry->ai_addrlen) == 0;
    close(descriptor);
  }
  freeaddrinfo(found);
  return bound;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CollectiveFactory>> CreateGlooFactory(const GlooOptions& options,
                                                                     RendezvousStore* store) {
  if (!CanBind(options.bind_address)) {
    return absl::InvalidArgumentError(absl::StrCat("cannot bind communicators to \"", options.bind_address,
                                                   "\": expected a name or an address of this machine"));
  }
  try {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = options.bind_address;
    return std::make_unique<GlooFactory>(gloo::transport::tcp::CreateDevice(attributes), store);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot bind communicators to \"", options.bind_address, "\": ", error.what()));
  }
}

}  // namespace accrue
