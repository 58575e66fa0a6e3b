#include "worker/collective/gloo_collective.h"

#include <gloo/allreduce.h>
#include <gloo/broadcast.h>
#include <gloo/transport/tcp/device.h>
#include <signal.h>

#include <atomic>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/collective/gloo_mesh.h"
#include "worker/collective/reachability.h"

namespace accrue {
namespace {

// Gloo's default of 1 MiB costs more than half of the bandwidth from three members on.
constexpr size_t kMaxSegmentBytes = 8 << 20;
// For finding out who cannot be reached. Only a machine or a network that is silent takes this long to be found out.
constexpr int64_t kReachTimeoutMs = 1'000;

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
  // mesh: null for size 1.
  GlooCommunicator(std::string name, int rank, int size, int64_t deadline_ms, std::shared_ptr<GlooMesh> mesh,
                   Doorbell& doorbell, RendezvousStore& store)
      : name_(std::move(name)),
        rank_(rank),
        size_(size),
        deadline_ms_(deadline_ms),
        mesh_(std::move(mesh)),
        doorbell_(doorbell),
        store_(store) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status Meet() override {
    if (size_ == 1) return aborted_ ? Aborted() : absl::OkStatus();
    doorbell_.Drain();
    if (absl::Status status = mesh_->Meet(name_, doorbell_.address(), deadline_ms_, store_); !status.ok()) {
      failure_ = Annotate(status, Place());
      SetUnreachableRanks(UnreachableRanks(status), failure_);
      return failure_ = Failed(failure_);
    }
    met_ = true;
    // A member that left before another one had accepted its connection would leave that one waiting: so nobody
    // returns before all are connected.
    const int64_t here = 1;
    int64_t members = 0;
    return AllReduce(&here, &members, 1);
  }

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
      gloo::BroadcastOptions options(mesh_);
      options.setOutput(static_cast<char*>(data), size_bytes);
      options.setRoot(root);
      options.setTag(next_tag_++);
      gloo::broadcast(options);
    });
  }

  void Abort() override {
    if (!aborted_.exchange(true) && mesh_ != nullptr) mesh_->Stop();
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
      gloo::AllreduceOptions options(mesh_);
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
    if (aborted_) return Aborted();
    if (!failure_.ok()) return failure_;
    ACCRUE_CHECK(size_ == 1 || met_);
    try {
      operation();
      return absl::OkStatus();
    } catch (const std::exception& error) {
      const std::string message = absl::StrCat(Place(), ": ", what, ": ", error.what());
      failure_ = IsTimeOut(error) ? absl::DeadlineExceededError(message) : absl::UnavailableError(message);
    }
    mesh_->FailPairs();  // so that members who wait for this one, not for the one that is gone, learn of it at once
    return failure_ = Failed(failure_);
  }

  // With the peers that cannot be reached, unless this side gave up.
  absl::Status Failed(absl::Status status) const {
    if (aborted_) return absl::AbortedError(status.message());
    const bool is_known = !UnreachableRanks(status).empty() || absl::IsCancelled(status);
    if (!is_known) SetUnreachableRanks(mesh_->UnreachablePeers(kReachTimeoutMs), status);
    return status;
  }

  absl::Status Aborted() const { return absl::AbortedError(absl::StrCat(Place(), " was aborted")); }
  std::string Place() const { return absl::StrCat("communicator \"", name_, "\", rank ", rank_, " of ", size_); }

  const std::string name_;
  const int rank_;
  const int size_;
  const int64_t deadline_ms_;
  const std::shared_ptr<GlooMesh> mesh_;
  Doorbell& doorbell_;
  RendezvousStore& store_;
  std::atomic<bool> aborted_{false};
  // Of the operating thread.
  bool met_ = false;
  absl::Status failure_;
  uint32_t next_tag_ = 0;
};

class GlooFactory : public CollectiveFactory {
 public:
  GlooFactory(std::shared_ptr<gloo::transport::Device> device, std::unique_ptr<Doorbell> doorbell,
              RendezvousStore* store)
      : device_(std::move(device)), doorbell_(std::move(doorbell)), store_(store) {}

  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string& name, int rank, int size,
                                                       int64_t deadline_ms) override {
    ACCRUE_CHECK(rank >= 0 && rank < size);
    std::shared_ptr<GlooMesh> mesh = size == 1 ? nullptr : std::make_shared<GlooMesh>(rank, size, device_);
    return std::make_unique<GlooCommunicator>(name, rank, size, deadline_ms, std::move(mesh), *doorbell_, *store_);
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string& name, int rank, int size,
                                                            int64_t deadline_ms) override {
    return Create(name, rank, size, deadline_ms);
  }

 private:
  const std::shared_ptr<gloo::transport::Device> device_;
  const std::unique_ptr<Doorbell> doorbell_;
  RendezvousStore* const store_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CollectiveFactory>> CreateGlooFactory(const GlooOptions& options,
                                                                     RendezvousStore* store) {
  signal(SIGPIPE, SIG_IGN);
  // First, since Gloo leaks what it had resolved of an address that cannot be bound.
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<Doorbell> doorbell, Doorbell::Listen(options.bind_address));
  try {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = options.bind_address;
    return std::make_unique<GlooFactory>(gloo::transport::tcp::CreateDevice(attributes), std::move(doorbell), store);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot bind communicators to \"", options.bind_address, "\": ", error.what()));
  }
}

}  // namespace accrue
