#include "worker/collective/nccl/nccl_collective.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/collective/reachability.h"

namespace accrue::nccl {
namespace {

constexpr char kIdKey[] = "nccl-id";
// A look at the store, so that an abort is seen.
constexpr int64_t kStoreSliceMs = 100;
// For finding out who cannot be reached.
constexpr int64_t kReachTimeoutMs = 1'000;
// Between two looks at an operation: at first often, since a bucket takes about a millisecond.
constexpr int64_t kShortPauseNs = 20'000, kLongPauseNs = 500'000;
constexpr int kShortPauses = 200;
// For peers to take what was sent to them, when a communicator is no longer needed.
constexpr int64_t kFinalizeNs = 2'000'000'000;

std::string KeyOf(int rank) { return absl::StrCat("nccl/", rank); }

class NcclCommunicator : public Communicator {
 public:
  NcclCommunicator(std::string name, int rank, int size, int64_t deadline_ms, Doorbell& doorbell, Calls& calls,
                   const Clock& clock, RendezvousStore& store)
      : name_(std::move(name)),
        rank_(rank),
        size_(size),
        deadline_ms_(deadline_ms),
        doorbell_(doorbell),
        calls_(calls),
        clock_(clock),
        store_(store) {}

  ~NcclCommunicator() override {
    if (handle_ == nullptr) return;
    int result = calls_.Finalize(handle_);
    const int64_t end_ns = clock_.SteadyNowNs() + kFinalizeNs;
    while (result == kInProgress && clock_.SteadyNowNs() < end_ns) {
      Pause(kShortPauses);
      if (calls_.AsyncError(handle_, result) != kSuccess) break;
    }
    if (result == kSuccess) {
      calls_.Destroy(handle_);
    } else {
      calls_.Abort(handle_);
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status Meet() override {
    if (aborted_) return Fail(absl::OkStatus());
    if (size_ == 1) return absl::OkStatus();
    doorbell_.Drain();
    const int64_t end_ns = EndOfDeadline();
    absl::Status status = FindOthers(end_ns);
    if (status.ok()) status = Connect(end_ns);
    if (status.ok()) return CountMembers();
    return Fail(std::move(status));
  }

  absl::Status AllReduce(const int64_t* in, int64_t* out, int64_t elements) override {
    return AllReduceOf(in, out, elements, Element::kInt64, sizeof(int64_t));
  }
  absl::Status AllReduce(const float* in, float* out, int64_t elements) override {
    return AllReduceOf(in, out, elements, Element::kFloat32, sizeof(float));
  }

  absl::Status Broadcast(void* data, size_t size_bytes, int root) override {
    ACCRUE_CHECK(root >= 0 && root < size_);
    return Run("broadcast", size_bytes, [&] { return calls_.Broadcast(data, size_bytes, root, handle_); });
  }

  absl::Status BroadcastHost(void* data, size_t size_bytes, int root) override {
    for (size_t done = 0; done < size_bytes; done += calls_.bounce_bytes()) {
      const size_t part_bytes = std::min(calls_.bounce_bytes(), size_bytes - done);
      char* const part = static_cast<char*>(data) + done;
      if (rank_ == root) calls_.CopyToDevice(calls_.bounce(), part, part_bytes);
      ACCRUE_RETURN_IF_ERROR(Broadcast(calls_.bounce(), part_bytes, root));
      if (rank_ != root) calls_.CopyToHost(part, calls_.bounce(), part_bytes);
    }
    return size_bytes == 0 ? Broadcast(data, 0, root) : absl::OkStatus();
  }

  // Seen by the thread that is in an operation, or by the next one.
  void Abort() override { aborted_ = true; }

 private:
  absl::Status AllReduceOf(const void* in, void* out, int64_t elements, Element element, size_t element_bytes) {
    ACCRUE_CHECK(elements >= 0);
    const size_t size_bytes = static_cast<size_t>(elements) * element_bytes;
    const absl::Status status = Run("all-reduce", size_bytes, [&] {
      return calls_.AllReduce(in, out, static_cast<size_t>(elements), element, handle_);
    });
    if (status.ok() && size_ == 1 && size_bytes > 0) calls_.Copy(out, in, size_bytes);
    return status;
  }

  int64_t EndOfDeadline() const { return clock_.SteadyNowNs() + deadline_ms_ * 1'000'000; }

  // The turn-th of a wait.
  void Pause(int turn) const {
    clock_.WaitUntilNs(clock_.SteadyNowNs() + (turn < kShortPauses ? kShortPauseNs : kLongPauseNs));
  }

  // Until the communicator's own work is done.
  absl::Status AwaitNccl(int result, const char* what, int64_t end_ns) {
    for (int turn = 0; result == kInProgress; ++turn) {
      if (aborted_) return Aborted();
      if (clock_.SteadyNowNs() >= end_ns) return TooLate(what);
      Pause(turn);
      if (const int asked = calls_.AsyncError(handle_, result); asked != kSuccess) result = asked;
    }
    if (result == kSuccess) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(what, ": NCCL: ", calls_.ResultText(result, handle_)));
  }

  // Until the device has done what was queued. The network's errors show only in the communicator's state.
  absl::Status AwaitDevice(const char* what, int64_t end_ns) {
    for (int turn = 0; !calls_.IsIdle(); ++turn) {
      if (aborted_) return Aborted();
      if (clock_.SteadyNowNs() >= end_ns) return TooLate(what);
      int state = kSuccess;
      if (const int asked = calls_.AsyncError(handle_, state); asked != kSuccess) state = asked;
      if (state != kSuccess && state != kInProgress) return AwaitNccl(state, what, end_ns);
      Pause(turn);
    }
    // What ended it may have been an error.
    int state = kSuccess;
    if (const int asked = calls_.AsyncError(handle_, state); asked != kSuccess) state = asked;
    return AwaitNccl(state, what, end_ns);
  }

  template <typename Queue>
  absl::Status Run(const char* what, size_t size_bytes, Queue queue) {
    if (aborted_ || !failure_.ok()) return Fail(absl::OkStatus());
    ACCRUE_CHECK(size_ == 1 || handle_ != nullptr);
    if (size_ == 1 || size_bytes == 0) return absl::OkStatus();
    const int64_t end_ns = EndOfDeadline();
    calls_.FollowCompute();
    absl::Status status = AwaitNccl(queue(), what, end_ns);
    if (status.ok()) status = AwaitDevice(what, end_ns);
    if (status.ok()) return status;
    return Fail(Annotate(status, absl::StrCat(size_bytes, " bytes")));
  }

  absl::Status FindOthers(int64_t end_ns) {
    if (rank_ == 0) {
      UniqueId id{};
      ACCRUE_RETURN_IF_ERROR(AwaitNccl(calls_.GetUniqueId(id), "ncclGetUniqueId", end_ns));
      ACCRUE_RETURN_IF_ERROR(store_.Set(name_, kIdKey, std::string(id.data(), id.size())));
    }
    ACCRUE_RETURN_IF_ERROR(store_.Set(name_, KeyOf(rank_), doorbell_.address()));
    std::vector<std::string> keys;
    for (int member = 0; member < size_; ++member) keys.push_back(KeyOf(member));
    keys.push_back(kIdKey);
    while (true) {
      if (aborted_) return Aborted();
      const int64_t rest_ms = (end_ns - clock_.SteadyNowNs()) / 1'000'000;
      absl::StatusOr<std::vector<std::string>> values =
          store_.Get(name_, keys, std::clamp<int64_t>(rest_ms, 0, kStoreSliceMs));
      if (values.ok()) return TakeAddresses(*std::move(values));
      if (!absl::IsDeadlineExceeded(values.status())) return values.status();
      if (rest_ms <= 0) return WhoIsMissing();
    }
  }

  absl::Status TakeAddresses(std::vector<std::string> values) {
    if (values.size() != static_cast<size_t>(size_) + 1 || values.back().size() != id_.size()) {
      return absl::InternalError(absl::StrCat("the rendezvous store answered with ", values.size(),
                                              " values, the last of ", values.empty() ? 0 : values.back().size(),
                                              " bytes; expected ", size_ + 1, ", the last of ", id_.size(), " bytes"));
    }
    std::memcpy(id_.data(), values.back().data(), id_.size());
    values.pop_back();
    doorbells_ = std::move(values);
    return absl::OkStatus();
  }

  absl::Status WhoIsMissing() {
    std::vector<int> missing;
    for (int member = 0; member < size_; ++member) {
      if (!store_.Get(name_, {KeyOf(member)}, 0).ok()) missing.push_back(member);
    }
    absl::Status status = absl::DeadlineExceededError(absl::StrCat(
        "rank ", absl::StrJoin(missing, ", "), " of ", size_, " did not come within ", deadline_ms_, " ms"));
    SetUnreachableRanks(missing, status);
    return status;
  }

  absl::Status Connect(int64_t end_ns) {
    const int result = calls_.InitRank(handle_, size_, id_, rank_);
    if (handle_ == nullptr) {
      return absl::UnavailableError(absl::StrCat("ncclCommInitRankConfig: NCCL: ", calls_.ResultText(result, nullptr)));
    }
    return AwaitNccl(result, "ncclCommInitRankConfig", end_ns);
  }

  // Connections are made by the first operation, and nobody returns before all are.
  absl::Status CountMembers() {
    int64_t members = 1;
    calls_.CopyToDevice(calls_.bounce(), &members, sizeof(members));
    auto* const in = static_cast<int64_t*>(calls_.bounce());
    ACCRUE_RETURN_IF_ERROR(AllReduce(in, in + 1, 1));
    calls_.CopyToHost(&members, in + 1, sizeof(members));
    if (members == size_) return absl::OkStatus();
    return Fail(absl::UnavailableError(absl::StrCat("the first sum over ", size_, " members is ", members)));
  }

  // The communicator is of no further use; why, with the peers that cannot be reached.
  absl::Status Fail(absl::Status status) {
    if (handle_ != nullptr) calls_.Abort(std::exchange(handle_, nullptr));
    if (aborted_) return Aborted();
    if (!failure_.ok()) return failure_;
    failure_ = Annotate(status, Place());
    std::vector<int> ranks = UnreachableRanks(status);
    if (ranks.empty() && !absl::IsCancelled(status)) ranks = Unreachable(doorbells_, kReachTimeoutMs);
    SetUnreachableRanks(ranks, failure_);
    return failure_;
  }

  absl::Status TooLate(const char* what) const {
    return absl::DeadlineExceededError(absl::StrCat(what, ": not done within ", deadline_ms_, " ms"));
  }
  absl::Status Aborted() const { return absl::AbortedError(absl::StrCat(Place(), " was aborted")); }
  std::string Place() const { return absl::StrCat("communicator \"", name_, "\", rank ", rank_, " of ", size_); }

  const std::string name_;
  const int rank_, size_;
  const int64_t deadline_ms_;
  Doorbell& doorbell_;
  Calls& calls_;
  const Clock& clock_;
  RendezvousStore& store_;

  std::atomic<bool> aborted_{false};
  Handle handle_ = nullptr;  // null before the meeting and after a failure
  UniqueId id_{};
  std::vector<std::string> doorbells_;  // by rank, once all have come
  absl::Status failure_;
};

class NcclFactory : public CollectiveFactory {
 public:
  NcclFactory(std::unique_ptr<Doorbell> doorbell, Calls& calls, const Clock& clock, RendezvousStore* store)
      : doorbell_(std::move(doorbell)), calls_(calls), clock_(clock), store_(store) {}

  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string& name, int rank, int size,
                                                       int64_t deadline_ms) override {
    ACCRUE_CHECK(rank >= 0 && rank < size);
    return std::make_unique<NcclCommunicator>(name, rank, size, deadline_ms, *doorbell_, calls_, clock_, *store_);
  }
  // One stream and one pair of host buffers serve all communicators.
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string&, int, int, int64_t) override {
    return absl::UnimplementedError("NCCL's communicators are formed by the thread that computes");
  }

 private:
  const std::unique_ptr<Doorbell> doorbell_;
  Calls& calls_;
  const Clock& clock_;
  RendezvousStore* const store_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CollectiveFactory>> CreateNcclFactory(const Options& options, Calls& calls,
                                                                     const Clock& clock, RendezvousStore* store) {
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<Doorbell> doorbell, Doorbell::Listen(options.bind_address));
  return std::make_unique<NcclFactory>(std::move(doorbell), calls, clock, store);
}

}  // namespace accrue::nccl
